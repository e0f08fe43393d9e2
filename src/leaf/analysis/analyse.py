"""Make all tables and figures from collected records. Missing results are marked in them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leaf.analysis.collection import Records
from leaf.analysis.forms import layers
from leaf.analysis.layout import ABOUT, PAGE
from leaf.analysis.page import page
from leaf.analysis.product import Product
from leaf.analysis.products import FIGURES, by_group
from leaf.experiment.files import write_text


def analyse(
    records: Records,
    directory: Path,
    figure_format: str,
    statistics: Mapping[str, Any],
    each: Callable[..., Iterable[None]] = map,
) -> None:
    """Write the tables and figures of all experiments in ``records``, and a page with the main ones, to ``directory``.

    Args:
        statistics: arguments of ``differences_table``.
        each: function like ``map`` that draws the figures, such as the ``map`` of a process pool.
    """
    work = [
        (product, of_it, statistics, directory / f"{path}.{figure_format}")
        for product, path, of_it in products_of(records, "figure")
    ]
    drawn = each(_make, work)
    make_tables(records, directory, figure_format, statistics)
    for _ in drawn:  # raises the errors of the processes
        pass


def make_tables(records: Records, directory: Path, figure_format: str, statistics: Mapping[str, Any]) -> None:
    """Write the tables and the page, as ``analyse`` does, without figures."""
    for product, path, of_it in products_of(records, "table"):
        _make((product, of_it, statistics, *(directory / f"{path}.{suffix}" for suffix in product.formats)))
    about = directory / ABOUT
    words = about.read_text(encoding="utf-8") if about.exists() else ""
    charts = {name: f"{figure.path}.{figure_format}" for name, figure in FIGURES.items() if not figure.group.wildcards}
    write_text(directory / PAGE, page(records, charts, statistics, words))


def products_of(records: Records, kind: str) -> Iterator[tuple[Product, str, Records]]:
    """Yield the tables or figures of the records, each with its path, without suffix, and the records of its cells."""
    for group, products in by_group().items():
        for place, of_it in _parts(records, group.wildcards):
            if group.of_one_cell and not any(map(layers, of_it.forms.values())):
                continue  # the cell has no learned curves
            if kind == "figure" and group.wildcards and of_it.epochs.empty:
                continue  # the axes would be empty
            for product in products:
                if product.kind == kind:
                    yield product, product.path.format(**place), of_it


def _parts(records: Records, fields: Sequence[str]) -> Iterator[tuple[dict[str, Any], Records]]:
    """Yield each combination of values of some fields, with its records."""
    if not fields:
        yield {}, records
        return
    field, *others = fields
    values = records.experiments() if field == "experiment" else records.unique(field)
    for value in values:
        for place, part in _parts(records.select(**{field: value}), others):
            yield {field: value, **place}, part


def _make(work: tuple[Any, ...]) -> None:
    product, records, statistics, *files = work
    made = product.make(records, statistics)
    for file in files:
        product.write(made, file)
