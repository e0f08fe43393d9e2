"""Decomposition of the variance of accuracies into activations and seeds, and agreement of seeds on the order."""

from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS, DRAWS_SEED = 1000, 0
"""Number of simulated tables without interaction, and the seed of their random numbers."""

RESOLUTION = 1e-4
"""Accuracy of one of 10,000 test images. Smaller noise cannot change the order."""


class SeedsShare(NamedTuple):
    """Share of the variance that is due to seeds.

    Attributes:
        share: residual variance divided by its sum with the variance between activations, in [0, 1]. The residual is
            the effect of a seed on differences between activations. Its effect on all activations alike is excluded.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    share: float
    low: float
    high: float


class Order(NamedTuple):
    """Agreement of seeds on the order of activations.

    Attributes:
        concordance: Kendall's W: 1 if all seeds give the same order, near 0 for random orders.
        p: share of simulated tables without interaction, with the same effects and noise, whose W is not larger.
    """

    concordance: float
    p: float


def seeds_share(values: np.ndarray, confidence: float) -> SeedsShare:
    """Decompose a two-way table: 1 - ICC(3,1), with its F interval (Shrout and Fleiss 1979).

    Args:
        values: float64 ``(activations, seeds)``, at least two of each.
        confidence: confidence level of the interval.
    """
    n, k = values.shape
    residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    degrees = n - 1, (n - 1) * (k - 1)
    between, error = k * values.mean(1).var(ddof=1), (residuals**2).sum() / degrees[1]
    if error < RESOLUTION**2 / 100:  # rounding alone
        return SeedsShare(0.0, 0.0, 0.0) if between > RESOLUTION**2 else SeedsShare(1.0, 1.0, 1.0)
    level = (1 + confidence) / 2
    ratios = np.array([1, stats.f.ppf(level, *reversed(degrees)), 1 / stats.f.ppf(level, *degrees)]) * between / error
    share, low, high = np.clip(k / (ratios + k - 1), 0, 1)
    return SeedsShare(float(share), float(low), float(high))


def order(values: np.ndarray) -> Order:
    """Compare Kendall's W over seeds with that of simulated tables: activation + seed + normal noise.

    The effects of activations are medians over seeds, and the noise is estimated from the median absolute residual. A
    few seeds with another order therefore do not count as noise. The effects are shrunk by their estimated noise.

    Args:
        values: float64 ``(activations, seeds)``, at least two of each.
    """
    normal = np.random.default_rng(DRAWS_SEED).normal(size=(DRAWS, *values.shape))
    effects, size = _robust(values[None])
    observed = float(_concordance(values[None])[0])
    noise = float(size[0] / _robust(normal)[1].mean())
    if noise < RESOLUTION:
        return Order(observed, 1.0)
    by_noise = noise**2 * _robust(normal)[0].var(axis=1, ddof=1).mean()
    variance = float(effects[0].var(ddof=1))
    shrunk = effects[0] * np.sqrt(max(0.0, 1 - by_noise / variance)) if variance > 0 else effects[0]
    drawn = _concordance(shrunk[:, None] + noise * normal)
    return Order(observed, float((1 + np.count_nonzero(drawn <= observed + 1e-12)) / (1 + DRAWS)))


def _robust(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the effects of rows ``(tables, activations)`` and the median absolute residual ``(tables,)``."""
    centered = tables - tables.mean(1, keepdims=True)
    effects = np.median(centered, axis=2)
    return effects, np.median(np.abs(centered - effects[:, :, None]), axis=(1, 2))


def _concordance(tables: np.ndarray) -> np.ndarray:
    """Kendall's W of each table ``(tables, activations, seeds)``."""
    n = tables.shape[1]
    ranks = stats.rankdata(tables, axis=1)
    return 12 * ranks.mean(2).var(1) / (n**2 - 1)
