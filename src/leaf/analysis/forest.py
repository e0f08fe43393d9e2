"""The forest plot: every paired difference with its interval, grouped by network and data set."""

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
from leaf.analysis.style import set_style
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
"""Colour and marker of the paper's families and of all others; markers differ so that a black print can be read."""

ROW = 0.2
"""Height of a row, in inches."""


def differences_chart(records: Records, metric: str, confidence: float) -> Figure:
    """Every learnable activation less the base function of its form, a row each, with the interval over seeds.

    One seed gives a hollow point without an interval. A network and data set without any pair has its heading alone;
    headings name precision and kind of device, if the records mix them.

    Args:
        metric, confidence: as ``differences_table`` takes them.
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
    figure, axis = plt.subplots(figsize=(8, ROW * rows + 1.1))
    y, shown = 0.0, set[str]()
    for place in places:
        network, dataset = NETWORKS[place["network"]].title, DATASETS[place["dataset"]].title
        here = table[(table["network"] == network) & (table["dataset"] == dataset)]
        ways = ", ".join(here["computed in"].unique()) if "computed in" in here else ""
        _write(axis, y, f"{network}, {dataset}", ways if len(here) else "no pair trained yet", weight="bold")
        for row in here.to_dict("records"):
            y += 1
            family = families[row["activation"]]
            shown.add(family if family in STYLES else "other")
            _draw_row(axis, y, row, row[difference], STYLES.get(family, STYLES["other"]))
        y += 1.7
    axis.axvline(0, color="0.3", linewidth=0.9)
    axis.set(ylim=(y - 0.7, -0.9), yticks=[], xlabel=f"{difference}: learnable less base function")
    axis.margins(x=0.04)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    sns.despine(figure, left=True)
    figure.legend(handles=_legend(shown, confidence), loc="outside lower center", ncols=5)
    return figure


def _draw_row(axis: Axes, y: float, row: Mapping[Any, Any], points: float, style: Mapping[str, Any]) -> None:
    """A point, its interval if there is one, and both in numbers."""
    has_interval = not np.isnan(row["low"])
    words = f"{points:+.2f}"
    if has_interval:
        axis.plot([row["low"], row["high"]], [y, y], color=style["color"], linewidth=2, solid_capstyle="butt")
        words += f" [{row['low']:+.2f}, {row['high']:+.2f}], {row['seeds']} seeds"
    axis.plot(points, y, **style, markersize=4.5, markerfacecolor=style["color"] if has_interval else "white")
    _write(axis, y, row["activation"], words, fontsize="small")


def _write(axis: Axes, y: float, left: str, right: str, **style: Any) -> None:
    """The labels at the right of the axis."""
    across = axis.get_yaxis_transform()
    axis.text(-0.02, y, left, transform=across, ha="right", va="center", **style)
    axis.text(1.02, y, right, transform=across, ha="left", va="center", fontsize="small")


def _legend(shown: set[str], confidence: float) -> list[Line2D]:
    def sign(label: str, **style: Any) -> Line2D:
        defaults: dict[str, Any] = {"markersize": 4.5, "linewidth": 0, "label": label}
        return Line2D([], [], **defaults | style)

    return [
        *(sign(name, **style) for name, style in STYLES.items() if name in shown),
        sign(f"mean and {confidence:.0%} interval", color="0.3", marker="o", linewidth=2),
        sign("one seed", color="0.3", marker="o", markerfacecolor="white"),
    ]
