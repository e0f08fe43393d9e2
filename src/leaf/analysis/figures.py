"""The paper's figures: progress of training, and learned curves."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leaf.analysis.collection import Records
from leaf.analysis.forms import (
    BAND_LEVELS,
    CURVE_INPUTS,
    Forms,
    base_curve,
    curves,
    input_bins,
    input_density,
    layers,
    parameter_quantiles,
)
from leaf.analysis.style import PAGE_WIDTH, TEXT_SIZE, set_style
from leaf.analysis.tables import form_title, marks, variant_title
from leaf.experiment.observations import QUANTILES

set_style()

SHOWN_EPOCHS = (1, 3, 10, 30)
"""Epochs after which median curves are drawn, in addition to the first and the last curve."""

MOST_POINTS = 51
"""Largest number of points of a line in the small panels, which are about as many pixels wide."""

PLATEAU = 0.95
"""Share of the final accuracy from which a chart's second column starts."""

# Dashes and markers distinguish lines in prints without color.
DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v")


class Line(NamedTuple):
    """A variant in a progress chart.

    Attributes:
        family: the variant's family.
        style: label, color and style of the line.
        accuracy: ``mean``, ``min`` and ``max`` over the seeds, in %, by epoch.
        loss: the same of the training loss.
    """

    family: str
    style: dict[str, Any]
    accuracy: pd.DataFrame
    loss: pd.DataFrame


def progress_chart(records: Records) -> Figure:
    """Draw test accuracy, its plateau and training loss by epoch, side by side; one row per family of activations.

    Each row shows the variants of one family and their base function. The plateau starts at the first epoch at which
    every variant of the chart has reached ``PLATEAU`` of its final accuracy. A line is the mean over a variant's seeds;
    a band is their range. A variant without results has no line.
    """
    lines = _lines(records)
    families = list(dict.fromkeys(line.family for line in lines if line.family != "base")) or ["base"]
    figure, axes = plt.subplots(
        len(families), 3, figsize=(PAGE_WIDTH, 1.1 + 1.9 * len(families)), sharex="col", sharey="col", squeeze=False
    )
    start = max((_plateau_start(line.accuracy["mean"]) for line in lines), default=1)
    for row, family in zip(axes, families, strict=True):
        for line in lines:
            if line.family in ("base", family):
                _draw_line(row[0], line, line.accuracy)
                _draw_line(row[1], line, line.accuracy.loc[start:])
                _draw_line(row[2], line, line.loss)
        for axis in row:
            axis.tick_params(labelsize=TEXT_SIZE - 1)
    for axis, title in zip(axes[0], ("test accuracy, %", f"from epoch {start}, %", "training loss"), strict=True):
        axis.set_title(title, fontsize=TEXT_SIZE)
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize=TEXT_SIZE)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    handles = {handle.get_label(): handle for axis in axes[:, 0] for handle in axis.lines}
    figure.legend(
        handles=list(handles.values()), loc="outside lower center", ncols=min(2, len(handles)), fontsize=TEXT_SIZE
    )
    sns.despine(figure)
    return figure


def _lines(records: Records) -> list[Line]:
    """Make a line for each variant with results: black for a base function, colored for the others."""
    several_optimizers = len(records.unique("optimizer")) > 1
    lines: list[Line] = []
    colors = 0
    for variant, members in records.variants():
        epochs = records.epochs[records.epochs["cell"].isin(members["cell"])].groupby("epoch")
        if not len(epochs):
            continue
        style: dict[str, Any] = {"label": " ".join([variant_title(variant, several_optimizers), *marks(members)])}
        if variant.family == "base":
            style |= {"color": "black", "marker": "." if len(epochs) == 1 else ""}
        else:
            style |= {
                "color": f"C{colors}",
                "linestyle": DASHES[colors % len(DASHES)],
                "marker": MARKERS[colors % len(MARKERS)],
                "markevery": (0.04 * (colors % 4), 0.16),  # shares of the diagonal, so that markers do not overlap
            }
            colors += 1
        accuracy, loss = (epochs[column].agg(["mean", "min", "max"]) for column in ("test_accuracy", "train_loss"))
        lines.append(Line(variant.family, style, accuracy * 100, loss))
    return lines


def _plateau_start(accuracy: pd.Series) -> int:
    """Find the first epoch with ``PLATEAU`` of the final accuracy, or the last but one if that is earlier."""
    reached = accuracy.index[accuracy >= PLATEAU * accuracy.iloc[-1]]
    return int(min(reached[0] if len(reached) else accuracy.index[-1], accuracy.index[-2:][0]))


def _draw_line(axis: Axes, line: Line, values: pd.DataFrame) -> None:
    style: dict[str, Any] = {"linewidth": 1.2, "markersize": 4, "markerfacecolor": "white"} | line.style
    axis.plot(values.index, values["mean"], **style)
    if not values["min"].equals(values["max"]):
        color = line.style["color"]
        axis.fill_between(values.index, values["min"], values["max"], color=color, alpha=0.15, linewidth=0)


