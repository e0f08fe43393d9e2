"""Every table and figure that can be made of collected records; what is missing is marked in them."""

from collections.abc import Iterator
from pathlib import Path

from leaf.analysis.collection import Records
from leaf.analysis.figures import forms_chart, progress_chart, write_figure
from leaf.analysis.forms import layers
from leaf.analysis.layout import (
    FORMS_CHART,
    PAPER_FORMATS,
    PAPER_TABLE,
    PROGRESS_CHART,
    SUMMARY_FORMATS,
    SUMMARY_TABLE,
)
from leaf.analysis.tables import paper_table, summary_table, write_table
from leaf.experiment.cells import Cell


def analyse(records: Records, directory: Path, figure_format: str) -> None:
    """Write the tables and figures of every experiment in ``records`` below ``directory``."""
    experiments = dict.fromkeys(name for names in records.cells["experiments"] for name in names.split())
    for experiment in experiments:
        for network, of_network in _split(records.select(experiment), "network"):
            place = {"experiment": experiment, "network": network}
            for suffix in PAPER_FORMATS:
                write_table(paper_table(of_network), directory / f"{PAPER_TABLE.format(**place)}.{suffix}")
            for dataset, of_dataset in _split(of_network, "dataset"):
                place["dataset"] = dataset
                for suffix in SUMMARY_FORMATS:
                    write_table(summary_table(of_dataset), directory / f"{SUMMARY_TABLE.format(**place)}.{suffix}")
                for form, of_form in _split(of_dataset, "form"):
                    file = PROGRESS_CHART.format(**place, form=form)
                    write_figure(progress_chart(of_form), directory / f"{file}.{figure_format}")
    for cell, of_cell in _split(records, "cell"):
        if records.forms.get(cell) and layers(records.forms[cell]):
            place = vars(Cell.parse(cell))
            write_figure(forms_chart(of_cell), directory / f"{FORMS_CHART.format(**place)}.{figure_format}")


def _split(records: Records, field: str) -> Iterator[tuple[str, Records]]:
    return ((value, records.select(**{field: value})) for value in records.unique(field))
