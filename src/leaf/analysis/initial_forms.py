"""Errors of AHAF and LEAF before training, relative to the base functions that they approximate."""

import numpy as np
import torch

from leaf.activations import ACTIVATIONS, BASE_FUNCTIONS, Adaptive

ERROR_INPUTS = np.linspace(-15, 15, 100_001)
"""Inputs for the errors, as published: [-15, 15], float64 ``(100001,)``."""


def number_formats() -> list[torch.dtype]:
    """List the number formats of the errors; float16 only on a GPU, as published."""
    return [torch.float32, torch.float64, *([torch.float16] if torch.cuda.is_available() else [])]


def starting_activations() -> list[str]:
    """List the paper's learnable activations."""
    return [name for name, kind in ACTIVATIONS.items() if kind.family in ("ahaf", "leaf")]


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
