"""Match learned curves with known functions, weighted by the distribution of the inputs.

The matches quantify the paper's claim that LEAF evolves towards SiLU-like forms. They give the share of a layer's units
that are nearest to each known function, and their distance from it.
"""

from typing import NamedTuple

import numpy as np
import torch

from leaf.activations import BASE_FUNCTIONS

FUNCTIONS = ("relu", "silu", "tanh", "sigmoid", "linear")
"""The known functions, in the order of all arrays. Collected files name theirs. The list does not follow
``BASE_FUNCTIONS``, since an additional function would change the matches of all curves."""

SCALES = np.concatenate([-np.geomspace(0.05, 20, 61)[::-1], np.geomspace(0.05, 20, 61)])
"""Input scales b of the candidates; a negative one mirrors the function."""

SHIFTS = np.linspace(-4, 4, 17)
"""Input shifts d of the candidates, for every second scale, if the match has this freedom."""

FREEDOMS = ("scale", "offset", "shift")
"""Freedoms of the match of a known function g: ``a·g(b·u)``, ``a·g(b·u) + c`` and ``a·g(b·(u - d)) + c``."""


class Matches(NamedTuple):
    """The nearest known function of each unit.

    Attributes:
        function: int64 ``(units,)``, indices in ``FUNCTIONS``; -1 for a curve that is not finite.
        residual: float32 ``(units,)``, root mean square of the difference relative to that of the curve, in [0, 1].
    """

    function: np.ndarray
    residual: np.ndarray


def match(curves: np.ndarray, inputs: np.ndarray, weights: np.ndarray, freedom: str = "scale") -> Matches:
    """Find the known function nearest to each curve, by weighted least squares.

    For given b and d the best a and c are a projection. One matrix product therefore covers all units, functions,
    scales and shifts. With an offset, residuals are relative to the curve minus its weighted mean. Tanh and Sigmoid are
    then one function, since tanh(u) = 2·sigmoid(2u) - 1; a match may be either.

    Args:
        curves: ``(units, points)``, outputs of the units.
        inputs: ``(points,)``, inputs of the curves.
        weights: ``(points,)``, frequencies of the inputs; only their ratios matter.
        freedom: one of ``FREEDOMS``.
    """
    weighted_points = weights > 0  # often few, and the cost is proportional to their number
    curves, inputs = curves[:, weighted_points], inputs[weighted_points]
    weights = weights[weighted_points] / weights.sum()
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
    """Select the units nearest to a known function with a residual of at most ``limit``: bool ``(units,)``."""
    return (matches.function == FUNCTIONS.index(name)) & (matches.residual <= limit)


def _function(name: str, inputs: np.ndarray) -> np.ndarray:
    return inputs if name == "linear" else BASE_FUNCTIONS[name]()(torch.from_numpy(inputs)).numpy()


def summary(matches: Matches) -> np.ndarray:
    """Compute for each function the share of units nearest to it, and their median residual, NaN for no unit.

    A unit whose curve is not finite is nearest to none. If no curve is finite, the shares are NaN.

    Returns:
        float32 ``(len(FUNCTIONS), 2)``.
    """
    of_function = [matches.residual[matches.function == place] for place in range(len(FUNCTIONS))]
    units = len(matches.function) if (matches.function >= 0).any() else np.nan
    return np.array([[len(r) / units, np.median(r) if len(r) else np.nan] for r in of_function], np.float32)
