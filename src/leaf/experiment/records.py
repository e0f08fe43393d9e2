"""The output files of a finished cell other than ``run.json``, and the training version.

- ``metrics.csv``: one row per epoch, with the columns of ``EpochRecord``.
- ``model.safetensors``: the final weights, including activation parameters.
- ``forms.safetensors``: data for the learned curves: ``parameters/L.P`` (the final activation parameters),
  ``quantiles/L.P`` (per epoch from 0, over the layer's elements), ``inputs/L`` and ``input_edges/L`` (histogram of all
  inputs of the layer on the test images), ``gradient_norms/start`` and ``gradient_norms/end`` (per layer with weights).
"""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from leaf.experiment.files import write_text

TRAINING_VERSION = 1
"""Incremented when a code change changes results, as checked by the golden test. History:

1. First version.
"""


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: counted from 1.
        train_loss: mean of the minibatches' losses with equal weights, including the smaller last minibatch.
        train_loss_variance: their unbiased variance; NaN if there is only one.
        test_loss: mean cross-entropy over the test images.
        test_accuracy: fraction of test images classified correctly, in [0, 1].
        validation_accuracy: the same on the validation images; ``None`` if there are none.
        learning_rate: learning rate of all parameters except the slow ones.
        slow_learning_rate: learning rate of the slow parameters of P24Sl; ``None`` in other procedures.
        train_seconds: wall time of the epoch's training without testing, in seconds.
    """

    epoch: int
    train_loss: float
    train_loss_variance: float
    test_loss: float
    test_accuracy: float
    validation_accuracy: float | None
    learning_rate: float
    slow_learning_rate: float | None
    train_seconds: float

    @property
    def diverged(self) -> bool:
        """``True`` if a loss of the epoch was NaN or infinite."""
        return not math.isfinite(self.train_loss)


def write_metrics(file: Path, records: Iterable[EpochRecord]) -> None:
    """Write ``metrics.csv``, with each number as the shortest decimal that determines it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    write_text(file, text.getvalue())
