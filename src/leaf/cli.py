"""The command ``leaf``: what the workflow's rules call and a person can type."""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from leaf.experiment.cells import CHOICES, OUTPUTS, RESULTS, Cell
from leaf.experiment.config import Config, check_known, read_config
from leaf.experiment.errors import UserError
from leaf.experiment.scales import Settings

CELL_HELP = "a cell's name, such as lenet5/cifar10/leaf-tanh/p24sl/adam/seed42"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake ends in one line on standard error and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        sys.exit(f"leaf: {error}")
    except KeyboardInterrupt:
        sys.exit("leaf: interrupted")
    except BrokenPipeError:  # as when piped into head
        sys.stderr.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="leaf", description="Learnable activation functions, cell by cell.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Any, name: str, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=description, description=description)
        added.set_defaults(run=run)
        added.add_argument("--scale", help="the scale, instead of the configuration's")
        added.add_argument(
            "--configfile", type=Path, action="append", default=[], metavar="FILE", help="merge over config.yaml"
        )
        added.add_argument("--config", default="{}", metavar="YAML", help="merge over config.yaml and files")
        return added

    cells = command(_cells, "cells", "List the cells of the grid.")
    for field, values in CHOICES.items():
        cells.add_argument(f"--{field}", action="append", metavar="NAME", help=f"keep only: {', '.join(values)}")
    cells.add_argument("--seed", action="append", type=int, metavar="N", help="keep only this seed")
    cells.add_argument("--csv", action="store_true", help="as CSV, a column per field")

    fetch = command(_fetch, "fetch", "Fetch and verify data sets.")
    fetch.add_argument("dataset", nargs="*", default=list(CHOICES["dataset"]), help="all, if none is named")

    fetch.add_argument("--directory", help="look there first, instead of in the configuration's datasets_directory")

    train = command(_train, "train", "Train one cell, as far as its outputs are not current already.")
    _add_cells(train, one=True)
    train.add_argument("--device", help="auto, cpu or cuda, instead of the configuration's")
    train.add_argument("--precision", help="float32, tf32 or bfloat16, instead of the configuration's")
    train.add_argument("--threads", type=_positive, help="threads to compute with; all cores if not given")
    train.add_argument(
        "--checkpoint-epochs", type=_positive, default=1, metavar="K", help="write the state every K epochs (1)"
    )
    train.add_argument(
        "--checkpoint-minutes", type=float, default=10, metavar="M", help="and when M minutes have passed (10)"
    )

    status = command(_status, "status", "Tell which cells are done, running, stale or missing.")

    for listing in (cells, status):
        listing.add_argument(
            "--experiment", action="append", help="those of an experiment, instead of the target all's"
        )

    table = command(_table, "table", "Make a table of cells.")
    table.add_argument("kind", help="summary, paper, differences, best_epoch, matches or claims")
    table.add_argument("--statistics", metavar="JSON", help="metric and confidence, instead of the configuration's")
    _add_cells(table)
    table.add_argument("--output", type=Path, nargs="+", required=True, metavar="FILE", help="csv, tex, md, html")

    figure = command(_figure, "figure", "Make a figure of cells.")
    figure.add_argument("kind", help="progress (of several cells) or forms (of one)")
    _add_cells(figure)
    figure.add_argument("--output", type=Path, required=True, metavar="FILE", help="svg, pdf or png")

    collect = command(_collect, "collect", "Gather the records of whatever cells there are into three files.")
    collect.add_argument("--output", type=Path, required=True, metavar="DIRECTORY")
    collect.add_argument(
        "--add", action="store_true", help="keep what is in the directory already of cells that have no results here"
    )

    analyse = command(_analyse, "analyse", "Make every table and figure from collected records.")
    analyse.add_argument("directory", type=Path, help="where 'leaf collect' wrote; tables and figures go there too")

    verify = command(_verify, "verify", "Train the first epochs of a recorded cell again, and tell if they follow.")
    verify.add_argument("cell", nargs="?", metavar="CELL", help=f"one drawn at random, if not given; {CELL_HELP}")
    verify.add_argument("--epochs", type=_positive, default=2, metavar="K", help="how many epochs (2)")
    verify.add_argument(
        "--records", type=Path, default=Path("reports/shipped"), metavar="DIRECTORY", help="(reports/shipped)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _add_cells(parser: argparse.ArgumentParser, one: bool = False) -> None:
    parser.add_argument("cell", nargs=None if one else "+", metavar="CELL", help=CELL_HELP)
    parser.add_argument("--settings", metavar="JSON", help="the scale's settings, instead of the configuration's")


def _config(options: argparse.Namespace) -> Config:
    overrides = yaml.safe_load(options.config)
    if not isinstance(overrides, dict):
        raise UserError(f"--config {options.config!r}: expected keys and values, such as '{{scale: paper}}'")
    return read_config(options.configfile, overrides)


def _scale_and_settings(options: argparse.Namespace) -> tuple[str, Settings]:
    """The scale's name and settings; from the command line alone, if it tells both."""
    given = getattr(options, "settings", None)
    if given and options.scale:
        return options.scale, Settings.from_json(given)
    config = _config(options)
    scale = check_known("scale", options.scale or config.scale, config.scales)
    return scale, Settings.from_json(given) if given else config.scales[scale].settings


def _cells(options: argparse.Namespace) -> None:
    cells = _config(options).cells(options.experiment, options.scale)
    for field in (*CHOICES, "seed"):
        if wanted := getattr(options, field):
            for value in wanted if field in CHOICES else ():
                check_known(field, value, CHOICES[field])
            cells = [cell for cell in cells if getattr(cell, field) in wanted]
    if options.csv:
        print(",".join((*CHOICES, "seed")))
    for cell in cells:
        print(",".join(str(getattr(cell, field)) for field in (*CHOICES, "seed")) if options.csv else cell.name)
    if not options.csv:
        print(f"{len(cells)} cells", file=sys.stderr)


def _fetch(options: argparse.Namespace) -> None:
    from leaf.experiment.fetching import fetch

    directory = _config(options).values["datasets_directory"] if options.directory is None else options.directory
    for name in options.dataset:
        fetch(check_known("dataset", name, CHOICES["dataset"]), Path(directory) if directory else None)


def _train(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from leaf.experiment.job import Schedule, Stopped, train_cell

    cell = Cell.parse(options.cell)
    scale, settings = _scale_and_settings(options)
    bar = tqdm(unit="batch", disable=None, leave=False)

    def progress(epoch: int, step: int, steps: int) -> None:
        if step < bar.n or bar.total is None:
            bar.reset(steps)
            bar.set_description(f"epoch {epoch}/{settings.epochs}")
        bar.update(step - bar.n)

    device, precision = (getattr(options, name) or _config(options).values[name] for name in ("device", "precision"))
    schedule = Schedule(options.checkpoint_epochs, options.checkpoint_minutes)
    with bar:
        try:
            train_cell(cell, scale, settings, device, options.threads, precision, schedule, progress, bar.write)
        except Stopped as stop:
            bar.write(f"{cell.name}: {stop}")
            sys.exit(128 + stop.signal)


def _status(options: argparse.Namespace) -> None:
    from leaf.experiment.status import summarize

    config = _config(options)
    scale, settings = _scale_and_settings(options)
    for line in summarize(config.cells(options.experiment, scale), scale, settings):
        print(line)


def _table(options: argparse.Namespace) -> None:
    from leaf.analysis.analyse import network_table
    from leaf.analysis.claims import evaluate
    from leaf.analysis.collection import collect
    from leaf.analysis.layout import NETWORK_TABLES
    from leaf.analysis.tables import TABLES, write_table

    kind = check_known("kind of table", options.kind, (*TABLES, *NETWORK_TABLES, "claims"))
    scale, settings = _scale_and_settings(options)
    cells = dict.fromkeys(map(Cell.parse, options.cell), ())
    records = collect(cells, scale, settings, with_forms=kind in ("matches", "claims"))
    if kind in TABLES:
        table = TABLES[kind](records)
    elif kind == "claims":
        table = evaluate(records)
    else:
        given = options.statistics
        table = network_table(kind, records, json.loads(given) if given else _config(options).values["statistics"])
    for file in options.output:
        write_table(table, file)


def _figure(options: argparse.Namespace) -> None:
    from leaf.analysis.collection import collect
    from leaf.analysis.figures import FIGURES, write_figure

    kind = FIGURES[check_known("kind of figure", options.kind, FIGURES)]
    scale, settings = _scale_and_settings(options)
    cells = dict.fromkeys(map(Cell.parse, options.cell), ())
    write_figure(kind(collect(cells, scale, settings, with_forms=options.kind == "forms")), options.output)


def _collect(options: argparse.Namespace) -> None:
    from leaf.analysis.collection import collect, merge, read_records, write_records
    from leaf.analysis.layout import RECORDS

    config = _config(options)
    scale, settings = _scale_and_settings(options)
    existing, in_all = set(_existing_cells(scale)), set(config.cells(scale=scale))
    cells: dict[Cell, list[str]] = {cell: [] for cell in existing}
    for name in config.experiments:
        of_it = config.cells([name], scale)
        if name in config.in_all or existing.intersection(of_it) - in_all:  # what nobody has begun has no gaps to mark
            for cell in of_it:
                cells.setdefault(cell, []).append(name)
    records = collect(cells, scale, settings, with_forms=True, tolerant=True)
    if options.add and (options.output / RECORDS[0]).exists():
        records = merge(read_records(options.output), records)
    write_records(records, options.output)
    print(f"{options.output}: {len(records.cells)} cells, {records.cells['status'].value_counts().to_dict()}")


def _existing_cells(scale: str) -> Iterable[Cell]:
    """The cells that have left a ``run.json``, of the configuration or not."""
    top = RESULTS / scale
    return (Cell.parse(str(file.parent.relative_to(top))) for file in top.rglob(OUTPUTS[-1]))


def _analyse(options: argparse.Namespace) -> None:
    from leaf.analysis.analyse import analyse
    from leaf.analysis.collection import read_records

    values = _config(options).values
    analyse(read_records(options.directory), options.directory, values["figure_format"], values["statistics"])
    print(f"{options.directory}: tables and figures made")


def _verify(options: argparse.Namespace) -> None:
    from leaf.analysis.collection import read_records
    from leaf.analysis.verify import verifiable, verify
    from leaf.experiment.datasets import dataset_file, load

    records = read_records(options.records)
    candidates = verifiable(records)
    if not candidates:
        raise UserError(f"{options.records}: no cell made with the present training version")
    cell = Cell.parse(options.cell) if options.cell else random.SystemRandom().choice(candidates)
    data = load(cell.dataset, dataset_file(cell.dataset))
    if not verify(records, cell, data, options.epochs):
        raise UserError(f"{cell.name}: does not follow its record")
