"""The paper's figures: progress of training, and the learned forms of activations."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leaf.activations import ACTIVATIONS
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
from leaf.analysis.initial_forms import ERROR_INPUTS, initial_error, number_formats, starting_activations
from leaf.analysis.style import set_style
from leaf.analysis.tables import activation_title, form_title, marks, variant_title
from leaf.experiment.errors import UserError
from leaf.experiment.files import write_whole
from leaf.experiment.observations import QUANTILES

set_style()

SHOWN_EPOCHS = (1, 3, 10, 30)
"""After which epochs median curves are drawn, beside the start and the end."""

MOST_POINTS = 51
"""How many epochs a line of the small panels shows at most: more than a panel has pixels for only makes files large."""

# Told apart by dashes as well, so that a print in black and white can be read.
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

UNIT_DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
"""Of the drawn units; the function they started from has the whole line, and lies beneath."""


def progress_chart(records: Records) -> Figure:
    """Test accuracy and training loss against the epoch, side by side, a line per variant.

    Where a variant has several seeds the line is their mean and a band spans their range.
    """
    several_optimizers = len(records.unique("optimizer")) > 1
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    variants = list(records.variants())
    for index, (variant, members) in enumerate(variants):
        label = " ".join([variant_title(variant, several_optimizers), *marks(members)])
        epochs = records.epochs[records.epochs["cell"].isin(members["cell"])].groupby("epoch")
        style = {"color": f"C{index}", "linestyle": DASHES[index % len(DASHES)]}
        for axis, column, factor in ((axes[0], "test_accuracy", 100), (axes[1], "train_loss", 1)):
            values = epochs[column].agg(["mean", "min", "max"]) * factor
            axis.plot(values.index, values["mean"], label=label, **style)
            if len(members) > 1:
                axis.fill_between(
                    values.index, values["min"], values["max"], color=f"C{index}", alpha=0.15, linewidth=0
                )
    axes[0].set(xlabel="epoch", ylabel="test accuracy, %")
    axes[1].set(xlabel="epoch", ylabel="training loss (cross-entropy)")
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(variants)))
    sns.despine(figure)
    return figure


def forms_chart(records: Records) -> Figure:
    """The learned curves of one cell, a panel per activation layer.

    Five drawn units and the range of all, over the function they started from, above the inputs that the layer sees.
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
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique))
    sns.despine(figure)
    return figure


def evolution_chart(records: Records) -> Figure:
    """How the activation parameters of one cell changed while it trained, a column per activation layer.

    Above, the curve of a layer's median parameters after some epochs; below, each parameter's median and the middle
    50% and 90% of the layer's elements after every epoch, from the initial form at 0, or where it was patched in.
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
    """A layer's place for ``activation2``, and any other name as it is."""
    return re.sub(r"^activation(?=\d+$)", "layer ", name)


def _draw_median_curves(axis: Axes, activation: str, quantiles: Mapping[str, np.ndarray], start: int) -> None:
    """The curve of the medians, light at the start and dark at the end."""
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


def initial_forms_chart() -> Figure:
    """The squared error of every activation against the function it starts as, a panel each, a line per number format.

    Each line is the largest error of 200 neighbouring inputs; what is exact has no line. The smallest and the largest
    error of all inputs are written beside the format.
    """
    names = starting_activations()
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.4), sharex=True, sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        for index, number_format in enumerate(number_formats()):
            error = initial_error(name, number_format)
            groups = np.array_split(error, len(error) // 200)
            middles = [inputs.mean() for inputs in np.array_split(ERROR_INPUTS, len(groups))]
            highest = np.array([group.max() for group in groups])
            label = f"{str(number_format).split('.')[1]}: {error.min():.1g} to {error.max():.1g}"
            style = {"linestyle": DASHES[index], "linewidth": 1, "marker": ".", "markersize": 2}
            axis.plot(middles, np.where(highest > 0, highest, np.nan), label=label, **style)
        kind = ACTIVATIONS[name]
        axis.set_title(activation_title(kind.family, kind.form), fontsize="medium")
        axis.legend(fontsize="small", loc="upper left")
    axes[0, 0].set(yscale="log", ylim=(1e-36, 1))
    figure.supxlabel("input u", fontsize="medium")
    figure.supylabel("squared error", fontsize="medium")
    sns.despine(figure)
    return figure


def _draw_curves(axis: Axes, forms: Forms, layer: str, form: str) -> None:
    bands = forms[f"bands/{layer}"]
    low, high = (bands[BAND_LEVELS.index(level)] for level in (0.05, 0.95))
    axis.fill_between(CURVE_INPUTS, low, high, color="0.8", linewidth=0, label="90% of all units")
    axis.plot(CURVE_INPUTS, base_curve(form), color="black", linewidth=1.8, label=form_title(form))
    for index, curve in enumerate(forms[f"curves/{layer}"]):
        style: dict[str, Any] = {"color": f"C{index}", "linestyle": UNIT_DASHES[index], "linewidth": 1}
        axis.plot(CURVE_INPUTS, curve, label=f"unit {index + 1}", **style)


def _draw_inputs(axis: Axes, forms: Forms, layer: str) -> None:
    """The density of a layer's inputs where its curves are drawn; how much lies beyond is written in the corner."""
    counts, edges = forms[f"inputs/{layer}"], input_bins(forms, layer)
    low, high = CURVE_INPUTS[0], -CURVE_INPUTS[0] * 0.4
    within = (edges[:-1] >= low) & (edges[1:] <= high)
    density = np.where(within, input_density(forms, layer), 0)
    axis.stairs(density / (density.max() or 1), edges, fill=True, color="0.6")
    axis.set(xlabel="input u", yticks=[], xticks=[-10, -5, 0], xlim=(low, high), ylim=(0, 1.5))
    if (beyond := 1 - counts[within].sum() / counts.sum()) >= 0.005:
        axis.text(0.02, 0.95, f"{beyond:.0%} beyond", transform=axis.transAxes, va="top", fontsize="small")


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure in the format that the file's suffix names, and close it. Equal figures give equal files.

    Raises:
        UserError: if there is no such format.
    """
    if file.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise UserError(f"{file}: no figure format {file.suffix!r}; svg, pdf and png are some")
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix)
    write_whole(file, lambda part: figure.savefig(part, dpi=150, metadata=metadata))
    plt.close(figure)
