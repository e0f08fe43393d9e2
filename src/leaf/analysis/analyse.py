"""Every table and figure that can be made of collected records; what is missing is marked in them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from leaf.analysis.claims import evaluate
from leaf.analysis.collection import Records
from leaf.analysis.figures import evolution_chart, forms_chart, initial_forms_chart, progress_chart, write_figure
from leaf.analysis.forest import differences_chart
from leaf.analysis.formats import write_table
from leaf.analysis.forms import layers
from leaf.analysis.layout import (
    ABOUT,
    DIFFERENCES_CHART,
    EVOLUTION_CHART,
    FORMS_CHART,
    INITIAL_FORMS_CHART,
    NETWORK_TABLE,
    NETWORK_TABLES,
    PAGE,
    PROGRESS_CHART,
    REPORT_TABLE,
    REPORT_TABLES,
    SUMMARY_TABLE,
    TABLE_FORMATS,
)
from leaf.analysis.movement import movement_table
from leaf.analysis.page import page
from leaf.analysis.pairs import pair_notes
from leaf.analysis.statistics import best_epoch_table, differences_table
from leaf.analysis.tables import matches_table, overview_table, paper_table, range_notes, rounding_notes, summary_table
from leaf.experiment.cells import Cell
from leaf.experiment.files import write_text

TABLES: dict[str, Callable[[Records], pd.DataFrame]] = {
    "summary": summary_table,
    "paper": paper_table,
    "best_epoch": best_epoch_table,
    "matches": matches_table,
    "movement": movement_table,
    "overview": overview_table,
    "claims": evaluate,
}
"""The kinds of tables, by name; ``differences`` is one more, which needs to be told what to compare."""

COMPARING = ("differences", "claims")
"""The kinds of tables that are made of pairs of cells."""


def make_table(kind: str, records: Records, statistics: Mapping[str, Any]) -> pd.DataFrame:
    """A table of one of the kinds in ``TABLES``, or of ``differences``, with notes where its cells round differently.

    Args:
        statistics: the arguments of ``differences_table``.
    """
    table = differences_table(records, **statistics) if kind == "differences" else TABLES[kind](records)
    if kind != "overview":  # which has columns for it
        table.attrs["notes"] = rounding_notes(records)
    if kind == "matches":
        table.attrs["notes"] += range_notes(records)
    if kind in COMPARING:
        table.attrs["notes"] += pair_notes(records)
    return table


def analyse(
    records: Records,
    directory: Path,
    figure_format: str,
    statistics: Mapping[str, Any],
    each: Callable[..., Iterable[None]] = map,
) -> None:
    """Write the tables and figures of every experiment in ``records`` below ``directory``, and a page of the main ones.

    Args:
        statistics: the arguments of ``differences_table``.
        each: what calls a function for each figure; the ``map`` of a pool of processes draws several at a time.
    """
    drawn = each(
        _draw, [(directory / f"{name}.{figure_format}", *chart) for name, *chart in figures(records, statistics)]
    )
    make_tables(records, directory, figure_format, statistics)
    for _ in drawn:  # what went wrong with one of them is raised here
        pass


def make_tables(records: Records, directory: Path, figure_format: str, statistics: Mapping[str, Any]) -> None:
    """Write the tables, and the page, as ``analyse`` does, without any figure."""

    def tables(kind: str, records: Records, pattern: str, place: Mapping[str, str]) -> None:
        table = make_table(kind, records, statistics)
        for suffix in TABLE_FORMATS:
            write_table(table, directory / f"{pattern.format(kind=kind, **place)}.{suffix}")

    for place, of_network in _experiments_by_network(records):
        for kind in NETWORK_TABLES:
            tables(kind, of_network, NETWORK_TABLE, place)
        for dataset, of_dataset in _split(of_network, "dataset"):
            tables("summary", of_dataset, SUMMARY_TABLE, {**place, "dataset": dataset})
    for kind in REPORT_TABLES:
        tables(kind, records, REPORT_TABLE, {})
    about = directory / ABOUT
    words = about.read_text(encoding="utf-8") if about.exists() else ""
    write_text(directory / PAGE, page(records, f"{DIFFERENCES_CHART}.{figure_format}", statistics, words))


def figures(
    records: Records, statistics: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[..., Figure], tuple[Any, ...]]]:
    """The place of each figure without its suffix, what draws it, and of what."""
    yield DIFFERENCES_CHART, differences_chart, (records, statistics)
    for place, of_network in _experiments_by_network(records):
        for dataset, of_dataset in _split(of_network, "dataset"):
            for form, of_form in _split(of_dataset, "form"):
                yield PROGRESS_CHART.format(**place, dataset=dataset, form=form), progress_chart, (of_form,)
    yield INITIAL_FORMS_CHART, initial_forms_chart, ()
    for cell, of_cell in _split(records, "cell"):
        if layers(of_cell.forms.get(cell, {})):
            for chart, pattern in ((forms_chart, FORMS_CHART), (evolution_chart, EVOLUTION_CHART)):
                yield pattern.format(**vars(Cell.parse(cell))), chart, (of_cell,)


def _draw(figure: tuple[Path, Callable[..., Figure], tuple[Any, ...]]) -> None:
    file, chart, arguments = figure
    write_figure(chart(*arguments), file)


def _experiments_by_network(records: Records) -> Iterator[tuple[dict[str, str], Records]]:
    for experiment in dict.fromkeys(name for names in records.cells["experiments"] for name in names.split()):
        for network, of_network in _split(records.select(experiment), "network"):
            yield {"experiment": experiment, "network": network}, of_network


def _split(records: Records, field: str) -> Iterator[tuple[str, Records]]:
    return ((value, records.select(**{field: value})) for value in records.unique(field))
