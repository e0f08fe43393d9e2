"""Pairs of cells for comparisons: a learnable activation and the base function of its form, with the same seed.

The two cells of a pair must have the same precision and kind of device. Other pairs are marked, and excluded from
differences and verdicts. On a GPU dropout draws other random numbers, and the rounding of TF32 exceeds the differences.
"""

import pandas as pd

from leaf.analysis.collection import Records, finished

SHARED = ["network", "dataset", "form", "optimizer", "seed"]
"""Fields that are equal in the two cells of a pair."""

COMPARISON = ["network", "dataset", "family", "form", "procedure", "optimizer"]
"""Fields that are equal in all pairs of a comparison, one pair per seed."""


def computed_in(cells: pd.DataFrame) -> pd.Series:
    """Precision and kind of device of each cell, such as ``"tf32 on GPU"``; ``""`` for a cell without results."""
    words = [
        "" if pd.isna(device) else f"{precision} on {'CPU' if device.startswith('CPU') else 'GPU'}"
        for precision, device in zip(cells["precision"], cells["device"], strict=True)
    ]
    return pd.Series(words, cells.index, dtype=object)


def are_mixed(cells: pd.DataFrame) -> bool:
    """Check whether finished cells differ in precision or kind of device."""
    return computed_in(finished(cells)).nunique() > 1


def pairs(records: Records, column: str) -> pd.DataFrame:
    """List the pairs of finished cells with a value in a column of ``Records.cells``, in the order of the cells.

    Returns:
        One row per pair: the columns of the learnable cell; ``value`` and ``base_value``, float64; the name
        ``base_cell``; ``computed_in`` and ``base_computed_in``, as text; and ``alike``, whether these are equal.
    """
    cells = finished(records.cells).dropna(subset=column)
    cells = cells.assign(value=cells[column].astype(float), computed_in=computed_in(cells))
    is_base = cells["family"] == "base"
    base = cells[is_base & (cells["procedure"] == "classic")]
    base = base[[*SHARED, "cell", "value", "computed_in"]].rename(
        columns={name: f"base_{name}" for name in ("cell", "value", "computed_in")}
    )
    found = cells[~is_base].merge(base, on=SHARED)
    return found.assign(alike=found["computed_in"] == found["base_computed_in"])


def pair_notes(records: Records) -> list[str]:
    """Notes on the excluded pairs of a table of comparisons, one sentence each."""
    found = pairs(records, "best_accuracy")
    return [
        f"Excluded from differences and verdicts, since precision or kind of device differ: {row['cell']}"
        f" ({row['computed_in']}) against {row['base_cell']} ({row['base_computed_in']})."
        for row in found[~found["alike"]].to_dict("records")
    ]