def forms_chart(records: Records) -> Figure:
    """Draw the learned curves of one cell, one panel per activation layer.

    Each panel has the curves of five random units, the central 90% of all units, and their initial function. A panel
    below it has the distribution of the layer's inputs.
    """
    (cell,) = records.cells.to_dict("records")
    forms = records.forms[cell["cell"]]
    names = layers(forms)
    figure, axes = plt.subplots(
        2, len(names), figsize=(2.5 * len(names) + 0.5, 3.6), height_ratios=(4, 1), sharex=True, squeeze=False
    )
    for above, below, layer in zip(axes[0], axes[1], names, strict=True):
        _draw_curves(above, forms, layer, cell["form"])
        _draw_inputs(below, forms, layer)
        above.set_title(layer_title(layer), fontsize="medium")
    axes[0, 0].set_ylabel("output")
    axes[1, 0].set_ylabel("inputs")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    sns.despine(figure)
    return figure


def evolution_chart(records: Records) -> Figure:
    """Draw the change of the activation parameters of one cell in training, one column per activation layer.

    The top row has the curve of a layer's median parameters after some epochs. The rows below have the median and the
    central 50% and 90% of each parameter over the layer's elements after every epoch. The first values are the initial
    ones, at epoch 0, or at epoch K of a patched network.
    """
    (cell,) = records.cells.to_dict("records")
    forms = records.forms[cell["cell"]]
    names = layers(forms)
    parameters = list(parameter_quantiles(forms, names[0]))
    start = int(records.epochs["epoch"][records.epochs["cell"] == cell["cell"]].min()) - 1
    figure, axes = plt.subplots(
        1 + len(parameters), len(names), figsize=(2.4 * len(names) + 0.5, 2 + 1.1 * len(parameters)),
        height_ratios=(2, *(1 for _ in parameters)), squeeze=False,
    )  # fmt: skip
    for layer, of_layer in zip(names, axes.T, strict=True):
        quantiles = parameter_quantiles(forms, layer)
        _draw_median_curves(of_layer[0], cell["activation"], quantiles, start)
        of_layer[0].set_title(layer_title(layer), fontsize="medium")
        for axis, values in zip(of_layer[1:], quantiles.values(), strict=True):
            _draw_quantiles(axis, values, start)
            axis.tick_params(labelbottom=axis is of_layer[-1])
        of_layer[-1].set_xlabel("epoch")
    for axis, label in zip(axes[:, 0], ("output", *parameters), strict=True):
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    sns.despine(figure)
    return figure


def layer_title(name: str) -> str:
    """Title of a layer: ``layer 2`` for ``activation2``; other names are unchanged."""
    return re.sub(r"^activation(?=\d+$)", "layer ", name)


def _draw_median_curves(axis: Axes, activation: str, quantiles: Mapping[str, np.ndarray], start: int) -> None:
    """Draw curves of the median parameters, from light (first) to dark (last)."""
    epochs = len(next(iter(quantiles.values()))) - 1
    shown = [0, *(epoch for epoch in SHOWN_EPOCHS if epoch < epochs), epochs]
    medians = {name: values[shown, QUANTILES.index(0.5)] for name, values in quantiles.items()}
    shades = plt.get_cmap("viridis_r")(np.linspace(0.1, 1, len(shown)))
    for epoch, shade, values in zip(shown, shades, curves(activation, medians, CURVE_INPUTS), strict=True):
        axis.plot(CURVE_INPUTS, values, color=shade, linewidth=1, label=f"epoch {start + epoch}")
    axis.set_xlabel("input u")


def _draw_quantiles(axis: Axes, values: np.ndarray, start: int) -> None:
    epochs = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int)
    values, epochs = values[epochs], start + epochs
    for low, high, shade in ((0.05, 0.95, "0.85"), (0.25, 0.75, "0.65")):
        lower, upper = (values[:, QUANTILES.index(level)] for level in (low, high))
        axis.fill_between(epochs, lower, upper, color=shade, linewidth=0)
    axis.plot(epochs, values[:, QUANTILES.index(0.5)], color="black", linewidth=1)
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_curves(axis: Axes, forms: Forms, layer: str, form: str) -> None:
    bands = forms[f"bands/{layer}"]
    low, high = (bands[BAND_LEVELS.index(level)] for level in (0.05, 0.95))
    axis.fill_between(CURVE_INPUTS, low, high, color="0.8", linewidth=0, label="90% of all units")
    axis.plot(CURVE_INPUTS, base_curve(form), color="black", linewidth=1.8, label=form_title(form))
    for index, curve in enumerate(forms[f"curves/{layer}"]):
        style: dict[str, Any] = {"color": f"C{index}", "linestyle": DASHES[index], "linewidth": 1}
        axis.plot(CURVE_INPUTS, curve, label=f"unit {index + 1}", **style)


def _draw_inputs(axis: Axes, forms: Forms, layer: str) -> None:
    """Draw the density of a layer's inputs on the axis of the curves, and write the share of inputs beyond it."""
    counts, edges = forms[f"inputs/{layer}"], input_bins(forms, layer)
    low, high = CURVE_INPUTS[0], -CURVE_INPUTS[0] * 0.4
    within = (edges[:-1] >= low) & (edges[1:] <= high)
    density = np.where(within, input_density(forms, layer), 0)
    axis.stairs(density / (density.max() or 1), edges, fill=True, color="0.6")
    axis.set(xlabel="input u", yticks=[], xticks=[-10, -5, 0], xlim=(low, high), ylim=(0, 1.5))
    if (beyond := 1 - counts[within].sum() / counts.sum()) >= 0.005:
        axis.text(0.02, 0.95, f"{beyond:.0%} beyond", transform=axis.transAxes, va="top", fontsize="small")
