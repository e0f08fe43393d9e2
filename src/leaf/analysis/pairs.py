"""Pairs of cells that comparisons are made of: a learnable activation and the base function of its form, seed by seed.

The two cells of a pair must share precision and kind of device. Other pairs are marked, and left out of differences and
verdicts: on a GPU dropout draws other numbers, and TF32 rounds more coarsely than the differences in question.
"""

import pandas as pd

from leaf.analysis.collection import Records
from leaf.experiment.status import DIVERGED, DONE

SHARED = ["network", "dataset", "form", "optimizer", "seed"]
"""What the two cells of a pair have in common."""

COMPARISON = ["network", "dataset", "family", "form", "procedure", "optimizer"]
"""What the pairs of one comparison, one per seed, have in common."""


def computed_in(cells: pd.DataFrame) -> pd.Series:
    """Precision and kind of device of each cell, such as ``"tf32 on GPU"``; empty for a cell without results."""
    words = [
        "" if pd.isna(device) else f"{precision} on {'CPU' if device.startswith('CPU') else 'GPU'}"
        for precision, device in zip(cells["precision"], cells["device"], strict=True)
    ]
    return pd.Series(words, cells.index, dtype=object)


def are_mixed(cells: pd.DataFrame) -> bool:
    """Whether the finished ones among some cells differ in precision or kind of device."""
    return computed_in(cells[cells["status"].isin([DONE, DIVERGED])]).nunique() > 1


def pairs(records: Records, column: str) -> pd.DataFrame:
    """Every pair of finished cells that have a value in a column of ``Records.cells``, in the cells' order.

    Returns:
        One row per pair: the learnable cell's columns; ``value`` and ``base_value``, float64; ``base_cell``, its name;
        ``computed_in`` and ``base_computed_in``, in words; and ``alike``, whether these two are the same.
    """
    cells = records.cells[records.cells["status"].isin([DONE, DIVERGED]) & records.cells[column].notna()]
    cells = cells.assign(value=cells[column].astype(float), computed_in=computed_in(cells))
    plain = cells["family"] == "base"
    base = cells[plain & (cells["procedure"] == "classic")]
    base = base[[*SHARED, "cell", "value", "computed_in"]].rename(
        columns={name: f"base_{name}" for name in ("cell", "value", "computed_in")}
    )
    found = cells[~plain].merge(base, on=SHARED)
    return found.assign(alike=found["computed_in"] == found["base_computed_in"])


def pair_notes(records: Records) -> list[str]:
    """What to say under a table of comparisons: each pair that was left out, a sentence."""
    found = pairs(records, "best_accuracy")
    return [
        f"Left out of differences and verdicts, since precision or kind of device differ: {row['cell']}"
        f" ({row['computed_in']}) against {row['base_cell']} ({row['base_computed_in']})."
        for row in found[~found["alike"]].to_dict("records")
    ]
