"""Errors of AHAF and LEAF before training, relative to the base functions that they approximate."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure

from leaf.activations import ACTIVATIONS, BASE_FUNCTIONS, Adaptive
from leaf.analysis.style import set_style
from leaf.analysis.tables import activation_title

set_style()

ERROR_INPUTS = np.linspace(-15, 15, 100_001)
"""Inputs for the errors, as published: [-15, 15], float64 ``(100001,)``."""

LINES = {torch.float32: "-", torch.float64: "--", torch.float16: "-."}
"""Styles of the lines by number format; float16 only on a GPU, as published."""


@torch.no_grad()
def initial_error(name: str, number_format: torch.dtype) -> np.ndarray:
    """Compute the squared difference between an initialized activation and its base function on ``ERROR_INPUTS``.

    The reference kernel computes both in the given format; their difference is computed in float64.

    Returns:
        float64 ``(100001,)``.
    """
    kind = ACTIVATIONS[name]
    device = "cuda" if number_format == torch.float16 else "cpu"
    layer = kind.build((1,))
    assert isinstance(layer, Adaptive)
    layer.reference = True
    inputs = torch.from_numpy(ERROR_INPUTS).to(device, number_format)
    ours = layer.to(device, number_format)(inputs[:, None])[:, 0]
    difference = ours.double() - BASE_FUNCTIONS[kind.form]()(inputs).double()
    return (difference**2).cpu().numpy()


def initial_forms_chart() -> Figure:
    """Draw the squared error of each activation relative to its initial function, one line per number format.

    A line is the largest error of 200 neighbouring inputs, and is interrupted where it is 0. The legend has the
    smallest and the largest error of all inputs. An activation without any error is listed in place of a panel.
    """
    number_formats = [dtype for dtype in LINES if dtype != torch.float16 or torch.cuda.is_available()]
    errors = {
        activation_title(kind.family, kind.form): {dtype: initial_error(name, dtype) for dtype in number_formats}
        for name, kind in ACTIVATIONS.items()
        if kind.family in ("ahaf", "leaf")
    }
    shown = {title: by_format for title, by_format in errors.items() if any(map(np.any, by_format.values()))}
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.4), sharex=True, sharey=True)
    for axis, (title, by_format) in zip(axes.flat, shown.items(), strict=False):
        for dtype, error in by_format.items():
            groups = np.array_split(error, len(error) // 200)
            middles = [inputs.mean() for inputs in np.array_split(ERROR_INPUTS, len(groups))]
            highest = np.array([group.max() for group in groups])
            label = f"{str(dtype).split('.')[1]}: {error.min():.1g} to {error.max():.1g}"
            style = {"linestyle": LINES[dtype], "linewidth": 1, "marker": ".", "markersize": 2}
            axis.plot(middles, np.where(highest > 0, highest, np.nan), label=label, **style)
        axis.set_title(title, fontsize="medium")
        axis.legend(fontsize="small", loc="upper left")
    for place in range(len(shown), axes.size):
        axes.flat[place].set_axis_off()
        axes.flat[place - axes.shape[1]].tick_params(labelbottom=True)  # now the lowest panel of its column
    if exact := [title for title in errors if title not in shown]:
        text = "\n".join(["Exact in every format:", *exact])
        axes.flat[len(shown)].text(0.5, 0.5, text, transform=axes.flat[len(shown)].transAxes, ha="center", va="center")
    axes[0, 0].set(yscale="log", ylim=(1e-36, 1))
    figure.supxlabel("input u", fontsize="medium")
    figure.supylabel("squared error", fontsize="medium")
    sns.despine(figure)
    return figure
