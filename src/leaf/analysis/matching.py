"""Which known function each learned curve is most like, up to input and output scaling, where its inputs are.

This makes "LEAF evolves towards SiLU-like forms" a number: the shares of a layer's units that are nearest to each known
function, and how far they are from it.
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


class Matches(NamedTuple):
    """The nearest known function of each unit.

    Attributes:
        function: int64 ``(units,)``, a place in ``FUNCTIONS``; -1 for a curve that is not finite.
        residual: float32 ``(units,)``, root mean square of what is left of the curve over that of the curve, in [0, 1].
    """

    function: np.ndarray
    residual: np.ndarray


def match(curves: np.ndarray, inputs: np.ndarray, weights: np.ndarray) -> Matches:
    """Match curves with a·g(b·u), g known, in the least weighted squares.

    For one b the best a is a projection, so that all units, functions and scales are one matrix product.

    Args:
        curves: ``(units, points)``, outputs of every unit.
        inputs: ``(points,)``, where they are evaluated.
        weights: ``(points,)``, how often the layer sees such inputs; only their ratios count.
    """
    seen = weights > 0  # often a fraction of the points, and the rest of the work is proportional to them
    curves, inputs = curves[:, seen], inputs[seen]
    share = np.sqrt(weights[seen] / weights.sum())
    candidates = np.concatenate([_function(name, np.outer(SCALES, inputs)) for name in FUNCTIONS]) * share
    norms = np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates = np.divide(candidates, norms, out=np.zeros_like(candidates), where=norms > 0)
    weighted = curves * share
    sizes = np.linalg.norm(weighted, axis=1)
    explained = (weighted @ candidates.T.astype(weighted.dtype)) ** 2
    best = explained.argmax(1) // len(SCALES)
    left = np.sqrt(np.clip(1 - explained.max(1) / np.maximum(sizes, 1e-30) ** 2, 0, 1))
    return Matches(np.where(np.isfinite(left), best, -1), left.astype(np.float32))


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
