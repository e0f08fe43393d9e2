"""Match learned curves with known functions, weighted by the distribution of the inputs.

This quantifies "LEAF evolves towards SiLU-like forms": the share of a layer's units that are nearest to each known
function, and their distance from it.
"""

from typing import NamedTuple

import numpy as np
import torch

from leaf.activations import BASE_FUNCTIONS

FUNCTIONS = ("relu", "silu", "tanh", "sigmoid", "linear")
"""The known functions, in the order of every array here; collected files name theirs. Written out, since a function
more would change every curve's match."""

SCALES = np.concatenate([-np.geomspace(0.05, 20, 61)[::-1], np.geomspace(0.05, 20, 61)])
"""Input scales that are tried: a curve may be a known function mirrored, squeezed or stretched."""

SHIFTS = np.linspace(-4, 4, 17)
"""Input shifts that are tried where the match has that freedom, with every second scale."""

FREEDOMS = ("scale", "offset", "shift")
"""What may change of a known function g, from least to most:
``a·g(b·u)``, ``a·g(b·u) + c`` and ``a·g(b·(u - d)) + c``."""


class Matches(NamedTuple):
    """The nearest known function of each unit.

    Attributes:
        function: int64 ``(units,)``, a place in ``FUNCTIONS``; -1 for a curve that is not finite.
        residual: float32 ``(units,)``, root mean square of what is left of the curve over that of the curve, in [0, 1].
    """

    function: np.ndarray
    residual: np.ndarray


def match(curves: np.ndarray, inputs: np.ndarray, weights: np.ndarray, freedom: str = "scale") -> Matches:
    """Match curves with a known function g, in the least weighted squares.

    For one b and d the best a and c are a projection, so that all units, functions, scales and shifts are one matrix
    product. With an offset the residual is that of the curve less its weighted mean, and Tanh and Sigmoid are one
    function, 2·sigmoid(2u) - 1, which counts as either.

    Args:
        curves: ``(units, points)``, outputs of every unit.
        inputs: ``(points,)``, where they are evaluated.
        weights: ``(points,)``, how often the layer sees such inputs; only their ratios count.
        freedom: one of ``FREEDOMS``.
    """
    seen = weights > 0  # often a fraction of the points, and the rest of the work is proportional to them
    curves, inputs = curves[:, seen], inputs[seen]
    weights = weights[seen] / weights.sum()
    share = np.sqrt(weights)
    scales, shifts = (SCALES[::2], SHIFTS) if freedom == "shift" else (SCALES, np.zeros(1))
    candidates = np.concatenate(
        [_function(name, np.multiply.outer(scales, inputs - shift)) for name in FUNCTIONS for shift in shifts]
    )
    if freedom != "scale":
        candidates = candidates - (candidates @ weights)[:, None]
        curves = curves - (curves @ weights)[:, None]
    candidates = candidates * share
    norms = np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates = np.divide(candidates, norms, out=np.zeros_like(candidates), where=norms > 1e-12)
    weighted = curves * share
    sizes = np.linalg.norm(weighted, axis=1)
    explained = weighted @ candidates.T.astype(weighted.dtype)
    np.square(explained, out=explained)
    place = explained.argmax(1)
    most = np.take_along_axis(explained, place[:, None], 1)[:, 0]
    left = np.sqrt(np.clip(1 - most / np.maximum(sizes, 1e-30) ** 2, 0, 1))
    best = place // (len(scales) * len(shifts))
    return Matches(np.where(np.isfinite(left), best, -1), left.astype(np.float32))


def near(matches: Matches, name: str, limit: float) -> np.ndarray:
    """Which units are like a known function: nearest to it, with a residual of at most ``limit``; bool ``(units,)``."""
    return (matches.function == FUNCTIONS.index(name)) & (matches.residual <= limit)


def _function(name: str, inputs: np.ndarray) -> np.ndarray:
    return inputs if name == "linear" else BASE_FUNCTIONS[name]()(torch.from_numpy(inputs)).numpy()


def summary(matches: Matches) -> np.ndarray:
    """For each function the share of units nearest to it, and their median residual, NaN where there is none.

    Units whose curves are not finite are near to none; if all are such, the shares are NaN.

    Returns:
        float32 ``(len(FUNCTIONS), 2)``.
    """
    of_function = [matches.residual[matches.function == place] for place in range(len(FUNCTIONS))]
    units = len(matches.function) if (matches.function >= 0).any() else np.nan
    return np.array([[len(r) / units, np.median(r) if len(r) else np.nan] for r in of_function], np.float32)
