"""How far rounding alone takes a training: the same epochs, computed in ways that differ in nothing else.

Training amplifies rounding, the more the rougher the network's functions are. Another machine is another rounding, so
that this is what two honest runs of one cell may differ by.
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
"""Ways to compute the same, as arguments of ``train_epochs``."""

SPREADS = 4
"""How many times the largest measured difference two runs may differ by.

If differences are normal, a fifth is more than four times the largest of four once in some 400 times; more than three
times the larger of two it is once in 20.
"""

LEAST_LOSS, LEAST_ACCURACY = 3e-4, 0.005
"""What they may differ by in any case: a spread of a few runs can be small by chance."""


class Bounds(NamedTuple):
    """By how much the mean training loss and the test accuracy of an epoch may differ."""

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
    """The first epochs of a cell.

    Args:
        threads: of every operation.
        kernel, memory_format: as in ``Training``.
        own_convolutions: whether convolutions are oneDNN's; else they are made of plain matrix products.
    """
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")  # which nobody asked for
        with torch.backends.mkldnn.flags(enabled=own_convolutions):
            training = Training(cell, Settings(epochs=epochs), data, kernel=kernel, memory_format=memory_format)
            return [training.run_epoch() for _ in range(epochs)]


def reach_of_rounding(cell: Cell, data: Data, reference: list[EpochRecord]) -> list[Bounds]:
    """For each epoch of ``reference``, which one thread computed, what another rounding may change."""
    others = [train_epochs(cell, data, len(reference), **rounding) for rounding in ROUNDINGS]
    return [
        Bounds(
            max(LEAST_LOSS, SPREADS * max(abs(other[i].train_loss - record.train_loss) for other in others)),
            max(LEAST_ACCURACY, SPREADS * max(abs(other[i].test_accuracy - record.test_accuracy) for other in others)),
        )
        for i, record in enumerate(reference)
    ]
