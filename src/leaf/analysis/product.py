"""Descriptions of tables and figures: path, function and cells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pkgutil import resolve_name
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from leaf.analysis.collection import Records

ROUNDING = "leaf.analysis.tables:rounding_notes"
PAIRS = "leaf.analysis.pairs:pair_notes"
RANGES = "leaf.analysis.tables:range_notes"
STALE = "leaf.analysis.tables:stale_notes"
SELECTION = "leaf.analysis.choice:selection_notes"


@dataclass(frozen=True, eq=False)
class Group:
    """Products that one rule of the workflow makes from the same cells, in one job.

    Attributes:
        rule: name of the rule.
        path: path below a report's directory, without suffix. ``{name}`` is the product's name. The other wildcards
            select the cells; each combination of their values gives one product.
        category: heading in the report; if empty, the title of the experiment.
        subcategory: heading below the category, if any.
        labels: labels in the report by column, with wildcards.
        of_cells: whether the products depend on cells.
    """

    rule: str
    path: str
    category: str = ""
    subcategory: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    of_cells: bool = True

    @cached_property
    def wildcards(self) -> list[str]:
        """The wildcards of the path: names of a cell's fields, ``form`` and ``experiment``."""
        return [name for _, name, _, _ in Formatter().parse(self.path) if name and name != "name"]

    @cached_property
    def of_one_cell(self) -> bool:
        """``True`` if each product depends on a single cell."""
        return "seed" in self.wildcards


@dataclass(frozen=True)
class Product:
    """A kind of table or figure. Functions are named as ``module:function`` and imported when they are called.

    Attributes:
        name: name of the option of ``leaf table`` or ``leaf figure``, and of the caption.
        group: the group of the products that are made in the same job.
        title: short description.
        function: makes the product from ``Records``, or without arguments if the group has no cells.
        category: heading in the report, if it differs from the group's.
        forms: whether the product needs ``Records.forms``.
        statistics: whether the function also takes the configuration's ``statistics``, as keyword arguments.
        notes: functions of ``Records`` that return notes for a table.
        reads: files of the project that the function reads, relative to the project.
        on_first_page: whether the first page of the report includes the table.
    """

    name: str
    group: Group
    title: str
    function: str
    category: str = ""
    forms: bool = False
    statistics: bool = False
    notes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    on_first_page: bool = False

    kind: ClassVar[str]
    """The command of ``leaf`` that makes the product: ``table`` or ``figure``."""
    writer: ClassVar[str]
    """Function that writes the product to a file, in the format of the file's suffix."""
    formats: ClassVar[tuple[str, ...]] = ()
    """File formats; the report shows the last one. If empty, the configuration's ``figure_format`` is used."""

    @property
    def path(self) -> str:
        """Path below a report's directory, with wildcards, without suffix."""
        return self.group.path.replace("{name}", self.name)

    @property
    def caption(self) -> str:
        """File name of the caption in ``workflow/report``."""
        return f"{self.name}_{self.kind.replace('figure', 'chart')}.rst"

    def make(self, records: "Records | None" = None, statistics: Mapping[str, Any] | None = None) -> Any:
        """Make the ``pandas.DataFrame`` or ``matplotlib.figure.Figure``.

        Args:
            records: records of the product's cells; ``None`` if the group has no cells.
            statistics: the configuration's ``statistics``, for products that need them.
        """
        arguments = (records,) if self.group.of_cells else ()
        made = resolve_name(self.function)(*arguments, **(statistics or {} if self.statistics else {}))
        if self.notes:
            made.attrs["notes"] = [note for notes in self.notes for note in resolve_name(notes)(records)]
        return made

    def write(self, made: Any, file: "Path") -> None:
        """Write the result of ``make`` to a file, in the format of the file's suffix.

        Raises:
            UserError: if the format is unknown.
        """
        resolve_name(self.writer)(made, file)


@dataclass(frozen=True)
class Table(Product):
    """A kind of table."""

    notes: tuple[str, ...] = (ROUNDING,)

    kind, writer = "table", "leaf.analysis.formats:write_table"
    formats = ("csv", "tex", "md", "html")


class Figure(Product):
    """A kind of figure."""

    kind, writer = "figure", "leaf.analysis.style:write_figure"
