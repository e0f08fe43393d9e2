"""The files that a finished cell leaves next to ``run.json``, and the version of the training that wrote them.

- ``metrics.csv``: a row per epoch, the columns of ``EpochRecord``.
- ``model.safetensors``: the final weights, activation parameters included.
- ``forms.safetensors``: what the learned curves are drawn from: ``parameters/L.P`` (the final activation parameters),
  ``quantiles/L.P`` (per epoch from 0, over the layer's elements), ``inputs/L`` and ``input_edges/L`` (a histogram of
  all inputs that a layer sees on the test images), ``gradient_norms/start`` and ``gradient_norms/end`` (per layer with
  weights).
"""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from leaf.experiment.files import write_text

TRAINING_VERSION = 1
"""Raised when a change of the code changes results; the golden test checks that. History:

1. The first one.
"""


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: counted from 1.
        train_loss: mean of the minibatches' losses; each weighs the same, the short last one too.
        train_loss_variance: their unbiased variance; NaN if there is but one.
        test_loss: mean cross-entropy over the test images.
        test_accuracy: share of test images classified correctly, in [0, 1].
        validation_accuracy: the same of the validation images; ``None`` if there are none.
        learning_rate: of all parameters but the slow ones.
        slow_learning_rate: of the parameters that P24Sl slows down; ``None`` without it.
        train_seconds: wall time of the epoch's training, without testing.
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
        """Whether a loss of the epoch was NaN or infinite."""
        return not math.isfinite(self.train_loss)


def write_metrics(file: Path, records: Iterable[EpochRecord]) -> None:
    """Write ``metrics.csv``; numbers as the shortest decimals that read back exactly."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    write_text(file, text.getvalue())
