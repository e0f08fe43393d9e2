"""Numerical tolerance of a training, measured by computing the same epochs in ways that differ only in rounding.

Machines round differently. Training amplifies the differences, most in networks with functions that are not smooth, so
that two correct runs of a cell may differ by the tolerance.
"""

import warnings
from typing import Any, NamedTuple

import torch

from leaf.experiment.cells import Cell
from leaf.experiment.loading import Data
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

ROUNDINGS: tuple[dict[str, Any], ...] = (
    {"threads": 2},
    {"own_convolutions": False},
    {"threads": 3},
    {"threads": 2, "own_convolutions": False},
)
"""Ways to compute the same epochs, as arguments of ``train_epochs``."""

SPREADS = 4
"""Tolerance as a multiple of the largest measured difference.

For normally distributed differences, a fifth one exceeds four times the largest of four about once in 400 times. It
would exceed three times the larger of two once in 20.
"""

LEAST_LOSS, LEAST_ACCURACY = 3e-4, 0.005
"""Minimum tolerances, since the differences of a few runs can be small by chance."""


class Bounds(NamedTuple):
    """Tolerances of an epoch's mean training loss and test accuracy."""

    loss: float
    accuracy: float


def train_epochs(
    cell: Cell,
    data: Data,
    epochs: int,
    threads: int = 1,
    kernel: str | None = None,
    own_convolutions: bool = True,
    memory_format: torch.memory_format = torch.channels_last,
) -> list[EpochRecord]:
    """Train the first epochs of a cell.

    Args:
        threads: number of threads of each operation.
        kernel, memory_format: as in ``Training``.
        own_convolutions: whether convolutions use oneDNN; otherwise they use matrix products.
    """
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")  # TF32 is not used here
        with torch.backends.mkldnn.flags(enabled=own_convolutions):
            training = Training(cell, Settings(epochs=epochs), data, kernel=kernel, memory_format=memory_format)
            return [training.run_epoch() for _ in range(epochs)]


def rounding_tolerance(cell: Cell, data: Data, reference: list[EpochRecord]) -> list[Bounds]:
    """Measure the tolerances for each epoch of ``reference``, which was trained with one thread."""
    others = [train_epochs(cell, data, len(reference), **rounding) for rounding in ROUNDINGS]
    return [
        Bounds(
            max(LEAST_LOSS, SPREADS * max(abs(other[i].train_loss - record.train_loss) for other in others)),
            max(LEAST_ACCURACY, SPREADS * max(abs(other[i].test_accuracy - record.test_accuracy) for other in others)),
        )
        for i, record in enumerate(reference)
    ]
