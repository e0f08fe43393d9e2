"""Differences between activations: paired by seed, with intervals, corrected for the number of tests.

Cells with the same seed start from the same weights and see the same images, so that an activation is compared with the
base function of its form seed by seed. Differences are assumed to be normal: with five seeds no rank test can reach 5%,
and the 95% interval of a bootstrap covers 84%. The metric and the confidence level are in the configuration, which is
fixed before any result is seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from leaf.analysis.collection import Records, Variant
from leaf.analysis.pairs import COMPARISON, are_mixed, pairs
from leaf.analysis.tables import variant_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.status import DIVERGED, DONE
from leaf.networks import NETWORKS

METRICS = {
    "best_accuracy": "best test accuracy",
    "final_accuracy": "final test accuracy",
    "last_epochs_accuracy": "test accuracy, mean of the last 10 epochs",
    "chosen_accuracy": "test accuracy at the epoch chosen on validation images",
}
"""Metrics for comparisons: columns of ``Records.cells`` with their titles."""

BETTER, WORSE, EVEN, UNDETERMINED = "better", "worse", "no difference shown", "one seed: undetermined"
UNLIKE = "computed differently: not compared"


def paired_interval(differences: Sequence[float], confidence: float) -> tuple[float, float, float, float]:
    """t interval, effect size and p value of a mean difference.

    Args:
        differences: at least two, one per pair.
        confidence: confidence level of the interval.

    Returns:
        The ends of the t interval, Cohen's d of paired values (mean over standard deviation), and the two-sided p value
        of the paired t test. If all differences are equal, the interval is a point, and p is 0 or 1.
    """
    values = np.asarray(differences, dtype=float)
    mean, deviation = values.mean(), values.std(ddof=1)
    if deviation < 1e-9:  # smaller than the rounding of accuracies and losses
        return mean, mean, np.sign(mean) * np.inf if mean else 0.0, 0.0 if mean else 1.0
    low, high = stats.t.interval(confidence, len(values) - 1, mean, stats.sem(values))
    return low, high, mean / deviation, stats.ttest_1samp(values, 0).pvalue


class PooledMean(NamedTuple):
    """Mean over comparisons, with an interval for the variance between seeds.

    Attributes:
        mean: mean of the comparisons' means, with equal weights.
        low: lower end of its interval.
        high: upper end of its interval.
        degrees: degrees of freedom of the pooled variance; with 0 the ends are NaN.
        spread: standard deviation between the comparisons' true differences, in the unit of the differences: the
            variance of their means minus that due to seeds (method of moments).
        p_sign: p value of the two-sided sign test on the comparisons' means.
    """

    mean: float
    low: float
    high: float
    degrees: int
    spread: float
    p_sign: float


def pooled_mean(comparisons: Sequence[Sequence[float] | np.ndarray], confidence: float) -> PooledMean:
    """Mean over a fixed set of comparisons, with an interval from the variance between seeds.

    The variance is pooled over the comparisons with at least two seeds, as in a one-way analysis of variance, and is
    assumed for those with one seed. Differences between comparisons do not widen the interval, which is about these
    comparisons only.

    Args:
        comparisons: the differences of each comparison by seed; at least one comparison with at least one seed each.
        confidence: confidence level of the interval.
    """
    groups = [np.asarray(values, dtype=float) for values in comparisons]
    means, seeds = np.array([values.mean() for values in groups]), np.array([len(values) for values in groups])
    degrees = int((seeds - 1).sum())
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in groups)
    variance = squares / degrees if degrees else np.nan
    half = float(stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(variance * (1 / seeds).sum())) / len(groups)
    between = means.var(ddof=1) - variance * (1 / seeds).mean() if len(groups) > 1 else np.nan
    signs = np.sign(means[means != 0])
    p_sign = stats.binomtest(int((signs > 0).sum()), len(signs)).pvalue if len(signs) else 1.0
    mean = float(means.mean())
    return PooledMean(mean, mean - half, mean + half, degrees, float(np.sqrt(max(0.0, between))), float(p_sign))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p values for their number by Holm's method. NaN remains NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    corrected = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def judged_by(records: Records) -> str:
    """The metric of comparisons: the accuracy at the epoch selected on validation images, or without them the best."""
    return "chosen_accuracy" if records.cells["chosen_accuracy"].notna().any() else "best_accuracy"


def checked_metric(records: Records, metric: str) -> str:
    """Return a key of ``METRICS`` for which the records have values; for ``"auto"`` the result of ``judged_by``.

    Raises:
        UserError: if the metric is unknown, or no cell with results has it.
    """
    metric = judged_by(records) if metric == "auto" else metric
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; known: auto, {', '.join(METRICS)}")
    if records.cells[metric].isna().all() and records.cells["best_accuracy"].notna().any():
        raise UserError(f"statistics: metric {metric}: no cell has it, since it needs validation_images; choose auto")
    return metric


def differences_table(records: Records, metric: str, confidence: float) -> pd.DataFrame:
    """Difference between each learnable activation and the base function of its form, in percentage points.

    One row per data set and variant; Holm's correction counts all rows. Stale and damaged cells, and
    pairs that differ in precision or kind of device, are excluded. Excluded pairs have a column of their own.

    Args:
        metric: a key of ``METRICS``, or ``"auto"`` for the result of ``judged_by``.
        confidence: confidence level of the intervals; 1 - confidence is the level of the tests.

    Raises:
        UserError: if the metric is unknown, or no cell with results has it.
    """
    metric = checked_metric(records, metric)
    rows = []
    for key, of_comparison in pairs(records, metric).groupby(COMPARISON, sort=False):
        network, dataset, *variant = map(str, key)
        alike = of_comparison[of_comparison["alike"]]
        points = alike["value"] * 100 - alike["base_value"] * 100
        known = paired_interval(list(points), confidence) if len(points) > 1 else (np.nan,) * 4
        title = variant_title(Variant(*variant), _several_optimizers(records))
        place = NETWORKS[network].title, DATASETS[dataset].title
        ways = ", ".join(alike["computed_in"].unique())
        rows.append((*place, title, len(alike), points.mean(), *known, ways, len(of_comparison) - len(alike)))
    difference = f"difference in {METRICS[metric]}, points"
    columns = [*PLACE, "activation", "seeds", difference, "low", "high", "effect size", "p", "computed in", "left out"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(columns.index("p") + 1, "p, Holm", holm(list(table["p"])))
    table["verdict"] = [
        UNLIKE if not seeds else UNDETERMINED if np.isnan(p) else EVEN if p >= 1 - confidence
        else BETTER if points > 0 else WORSE
        for seeds, p, points in zip(table["seeds"], table["p, Holm"], table[difference], strict=True)
    ]  # fmt: skip
    if not are_mixed(records.cells):
        table = table.drop(columns=["computed in", "left out"])
    return table.round({difference: 2, "low": 2, "high": 2, "effect size": 2, "p": 5, "p, Holm": 5})


def best_epoch_table(records: Records) -> pd.DataFrame:
    """Optimism of the best epoch, which is selected on the test images, in percentage points, averaged over seeds.

    One row per data set and variant: the best epoch's accuracy, and its difference from the last epoch's, from the mean
    of the last ten epochs, and from that of the epoch selected on validation images, if there are any.
    """
    rows = []
    for place, best in _by_place(records, "best_accuracy"):
        others = {column: dict(_by_place(records, column)).get(place, {}) for column in OTHERS}
        for variant, values in best.items():
            differences = {
                f"best minus {name}": (values - others[column].get(variant, np.nan)).mean()
                for column, name in OTHERS.items()
            }
            title = variant_title(variant, _several_optimizers(records))
            rows.append({**dict(zip(PLACE, place, strict=True)), "activation": title, "seeds": len(values),
                         "best test accuracy, %": values.mean(), **differences})  # fmt: skip
    return pd.DataFrame(rows).round(2)


PLACE = ("network", "data set")
OTHERS = {"final_accuracy": "final", "last_epochs_accuracy": "mean of last 10", "chosen_accuracy": "chosen"}


def _by_place(records: Records, metric: str) -> Iterator[tuple[tuple[str, str], dict[Variant, pd.Series]]]:
    """For each network and data set: its variants' accuracies in percent, by seed."""
    cells = records.cells[records.cells["status"].isin([DONE, DIVERGED]) & records.cells[metric].notna()]
    for place, here in cells.groupby(["network", "dataset"], sort=False):
        network, dataset = map(str, place)
        variants = Records(here, records.epochs, records.forms).variants()
        yield (
            (NETWORKS[network].title, DATASETS[dataset].title),
            {variant: rows.set_index("seed")[metric].astype(float) * 100 for variant, rows in variants},
        )


def _several_optimizers(records: Records) -> bool:
    return len(records.unique("optimizer")) > 1
