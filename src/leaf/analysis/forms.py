"""Learned curves: a cell's activations as functions, and the distribution of their inputs."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch

from leaf.activations import ACTIVATIONS
from leaf.analysis.matching import match, summary
from leaf.analysis.sources import code_digest
from leaf.experiment.cells import SHOWN, Cell
from leaf.experiment.errors import UserError
from leaf.experiment.files import write_whole
from leaf.experiment.identity import sha256
from leaf.experiment.plugins import plugins_of

CURVE_INPUTS = np.round(np.arange(-10, 4, 0.1), 1).astype(np.float32)
"""Inputs at which curves are evaluated: [-10, 4), the paper's range."""

UNITS_PER_LAYER, UNITS_SEED = 5, 128
"""Largest number of units per layer whose curves are kept, and the seed of their random selection, which is the same
for all cells of a network."""

BAND_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantiles over all units of a layer, for each input."""

CLAMPED_EDGES = np.linspace(-16, 16, 257)
"""Bin edges of ``inputs/L`` in files without ``input_edges/L``, which an earlier version wrote. The outermost bins
include all larger inputs, which count as ±16 in matches."""

FORMS = "forms.safetensors"

Forms = dict[str, np.ndarray]
"""Data for the tables and figures of one cell, by layer L and parameter P:

- ``curves/L``: float32 ``(up to UNITS_PER_LAYER, len(CURVE_INPUTS))``, outputs of the selected units;
- ``bands/L``: float32 ``(len(BAND_LEVELS), len(CURVE_INPUTS))``, quantiles over all units;
- ``matches/L``: float32 ``(len(FUNCTIONS), 2)``, the known functions nearest to the units' curves on the layer's
  inputs; the result of ``matching.summary``;
- ``inputs/L``: int32 ``(bins,)``, histogram of the layer's inputs on the test images;
- ``input_edges/L``: float32 ``(bins + 1,)``, bin edges; if missing, ``CLAMPED_EDGES``;
- ``quantiles/L.P``: float32 ``(epochs + 1, 7)``, quantiles of the parameter over the layer's elements;
- ``gradient_norms/start`` and ``gradient_norms/end``: float32, one per layer with weights.

Cells with a base function have only the inputs and the gradient norms.
"""


def read_forms(cell: Cell, directory: Path) -> Forms:
    """Derive the data for tables and figures, which are small, from a cell's ``forms.safetensors``.

    The result is cached in the file ``SHOWN`` in the same directory. It is derived again if ``forms.safetensors``, this
    code, or a plugin of the cell has changed.
    """
    made_from = {"made_from": " ".join([sha256(directory / FORMS), code_digest(__name__), *plugins_of(cell).values()])}
    with (
        suppress(OSError, safetensors.SafetensorError),
        safetensors.safe_open(directory / SHOWN, framework="numpy") as file,
    ):
        if file.metadata() == made_from:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    forms = _derived(cell, directory)
    with suppress(UserError):  # a read-only directory gets no cache
        write_whole(directory / SHOWN, lambda part: safetensors.numpy.save_file(forms, part, made_from))
    return forms


def _derived(cell: Cell, directory: Path) -> Forms:
    with safetensors.safe_open(directory / FORMS, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        layers = sorted({name.split("/")[1] for name in tensors if name.startswith("inputs/")}, key=natural)
    forms: Forms = {}
    generator = np.random.default_rng(UNITS_SEED)
    for layer in layers:
        forms[f"inputs/{layer}"] = tensors[f"inputs/{layer}"].astype(np.int32)
        if (edges_name := f"input_edges/{layer}") in tensors:
            forms[edges_name] = tensors[edges_name]
        parameters = {
            name.rsplit(".", 1)[1]: values
            for name, values in tensors.items()
            if name.startswith(f"parameters/{layer}.")
        }
        if parameters:
            edges = input_bins(forms, layer)
            middles = edges[:-1] + np.diff(edges) / 2
            at_middles = curves(cell.activation, parameters, middles.astype(np.float32))
            forms[f"matches/{layer}"] = summary(match(at_middles, middles, forms[f"inputs/{layer}"]))
            all_units = curves(cell.activation, parameters, CURVE_INPUTS)
            units = generator.choice(len(all_units), min(UNITS_PER_LAYER, len(all_units)), replace=False)
            forms[f"curves/{layer}"] = all_units[units]
            by_input = np.sort(all_units.T.copy())  # quantiles of sorted rows are faster
            forms[f"bands/{layer}"] = np.quantile(by_input, BAND_LEVELS, axis=1).astype(np.float32)
    kept = ("quantiles/", "gradient_norms/")
    return forms | {name: values for name, values in tensors.items() if name.startswith(kept)}


@torch.no_grad()
def curves(activation: str, parameters: Mapping[str, np.ndarray], at: np.ndarray) -> np.ndarray:
    """Compute the outputs of an activation's units at some inputs.

    Args:
        activation: name in ``ACTIVATIONS``.
        parameters: parameters by name, one value per unit, in any shape.
        at: the inputs, float32 ``(inputs,)``.

    Returns:
        float32 ``(units, inputs)``.
    """
    units = next(iter(parameters.values())).size
    layer = ACTIVATIONS[activation].build((units,))
    for name, values in parameters.items():  # one value per unit, whatever the sharing
        setattr(layer, name, torch.nn.Parameter(torch.from_numpy(values.reshape(-1))))
    inputs = torch.from_numpy(at)[:, None].expand(-1, units)
    return layer(inputs).T.contiguous().numpy()


@torch.no_grad()
def base_curve(form: str) -> np.ndarray:
    """Compute a base function at ``CURVE_INPUTS``: float32 ``(inputs,)``."""
    return ACTIVATIONS[form].build((1,))(torch.from_numpy(CURVE_INPUTS)).numpy()


def layers(forms: Forms) -> list[str]:
    """List the layers with learned curves, in order."""
    return sorted((name.split("/")[1] for name in forms if name.startswith("curves/")), key=natural)


def natural(name: str) -> list[tuple[str, int]]:
    """Sort key with which ``activation2`` precedes ``activation10``."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", name)]


def parameter_quantiles(forms: Forms, layer: str) -> dict[str, np.ndarray]:
    """Quantiles of a layer's activation parameters after every epoch, float32 ``(epochs + 1, 7)``, by parameter."""
    start = f"quantiles/{layer}."
    return {name.removeprefix(start): values for name, values in forms.items() if name.startswith(start)}


def input_bins(forms: Forms, layer: str) -> np.ndarray:
    """Edges of the bins of ``inputs/L``, float64 ``(bins + 1,)``."""
    return forms.get(f"input_edges/{layer}", CLAMPED_EDGES).astype(float)


def input_density(forms: Forms, layer: str) -> np.ndarray:
    """Number of a layer's inputs per unit of u in each bin of ``inputs/L``, float64 ``(bins,)``."""
    return forms[f"inputs/{layer}"] / np.diff(input_bins(forms, layer))


def clamped_share(forms: Forms, layer: str) -> float:
    """Share of a layer's inputs in the outermost bins of a file without edges; 0 with edges."""
    counts = forms[f"inputs/{layer}"]
    return 0.0 if f"input_edges/{layer}" in forms else float((counts[0] + counts[-1]) / counts.sum())
