"""The best learnable activation compared with the best base function, as a user would choose them.

``leaf.analysis.statistics`` compares each learnable activation with its initial function. Here both sides are selected
by their results.
"""

import numpy as np
import pandas as pd

from leaf.analysis.collection import Records, Variant
from leaf.analysis.pairs import are_mixed, computed_in
from leaf.analysis.statistics import METRICS, checked_metric, paired_interval
from leaf.analysis.tables import variant_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import OPTIMIZERS
from leaf.experiment.status import DIVERGED, DONE
from leaf.networks import NETWORKS

PLACE = ["network", "dataset", "optimizer", "computed_in"]
"""Fields that are equal in all cells of a comparison."""


def best_table(records: Records, metric: str, confidence: float) -> pd.DataFrame:
    """The base function and the variant of each learnable family with the highest mean, and their difference.

    One row per network, data set, optimizer and family. A variant is selected by its mean over its finished seeds; of
    equal ones the first. Accuracies in %, their difference in percentage points and its t interval are computed from
    the seeds that both selected variants have: a single one gives no interval, none gives no accuracy. The interval is
    not corrected for the selection. Precision and kind of device are equal on both sides.

    Args:
        metric, confidence: as in ``differences_table``.

    Raises:
        UserError: as in ``differences_table``.
    """
    metric = checked_metric(records, metric)
    cells = records.cells[records.cells["status"].isin([DONE, DIVERGED]) & records.cells[metric].notna()]
    cells = cells.assign(percent=cells[metric].astype(float) * 100, computed_in=computed_in(cells))
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
    fixed = [
        *(["optimizer"] if table["optimizer"].nunique() < 2 else []),
        *([] if are_mixed(cells) else ["computed in"]),
    ]
    return table.drop(columns=fixed).round(2)


def _comparison(base_cells: pd.DataFrame, learnable: pd.DataFrame, confidence: float) -> tuple[object, ...]:
    """The fields of a row after its place."""
    (base, base_percent, bases), (variant, percent, variants) = _best(base_cells), _best(learnable)
    shared = percent.index.intersection(base_percent.index)
    points = percent[shared] - base_percent[shared]
    low, high, *_ = paired_interval(list(points), confidence) if len(points) > 1 else (np.nan, np.nan)
    return (
        base, bases, base_percent[shared].mean(), variant, variants, percent[shared].mean(),
        len(points), points.mean(), low, high,
    )  # fmt: skip


def tuned_table(records: Records, metric: str, confidence: float) -> pd.DataFrame:
    """Each activation with the learning rate selected on validation images, compared with its base function.

    One row per network, data set and activation with procedure. The selected setting of the optimizer is the one with
    the highest validation accuracy of the best epoch, averaged over seeds; of equal ones the first. Test accuracies in
    % and differences in percentage points, with t intervals, are means over seeds; differences use common seeds only.
    Cells without validation images are excluded. Precision and kind of device are equal in a row.

    Args:
        metric, confidence: as in ``differences_table``; the metric gives the test accuracies.

    Raises:
        UserError: as in ``differences_table``.
    """
    metric = checked_metric(records, metric)
    cells = records.cells[records.cells["status"].isin([DONE, DIVERGED]) & records.cells[metric].notna()]
    validated = records.epochs.reindex(columns=["cell", "validation_accuracy"]).groupby("cell")["validation_accuracy"]
    cells = cells.assign(
        percent=cells[metric].astype(float) * 100,
        validation=cells["cell"].map(validated.max()).astype(float) * 100,
        computed_in=computed_in(cells),
    )
    rows = []
    for place, here in cells[cells["validation"].notna()].groupby(["network", "dataset", "computed_in"], sort=False):
        network, dataset, way = map(str, place)
        by_activation = here.groupby(["family", "form", "procedure"], sort=False)
        tuned = {tuple(map(str, key)): _tuned(of_it) for key, of_it in by_activation}
        for (family, form, procedure), (optimizer, candidates, chosen) in tuned.items():
            *_, base = tuned.get(("base", form, "classic"), (chosen.iloc[:0],))
            points = (chosen["percent"] - base["percent"]).dropna() if family != "base" else pd.Series(dtype=float)
            low, high, *_ = paired_interval(list(points), confidence) if len(points) > 1 else (np.nan, np.nan)
            title = variant_title(Variant(family, form, procedure, optimizer), with_optimizer=False)
            rows.append((
                NETWORKS[network].title, DATASETS[dataset].title, way, title, OPTIMIZERS[optimizer].title, candidates,
                len(chosen), chosen["validation"].mean(), chosen["percent"].mean(), points.mean(), low, high,
            ))  # fmt: skip
    columns = [
        "network", "data set", "computed in", "activation", "selected", "candidates", "seeds", "validation accuracy, %",
        f"{METRICS[metric]}, %", "difference from the tuned base function, points", "low", "high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).drop(columns=[] if are_mixed(cells) else "computed in").round(2)


def _tuned(cells: pd.DataFrame) -> tuple[str, int, pd.DataFrame]:
    """The optimizer with the highest mean validation accuracy, the number of optimizers, and its cells by seed."""
    settings = {str(name): of_it.set_index("seed") for name, of_it in cells.groupby("optimizer", sort=False)}
    best = max(settings, key=lambda name: settings[name]["validation"].mean())
    return best, len(settings), settings[best]


def _best(cells: pd.DataFrame) -> tuple[str, pd.Series, int]:
    """The title of the variant with the highest mean, its accuracies by seed, and the number of variants."""
    by_seed = cells.set_index("seed")
    variants = {
        Variant(*map(str, key)): of_it["percent"] for key, of_it in by_seed.groupby([*Variant._fields], sort=False)
    }
    best = max(variants, key=lambda variant: variants[variant].mean())
    return variant_title(best, with_optimizer=False), variants[best], len(variants)


def selection_notes(records: Records) -> list[str]:
    """Note for the table: its rows are selected by their results."""
    return [
        "Each side is selected by the results that are compared, which favours it: the highest of several means is"
        " biased upwards, the more so the more candidates there are and the fewer seeds they have. The intervals are"
        " not corrected for this."
    ]
