"""Every table and figure that can be made of collected records; what is missing is marked in them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from leaf.analysis.claims import evaluate
from leaf.analysis.collection import Records
from leaf.analysis.figures import forms_chart, progress_chart, write_figure
from leaf.analysis.forms import layers
from leaf.analysis.layout import (
    CLAIMS_TABLE,
    FORMS_CHART,
    NETWORK_FORMATS,
    NETWORK_TABLE,
    NETWORK_TABLES,
    PAPER_FORMATS,
    PAPER_TABLE,
    PROGRESS_CHART,
    SUMMARY_FORMATS,
    SUMMARY_TABLE,
)
from leaf.analysis.statistics import best_epoch_table, differences_table
from leaf.analysis.tables import matches_table, paper_table, summary_table, write_table
from leaf.experiment.cells import Cell


def analyse(records: Records, directory: Path, figure_format: str, statistics: Mapping[str, Any]) -> None:
    """Write the tables and figures of every experiment in ``records`` below ``directory``.

    Args:
        statistics: the arguments of ``differences_table``.
    """
    experiments = dict.fromkeys(name for names in records.cells["experiments"] for name in names.split())
    for experiment in experiments:
        for network, of_network in _split(records.select(experiment), "network"):
            place = {"experiment": experiment, "network": network}
            for suffix in PAPER_FORMATS:
                write_table(paper_table(of_network), directory / f"{PAPER_TABLE.format(**place)}.{suffix}")
            for kind in NETWORK_TABLES:
                table = network_table(kind, of_network, statistics)
                for suffix in NETWORK_FORMATS:
                    write_table(table, directory / f"{NETWORK_TABLE.format(kind=kind, **place)}.{suffix}")
            for dataset, of_dataset in _split(of_network, "dataset"):
                place["dataset"] = dataset
                for suffix in SUMMARY_FORMATS:
                    write_table(summary_table(of_dataset), directory / f"{SUMMARY_TABLE.format(**place)}.{suffix}")
                for form, of_form in _split(of_dataset, "form"):
                    file = PROGRESS_CHART.format(**place, form=form)
                    write_figure(progress_chart(of_form), directory / f"{file}.{figure_format}")
    for suffix in NETWORK_FORMATS:
        write_table(evaluate(records), directory / f"{CLAIMS_TABLE}.{suffix}")
    for cell, of_cell in _split(records, "cell"):
        if records.forms.get(cell) and layers(records.forms[cell]):
            place = vars(Cell.parse(cell))
            write_figure(forms_chart(of_cell), directory / f"{FORMS_CHART.format(**place)}.{figure_format}")


def network_table(kind: str, records: Records, statistics: Mapping[str, Any]) -> pd.DataFrame:
    """One of the ``NETWORK_TABLES``."""
    if kind == "differences":
        return differences_table(records, **statistics)
    return {"best_epoch": best_epoch_table, "matches": matches_table}[kind](records)


def _split(records: Records, field: str) -> Iterator[tuple[str, Records]]:
    return ((value, records.select(**{field: value})) for value in records.unique(field))
