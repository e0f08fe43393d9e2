"""Forest plot of the paired differences and their intervals, grouped by network and data set."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leaf.analysis.collection import Records
from leaf.analysis.pairs import pairs
from leaf.analysis.statistics import differences_table
from leaf.analysis.style import PAGE_WIDTH, TEXT_SIZE, set_style
from leaf.analysis.tables import kind_of, variant_title
from leaf.experiment.datasets import DATASETS
from leaf.networks import NETWORKS

set_style()

_SHADES = sns.color_palette("colorblind")
STYLES: dict[str, dict[str, Any]] = {
    "LEAF": {"color": _SHADES[0], "marker": "o"},
    "AHAF": {"color": _SHADES[1], "marker": "s"},
    "other": {"color": "0.4", "marker": "D"},
}
"""Color and marker of the paper's families and of all others. Markers distinguish them in prints without color."""

ROW = 0.23
"""Height of a row, in inches."""

COLUMNS = {"points": 42, "interval": 141, "seeds": 182}
"""Right ends of the columns of numbers: distance from the axis, in points."""


def differences_chart(records: Records, metric: str, confidence: float) -> Figure:
    """Draw the difference of each learnable activation from its base function, and the interval, in a row.

    The columns on the right have the same numbers. A single seed is a hollow point without an interval. A network and
    data set without pairs has only a heading. Headings name precision and kind of device if the records mix them.

    Args:
        metric, confidence: as in ``differences_table``.
    """
    compared = records.cells["optimizer"].isin(pairs(records, "best_accuracy")["optimizer"])
    places = records.cells[["network", "dataset"]].drop_duplicates().to_dict("records")
    records = Records(records.cells[compared], records.epochs, {})
    several_optimizers = len(records.unique("optimizer")) > 1
    families = {
        variant_title(variant, several_optimizers): kind_of(variant.family, variant.form).title
        for variant, _ in records.variants()
    }
    table = differences_table(records, metric, confidence).rename(columns={"data set": "dataset"})
    difference = next(name for name in map(str, table) if name.startswith("difference"))
    table = table[table[difference].notna()]

    rows = len(table) + 1.7 * len(places)
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, ROW * rows + 1.5))
    _write(axis, -1.3, {"points": "points", "interval": f"{confidence:.0%} interval", "seeds": "seeds"}, style="italic")
    y, shown = 0.0, set[str]()
    for place in places:
        network, dataset = NETWORKS[place["network"]].title, DATASETS[place["dataset"]].title
        here = table[(table["network"] == network) & (table["dataset"] == dataset)]
        ways = ", ".join(here["computed in"].unique()) if "computed in" in here else ""
        _label(axis, y, f"{network}, {dataset}", weight="bold", fontsize=TEXT_SIZE)
        _annotate(axis, y, ways if len(here) else "no pair trained yet", 8)
        for row in here.to_dict("records"):
            y += 1
            family = families[row["activation"]]
            shown.add(family if family in STYLES else "other")
            _draw_row(axis, y, row, row[difference], STYLES.get(family, STYLES["other"]))
        y += 1.7
    axis.axvline(0, color="0.3", linewidth=0.9)
    axis.set(ylim=(y - 0.7, -2), yticks=[])
    axis.tick_params(labelsize=TEXT_SIZE - 1)
    axis.set_xlabel(f"{difference}:\nlearnable minus base function", fontsize=TEXT_SIZE)
    axis.margins(x=0.04)
    axis.locator_params(axis="x", nbins=4)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    sns.despine(figure, left=True)
    figure.legend(handles=_legend(shown, confidence), loc="outside lower center", ncols=3, fontsize=TEXT_SIZE)
    return figure


def _draw_row(axis: Axes, y: float, row: Mapping[Any, Any], points: float, style: Mapping[str, Any]) -> None:
    """Draw a point and its interval, and write both as numbers."""
    numbers = {"points": f"{points:+.2f}", "seeds": f"{row['seeds']}"}
    has_interval = not np.isnan(row["low"])
    if has_interval:
        axis.plot([row["low"], row["high"]], [y, y], color=style["color"], linewidth=2, solid_capstyle="butt")
        numbers["interval"] = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
    axis.plot(points, y, **style, markersize=4.5, markerfacecolor=style["color"] if has_interval else "white")
    _label(axis, y, row["activation"], fontsize=TEXT_SIZE - 1)
    _write(axis, y, {name: number.replace("-", "\N{MINUS SIGN}") for name, number in numbers.items()})


def _label(axis: Axes, y: float, words: str, **style: Any) -> None:
    """Write a row's label, left of the axis."""
    axis.text(-0.02, y, words, transform=axis.get_yaxis_transform(), ha="right", va="center", **style)


def _write(axis: Axes, y: float, numbers: Mapping[str, str], **style: Any) -> None:
    """Write a row's numbers in the ``COLUMNS``, right of the axis."""
    for name, number in numbers.items():
        _annotate(axis, y, number, COLUMNS[name], ha="right", **style)


def _annotate(axis: Axes, y: float, words: str, distance: float, **style: Any) -> None:
    """Write text right of the axis, at a distance in points."""
    axis.annotate(
        words, (1, y), (distance, 0), xycoords=axis.get_yaxis_transform(), textcoords="offset points", va="center",
        fontsize=TEXT_SIZE - 1, annotation_clip=False, **style,
    )  # fmt: skip


def _legend(shown: set[str], confidence: float) -> list[Line2D]:
    def sign(label: str, **style: Any) -> Line2D:
        defaults: dict[str, Any] = {"markersize": 4.5, "linewidth": 0, "label": label}
        return Line2D([], [], **defaults | style)

    return [
        *(sign(name, **style) for name, style in STYLES.items() if name in shown),
        sign(f"mean and {confidence:.0%} interval", color="0.3", marker="o", linewidth=2),
        sign("one seed", color="0.3", marker="o", markerfacecolor="white"),
    ]
