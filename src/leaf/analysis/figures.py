"""The paper's figures: progress of training, and the learned forms of activations."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leaf.analysis.collection import Records
from leaf.analysis.forms import BAND_LEVELS, CURVE_INPUTS, Forms, base_curve, input_bins, layers
from leaf.analysis.tables import form_title, marks, variant_title
from leaf.experiment.files import write_whole

matplotlib.use("agg")
sns.set_theme(context="paper", style="ticks", palette="colorblind")
plt.rcParams.update(
    {
        "svg.hashsalt": "leaf",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.08,
        "legend.frameon": False,
    }
)

# Told apart by dashes as well, so that a print in black and white can be read.
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


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
    for column, (curves, inputs, layer) in enumerate(zip(axes[0], axes[1], names, strict=True)):
        _draw_curves(curves, forms, layer, cell["form"])
        _draw_inputs(inputs, forms[f"inputs/{layer}"])
        curves.set_title(f"layer {column + 1}", fontsize="medium")
    axes[0, 0].set_ylabel("output")
    axes[1, 0].set_ylabel("inputs")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique))
    sns.despine(figure)
    return figure


def _draw_curves(axis: Axes, forms: Forms, layer: str, form: str) -> None:
    bands = forms[f"bands/{layer}"]
    low, high = (bands[BAND_LEVELS.index(level)] for level in (0.05, 0.95))
    axis.fill_between(CURVE_INPUTS, low, high, color="0.8", linewidth=0, label="90% of all units")
    for index, curve in enumerate(forms[f"curves/{layer}"]):
        axis.plot(CURVE_INPUTS, curve, color=f"C{index}", linewidth=1, label=f"unit {index + 1}")
    axis.plot(CURVE_INPUTS, base_curve(form), color="black", linestyle="--", linewidth=1, label=form_title(form))


def _draw_inputs(axis: Axes, counts: np.ndarray) -> None:
    edges = input_bins()
    axis.stairs(counts / counts.max(), edges, fill=True, color="0.6")
    axis.set(xlabel="input u", yticks=[], xticks=[-10, -5, 0], xlim=(CURVE_INPUTS[0], -CURVE_INPUTS[0] * 0.4))


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure in the format that the file's suffix names, and close it. Equal figures give equal files."""
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix)
    write_whole(file, lambda part: figure.savefig(part, dpi=150, metadata=metadata))
    plt.close(figure)


FIGURES: dict[str, Callable[[Records], Figure]] = {"progress": progress_chart, "forms": forms_chart}
"""The kinds of figures, by name."""
