"""The command line interface ``leaf``, for users and for the rules of the workflow."""

import argparse
import fnmatch
import multiprocessing
import random
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import yaml  # noqa: F401  # one package of the extra "workflow"
except ModuleNotFoundError:
    sys.exit("leaf: the experiment needs more packages than the library: pip install 'leaf-activations[workflow]'")

from leaf.analysis.product import Product
from leaf.analysis.products import FIGURES, PRODUCTS, TABLES
from leaf.experiment.cells import CHOICES, OUTPUTS, Cell, check_choice, existing_cells, sort_cells
from leaf.experiment.clearing import forget, prune
from leaf.experiment.config import Config, check_config, parse_yaml, read_config
from leaf.experiment.errors import UserError, check_known
from leaf.experiment.plugins import load_plugins, read_settings
from leaf.experiment.progress import STATUS
from leaf.experiment.project import SHIPPED
from leaf.experiment.scales import Settings
from leaf.experiment.status import STATUSES, CellStatus, look, summarize

if TYPE_CHECKING:
    from leaf.analysis.collection import Records

CELL_HELP = "a cell's name, such as lenet5/cifar10/leaf-tanh/p24sl/adam/seed42"
CONFIGURED = "(default: the configuration's)"
FIELDS = (*CHOICES, "seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. On a user's mistake, print one line to standard error and exit with status 1."""
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
    parser = argparse.ArgumentParser(
        prog="leaf", description="Train and analyse networks with learnable activation functions."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Any, name: str, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=description, description=description)
        added.set_defaults(run=run)
        added.add_argument("--scale", help=f"name of the scale {CONFIGURED}")
        added.add_argument(
            "--configfile", type=Path, action="append", default=[], metavar="FILE", help="file merged over config.yaml"
        )
        added.add_argument("--config", default="{}", metavar="YAML", help="text merged over config.yaml and the files")
        added.add_argument("--no-configfile", action="store_true", help="read no file: --config is the configuration")
        return added

    cells = command(_cells, "cells", "List the cells of the grid.")
    cells.add_argument("--status", action="append", metavar="NAME", help=f"select: {', '.join(STATUSES)}")
    layout = cells.add_mutually_exclusive_group()
    layout.add_argument("--csv", action="store_true", help="print CSV, a column per field")
    layout.add_argument("--paths", action="store_true", help="print the paths of their results, for snakemake")

    fetch = command(_fetch, "fetch", "Fetch and verify data sets.")
    fetch.add_argument("dataset", nargs="*", help="name of a data set (default: all)")
    fetch.add_argument("--directory", help="directory to search first (default: datasets_directory)")

    train = command(_train, "train", "Train one cell, unless its outputs are current.")
    _add_cells(train, None)
    train.add_argument("--device", help=f"auto, cpu or cuda {CONFIGURED}")
    train.add_argument("--precision", help=f"float32, tf32, tf32-convolutions or bfloat16 {CONFIGURED}")
    train.add_argument("--threads", type=_positive, help="number of threads (default: all cores)")
    train.add_argument(
        "--checkpoint-epochs", type=_positive, metavar="K", help=f"write the state after every K epochs {CONFIGURED}"
    )
    train.add_argument(
        "--checkpoint-minutes", type=float, metavar="M", help=f"also write it every M minutes {CONFIGURED}"
    )
    train.add_argument("--continues", metavar="SCALE", help="scale whose states may be resumed; only with --settings")
    train.add_argument("--tracking", metavar="JSON", help=f"trackers and their options {CONFIGURED}")

    status = command(_status, "status", "Report the progress of cells, the time left, and cells that need attention.")
    status.add_argument("--all", action="store_true", help="also list the cells that are done or waiting")

    for listing in (cells, status):
        listing.add_argument(
            "--experiment", action="append", metavar="NAME", help="select an experiment (default: those of target all)"
        )
        for field, values in CHOICES.items():
            names = f"select: {', '.join(values)}; * matches any characters"
            listing.add_argument(f"--{field}", action="append", metavar="NAME", help=names)
        listing.add_argument("--seed", action="append", type=int, metavar="N", help="select a seed")

    forgotten = command(_forget, "forget", "Remove the outputs and states of cells; the next run trains them again.")
    forgotten.add_argument("cell", nargs="*", metavar="CELL", help=CELL_HELP)

    command(_prune, "prune", "Remove the states of finished cells. Only training for more epochs needs them.")

    for kind, products in (("table", TABLES), ("figure", FIGURES)):
        formats, files = ("csv, tex, md, html or rst", "+") if kind == "table" else ("svg, pdf or png", 1)
        made = command(_make, kind, f"Make {kind}s of cells, as {formats}.")
        made.set_defaults(products=products)
        _add_cells(made, "*")
        made.add_argument("--statistics", metavar="JSON", help=f"metric and confidence {CONFIGURED}")
        for product in products.values():
            made.add_argument(f"--{product.name}", type=Path, nargs=files, metavar="FILE", help=product.title)

    collect = command(_collect, "collect", "Collect the records of all existing cells in three files.")
    collect.add_argument("--output", type=Path, required=True, metavar="DIRECTORY", help="directory of the files")
    collect.add_argument("--add", action="store_true", help="keep its records of cells that have no results here")
    collect.add_argument("--without-models", action="store_true", help="accept cells without model.safetensors")

    analyse = command(_analyse, "analyse", "Make all tables and figures from collected records.")
    analyse.add_argument("directory", type=Path, help="directory of the records, also for the tables and figures")
    analyse.add_argument("--threads", type=_positive, help="number of processes that draw figures (default: all cores)")

    verify = command(
        _verify, "verify", "Train the first epochs of a recorded cell again, and compare them with its record."
    )
    verify.add_argument("cell", nargs="?", metavar="CELL", help=f"{CELL_HELP} (default: a random one)")
    verify.add_argument("--epochs", type=_positive, default=2, metavar="K", help="number of epochs (default: 2)")
    records = "directory of the records (default: the project's reports/shipped)"
    verify.add_argument("--records", type=Path, default=SHIPPED, metavar="DIRECTORY", help=records)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _add_cells(parser: argparse.ArgumentParser, number: str | None) -> None:
    parser.add_argument("cell", nargs=number, metavar="CELL", help=CELL_HELP)
    parser.add_argument("--settings", metavar="JSON", help=f"the scale's settings {CONFIGURED}")


def _config(options: argparse.Namespace) -> Config:
    """Return the configuration. The first call reads it."""
    if "read" not in options:
        from leaf.workflow import check_names

        overrides = parse_yaml(options.config, f"--config {options.config!r}")
        if not isinstance(overrides, dict):
            raise UserError(f"--config {options.config!r}: expected keys and values, such as '{{scale: paper}}'")
        alone = options.no_configfile
        options.read = check_names(check_config(overrides) if alone else read_config(options.configfile, overrides))
    return options.read


def _selected(options: argparse.Namespace, config: Config, begun: bool) -> list[Cell]:
    """Select the cells to list by the options.

    ``begun`` adds the parents of cells and, unless an experiment is given, started cells outside the target all.
    """
    cells = config.cells(options.experiment, options.scale)
    if begun:
        if options.experiment is None:
            cells += existing_cells(options.scale or config.scale, OUTPUTS[-1], STATUS)
        cells = sort_cells([*cells, *(cell.parent for cell in cells if cell.parent)])
    for field in CHOICES:
        if wanted := getattr(options, field):
            for name in wanted:
                if not fnmatch.filter(CHOICES[field], name):
                    check_choice(field, name)
            cells = [cell for cell in cells if any(fnmatch.fnmatch(getattr(cell, field), name) for name in wanted)]
    return [cell for cell in cells if options.seed is None or cell.seed in options.seed]


def _scale_and_settings(options: argparse.Namespace) -> tuple[str, Settings]:
    """Return the scale's name and settings, and load the plugins. With --scale and --settings, read no file."""
    given = getattr(options, "settings", None)
    if given and options.scale:
        return options.scale, read_settings(given)
    config = _config(options)
    scale = check_known("scale", options.scale or config.scale, config.scales)
    return scale, read_settings(given) if given else config.scales[scale].settings


def _cells(options: argparse.Namespace) -> None:
    config = _config(options)
    cells = _selected(options, config, begun=bool(options.status))
    if options.status:
        wanted = [check_known("status", name, STATUSES) for name in options.status]
        cells = [one.cell for one in _look(options, config, cells) if one.status in wanted]
    if options.csv:
        print(",".join(FIELDS))
    for cell in cells:
        if options.csv:
            print(",".join(str(getattr(cell, field)) for field in FIELDS))
        else:
            print(cell.directory(options.scale or config.scale) / OUTPUTS[-1] if options.paths else cell.name)
    if not options.csv:
        print(f"{len(cells)} cells", file=sys.stderr)


def _look(options: argparse.Namespace, config: Config, cells: Iterable[Cell]) -> list[CellStatus]:
    name = options.scale or config.scale
    scale = config.scales[name]
    return look(cells, name, scale.settings, scale.continues, config.values["device"])


def _fetch(options: argparse.Namespace) -> None:
    from leaf.experiment.fetching import fetch

    config = _config(options)
    directory = config.values["datasets_directory"] if options.directory is None else options.directory
    for name in options.dataset or CHOICES["dataset"]:
        fetch(check_known("dataset", name, CHOICES["dataset"]), Path(directory) if directory else None)


def _train(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from leaf.analysis.forms import read_forms
    from leaf.experiment.job import Schedule, Stopped, train_cell
    from leaf.experiment.tracking import Tracking

    scale, settings = _scale_and_settings(options)
    cell = Cell.parse(options.cell)
    continues = options.continues if options.settings else _config(options).scales[scale].continues
    bar = tqdm(unit="batch", disable=None, leave=False)

    def progress(epoch: int, step: int, steps: int) -> None:
        if step < bar.n or bar.total is None:
            bar.reset(steps)
            bar.set_description(f"epoch {epoch}/{cell.epochs(settings.epochs).stop}")
        bar.update(step - bar.n)

    device, precision = (getattr(options, name) or _config(options).values[name] for name in ("device", "precision"))
    asked = {"epochs": options.checkpoint_epochs, "minutes": options.checkpoint_minutes}
    asked = {key: value for key, value in asked.items() if value is not None}
    configured = _config(options).values["checkpoint"] if len(asked) < 2 else {}
    schedule = Schedule(**configured | asked)
    given = options.tracking
    tracking = Tracking.from_json(given) if given else Tracking(**_config(options).values["tracking"])
    with bar:
        try:
            train_cell(
                cell, scale, settings, device, options.threads, precision, schedule,
                progress=progress, log=bar.write, continues=continues, tracking=tracking,
            )  # fmt: skip
        except Stopped as stop:
            bar.write(f"{cell.name}: {stop}")
            sys.exit(128 + stop.signal)
    read_forms(cell, cell.directory(scale))  # fill the cache for tables and figures: matching takes long


def _status(options: argparse.Namespace) -> None:
    config = _config(options)
    found = _look(options, config, _selected(options, config, begun=True))
    for line in summarize(found, options.scale or config.scale, options.all):
        print(line)


def _forget(options: argparse.Namespace) -> None:
    scale, _ = _scale_and_settings(options)
    for cell, size in forget(map(Cell.parse, options.cell), scale).items():
        print(f"{cell.name}: " + (f"removed, {_megabytes(size)}" if size else "nothing to remove"))


def _prune(options: argparse.Namespace) -> None:
    scale, settings = _scale_and_settings(options)
    freed = prune(existing_cells(scale, OUTPUTS[-1]), scale, settings)
    print(f"{scale}: states of {len(freed)} finished cells removed, {_megabytes(sum(freed.values()))} freed")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _make(options: argparse.Namespace) -> None:
    """Make tables or figures."""
    asked = [product for name, product in options.products.items() if getattr(options, name)]
    if not asked:
        known = ", ".join(f"--{name}" for name in options.products)
        raise UserError(f"nothing to make; ask for one or more of: {known}")
    of_cells = [product for product in asked if product.group.of_cells]
    records = _records(options, of_cells) if of_cells else None
    statistics = _statistics(options) if any(product.statistics for product in asked) else None
    for product in asked:
        made = product.make(records, statistics)
        for file in getattr(options, product.name):
            product.write(made, file)


def _records(options: argparse.Namespace, products: Sequence[Product]) -> "Records":
    """Collect the records of the cells on the command line, with the data that the products need."""
    from leaf.analysis.collection import collect
    from leaf.analysis.forms import layers

    scale, settings = _scale_and_settings(options)
    of_one = [product for product in products if product.group.of_one_cell]
    cells = dict.fromkeys(map(Cell.parse, options.cell), ())
    if not cells or (of_one and len(cells) > 1):
        needs = [f"--{product.name} takes one{'' if product in of_one else ' or more'}" for product in products]
        raise UserError(f"{len(cells)} cells given; {', '.join(needs)}")
    records = collect(cells, scale, settings, with_forms=any(product.forms for product in products))
    for cell in cells if of_one else ():
        if not layers(records.forms.get(cell.name, {})):
            raise UserError(
                f"{cell.name}: no learned curves at scale {scale}; trained cells with learnable activations have them"
            )
    return records


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Return the metric and the confidence level, from the command line or the configuration."""
    if not options.statistics:
        return dict(_config(options).values["statistics"])
    statistics = parse_yaml(options.statistics, f"--statistics {options.statistics!r}")
    if not isinstance(statistics, dict) or set(statistics) != {"metric", "confidence"}:
        raise UserError(
            f"--statistics {options.statistics!r}: expected metric and confidence, as the configuration's statistics"
        )
    return statistics


def _collect(options: argparse.Namespace) -> None:
    from leaf.analysis.collection import collect, merge, read_records, write_records
    from leaf.analysis.layout import RECORDS

    config = _config(options)
    scale, settings = _scale_and_settings(options)
    adding = options.add and (options.output / RECORDS[0]).exists()
    old = read_records(options.output) if adding else None
    existing, in_all = set(existing_cells(scale, OUTPUTS[-1])), set(config.cells(scale=scale))
    begun = existing | (set() if old is None else {Cell.parse(name) for name in old.epochs["cell"].unique()})
    cells: dict[Cell, list[str]] = {cell: [] for cell in existing}
    for name in config.experiments:
        of_it = config.cells([name], scale)
        if name in config.in_all or begun.intersection(of_it) - in_all:  # not those that have not been started
            for cell in of_it:
                cells.setdefault(cell, []).append(name)
    with_forms = any(product.forms for product in PRODUCTS)
    records = collect(cells, scale, settings, with_forms, tolerant=True, without_models=options.without_models)
    if old is not None:
        records = merge(old, records)
    write_records(records, options.output)
    print(f"{options.output}: {len(records.cells)} cells, {records.cells['status'].value_counts().to_dict()}")


def _analyse(options: argparse.Namespace) -> None:
    from leaf.analysis.analyse import analyse
    from leaf.analysis.collection import read_records

    values = _config(options).values
    context = multiprocessing.get_context("forkserver")
    modules = {analyse.__module__, *(product.function.partition(":")[0] for product in FIGURES.values())}
    context.set_forkserver_preload(sorted(modules))  # torch and matplotlib are loaded once
    with ProcessPoolExecutor(options.threads, context, load_plugins, (values["plugins"],)) as pool:
        records = read_records(options.directory)
        analyse(records, options.directory, values["figure_format"], values["statistics"], pool.map)
    print(f"{options.directory}: tables and figures made")


def _verify(options: argparse.Namespace) -> None:
    from leaf.analysis.collection import read_records
    from leaf.analysis.verify import verifiable, verify
    from leaf.experiment.datasets import dataset_file
    from leaf.experiment.loading import load

    records = read_records(options.records)
    candidates = verifiable(records)
    if not candidates:
        raise UserError(
            f"{options.records}: no cell of the scale paper made with the present training version in float32"
        )
    cell = Cell.parse(options.cell) if options.cell else random.SystemRandom().choice(candidates)
    data = load(cell.dataset, dataset_file(cell.dataset))
    if not verify(records, cell, data, options.epochs):
        raise UserError(f"{cell.name}: differs from its record by more than rounding")
