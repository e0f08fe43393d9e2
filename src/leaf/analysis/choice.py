"""Comparison of the best learnable activation with the best base function.

``leaf.analysis.statistics`` compares each learnable activation with its initial function. Here both sides are selected
by their results, as a user would choose them.
"""

from typing import Any

import numpy as np
import pandas as pd

from leaf.analysis.collection import Records, Variant, finished
from leaf.analysis.pairs import are_mixed, computed_in
from leaf.analysis.statistics import METRICS, checked_metric, paired_interval
from leaf.analysis.tables import variant_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import OPTIMIZERS
from leaf.networks import NETWORKS

PLACE = ["network", "dataset", "optimizer", "computed_in"]
"""Fields that are equal in all cells of a comparison."""


def best_table(records: Records, metric: str, confidence: float) -> pd.DataFrame:
    """Compare the best variant of each learnable family with the best base function.

    One row per network, data set, optimizer and family. The variant with the highest mean over its finished seeds is
    selected; of equal ones the first. Accuracies in %, their difference in percentage points and its t interval are
    computed from the seeds that both sides have. One seed gives no interval, no common seed gives no accuracy. The
    interval is not corrected for the selection. Precision and kind of device are equal on both sides.

    Args:
        metric, confidence: as in ``differences_table``.

    Raises:
        UserError: as in ``differences_table``.
    """
    metric = checked_metric(records, metric)
    cells = _candidates(records, metric)
    rows = []
    for place, here in cells.groupby(PLACE, sort=False):
        network, dataset, optimizer, way = map(str, place)
        bases = here[here["family"] == "base"]
        for _, learnable in here[here["family"] != "base"].groupby("family", sort=False):
            if len(bases):
                words = NETWORKS[network].title, DATASETS[dataset].title, OPTIMIZERS[optimizer].title, way
                rows.append((*words, *_comparison(bases, learnable, confidence)))
    columns = [
        "network", "data set", "optimizer", "computed in", "best base function", "base candidates", "base, %",
        "best learnable variant", "learnable candidates", "learnable, %", "seeds",
        f"difference in {METRICS[metric]}, points", "low", "high",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    if table["optimizer"].nunique() < 2:
        table = table.drop(columns="optimizer")
    return table.drop(columns=[] if are_mixed(cells) else "computed in").round(2)


def _candidates(records: Records, metric: str) -> pd.DataFrame:
    """Finished cells with a value of the metric, and the columns ``percent`` and ``computed_in``."""
    cells = finished(records.cells).dropna(subset=metric)
    return cells.assign(percent=cells[metric].astype(float) * 100, computed_in=computed_in(cells))


def _comparison(base_cells: pd.DataFrame, learnable: pd.DataFrame, confidence: float) -> tuple[object, ...]:
    """Compute the fields of a row after its place."""
    (base, base_percent, bases), (variant, percent, variants) = _best(base_cells), _best(learnable)
    shared = percent.index.intersection(base_percent.index)
    means = base_percent[shared].mean(), percent[shared].mean()
    points = percent[shared] - base_percent[shared]
    return base, bases, means[0], variant, variants, means[1], len(points), *_mean_and_interval(points, confidence)


def _mean_and_interval(points: pd.Series, confidence: float) -> tuple[float, float, float]:
    """Mean and ends of the t interval of differences; the ends are NaN for fewer than two."""
    low, high, *_ = paired_interval(list(points), confidence) if len(points) > 1 else (np.nan, np.nan)
    return points.mean(), low, high


def tuned_table(records: Records, metric: str, confidence: float) -> pd.DataFrame:
    """Compare each activation with its base function, both with optimizers that are selected on validation images.

    One row per network, data set, activation and procedure. The selected optimizer setting has the highest validation
    accuracy of the best epoch, averaged over seeds; of equal ones the first. Test accuracies in % and differences in
    percentage points, with t intervals, are means over seeds; differences use common seeds only. Cells without
    validation images are excluded. Precision and kind of device are equal in a row.

    Args:
        metric, confidence: as in ``differences_table``; the metric gives the test accuracies.

    Raises:
        UserError: as in ``differences_table``.
    """
    metric = checked_metric(records, metric)
    cells = _candidates(records, metric)
    validated = records.epochs.reindex(columns=["cell", "validation_accuracy"]).groupby("cell")["validation_accuracy"]
    cells = cells.assign(validation=cells["cell"].map(validated.max()).astype(float) * 100)
    rows = []
    for place, here in cells[cells["validation"].notna()].groupby(["network", "dataset", "computed_in"], sort=False):
        network, dataset, way = map(str, place)
        by_activation = here.groupby(["family", "form", "procedure"], sort=False)
        tuned = {tuple(map(str, key)): _tuned(of_it) for key, of_it in by_activation}
        for (family, form, procedure), (optimizer, candidates, chosen) in tuned.items():
            *_, base = tuned.get(("base", form, "classic"), (chosen.iloc[:0],))
            points = (chosen["percent"] - base["percent"]).dropna() if family != "base" else pd.Series(dtype=float)
            title = variant_title(Variant(family, form, procedure, optimizer), with_optimizer=False)
            rows.append((
                NETWORKS[network].title, DATASETS[dataset].title, way, title, OPTIMIZERS[optimizer].title, candidates,
                len(chosen), chosen["validation"].mean(), chosen["percent"].mean(),
                *_mean_and_interval(points, confidence),
            ))  # fmt: skip
    columns = [
        "network", "data set", "computed in", "activation", "selected", "candidates", "seeds", "validation accuracy, %",
        f"{METRICS[metric]}, %", "difference from the tuned base function, points", "low", "high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).drop(columns=[] if are_mixed(cells) else "computed in").round(2)


def _tuned(cells: pd.DataFrame) -> tuple[str, int, pd.DataFrame]:
    """Select the optimizer with the highest mean validation accuracy.

    Returns:
        Its name, the number of candidates, and its cells by seed.
    """
    by_optimizer = cells.groupby("optimizer", sort=False)
    best = str(by_optimizer["validation"].mean().idxmax())
    return best, by_optimizer.ngroups, by_optimizer.get_group(best).set_index("seed")


def _best(cells: pd.DataFrame) -> tuple[str, pd.Series, int]:
    """Select the variant with the highest mean.

    Returns:
        Its title, its accuracies by seed, and the number of candidates.
    """
    by_variant = cells.set_index("seed").groupby(list(Variant._fields), sort=False)["percent"]
    best: Any = by_variant.mean().idxmax()
    return variant_title(Variant(*best), with_optimizer=False), by_variant.get_group(best), by_variant.ngroups


def selection_notes(records: Records) -> list[str]:
    """Note on the selection of the table's rows by their results."""
    return [
        "Each side is selected by the results that are compared. The highest of several means is biased upwards; the"
        " bias grows with the number of candidates and with fewer seeds. The intervals are not corrected for this."
    ]
