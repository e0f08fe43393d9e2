"""Log every epoch's metrics and histograms to TensorBoard and Weights & Biases.

Tracking does not affect training. The trackers' packages are the optional dependencies ``tracking``; each is imported
only if it is configured.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.records import EpochRecord

BINS = 64
"""Number of bins of a histogram, between the smallest and the largest value."""


@dataclass(frozen=True)
class Tracking:
    """The configuration's ``tracking``.

    Attributes:
        trackers: names in ``TRACKERS``.
        directory: directory for their files: ``tensorboard/{scale}/{cell}`` and ``wandb`` below it.
        wandb_mode: ``"offline"`` stores a run in files (``wandb sync`` uploads it later); ``"online"`` uploads it
            during training.
        wandb_project: project of the runs in Weights & Biases.

    Raises:
        UserError: if a tracker or the mode is unknown.
    """

    trackers: Sequence[str] = ()
    directory: str = "tracking"
    wandb_mode: Literal["offline", "online"] = "offline"
    wandb_project: str = "leaf"

    def __post_init__(self) -> None:
        for name in self.trackers:
            if name not in TRACKERS:
                raise UserError(f"tracking: unknown tracker {name!r}; known: {', '.join(TRACKERS)}")
        if self.wandb_mode not in ("offline", "online"):
            raise UserError(f"tracking: unknown wandb_mode {self.wandb_mode!r}; known: offline, online")

    @classmethod
    def from_json(cls, text: str) -> "Tracking":
        """Parse the configuration's ``tracking`` as JSON.

        Raises:
            UserError: if the text is not JSON of this form.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            example = json.dumps(asdict(cls(("tensorboard",))))
            raise UserError(f"--tracking {text!r}: {error!r}; expected JSON such as {example}") from None


class Run(NamedTuple):
    """A training that is logged: its cell, its scale, its settings (``about``) and the first epoch to log, from 1."""

    cell: Cell
    scale: str
    about: Mapping[str, Any]
    first_epoch: int


class Histogram(NamedTuple):
    """Counts, int64 ``(BINS,)``, edges, float64 ``(BINS + 1,)``, and the sums of the values and their squares."""

    counts: np.ndarray
    edges: np.ndarray
    sum: float
    sum_of_squares: float


class Epoch(NamedTuple):
    """Data of one epoch for a tracker: its number (from 1), its metrics and its histograms, by name.

    ``parameters/…`` are histograms of the parameters at the end of the epoch, ``gradients/…`` those of the gradients of
    its last minibatch.
    """

    number: int
    numbers: Mapping[str, float]
    histograms: Mapping[str, Histogram]


def observe(record: EpochRecord, network: nn.Module) -> Epoch:
    """Collect the data of the last epoch."""
    numbers = {name: value for name, value in asdict(record).items() if name != "epoch" and value is not None}
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors[f"parameters/{name}"] = parameter.detach()
        if parameter.grad is not None:  # it is None if training resumed after the epoch's last minibatch
            tensors[f"gradients/{name}"] = parameter.grad
    histograms = {}
    for name, tensor in tensors.items():
        if len(values := tensor[tensor.isfinite()].cpu().double().numpy()):
            counts, edges = np.histogram(values, BINS)
            histograms[name] = Histogram(counts, edges, values.sum().item(), values.dot(values).item())
    return Epoch(record.epoch, numbers, histograms)


class Tracker(Protocol):
    """A tracker. If it fails after its start, the error is logged and training continues without it."""

    def __init__(self, tracking: Tracking, run: Run) -> None: ...

    def log_epoch(self, epoch: Epoch) -> None:
        """Log one epoch."""

    def close(self) -> None:
        """Close the log. The training may resume later."""


class TensorBoard:
    """A tracker that writes one event file below ``tensorboard/{scale}/{cell}`` for each session of a training."""

    def __init__(self, tracking: Tracking, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory = Path(tracking.directory, "tensorboard", run.scale, run.cell.name)
        self.writer = SummaryWriter(directory, purge_step=run.first_epoch)  # hides epochs of earlier sessions

    def log_epoch(self, epoch: Epoch) -> None:
        for name, number in epoch.numbers.items():
            self.writer.add_scalar(name, number, epoch.number)
        for name, (counts, edges, total, squares) in epoch.histograms.items():
            ends = edges[0], edges[-1]
            self.writer.add_histogram_raw(
                name, *ends, counts.sum(), total, squares, edges[1:].tolist(), counts.tolist(), epoch.number
            )
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A tracker that logs to a run with the id ``{scale}.{cell}``. A resumed training resumes this run."""

    def __init__(self, tracking: Tracking, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no reports about wandb itself
        import wandb

        online = tracking.wandb_mode == "online"
        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True,
            finish_timeout=60, finish_timeout_raises=True,  # otherwise it waits forever without a network
            x_transaction_log_flush_interval=1,
        )  # fmt: skip
        self.run = wandb.init(
            project=tracking.wandb_project, dir=tracking.directory, mode=tracking.wandb_mode,
            id=f"{run.scale}.{run.cell.name.replace('/', '.')}", name=run.cell.name, group=run.scale,
            config=dict(run.about),
            resume="allow" if online and run.first_epoch > 1 else None,  # None replaces an earlier run
            settings=settings,
        )  # fmt: skip

    def log_epoch(self, epoch: Epoch) -> None:
        import wandb

        histograms = {
            name: wandb.Histogram(np_histogram=(counts, edges))
            for name, (counts, edges, *_) in epoch.histograms.items()
        }
        # Without commit, an epoch is not written before the next one is logged.
        self.run.log({**epoch.numbers, **histograms}, step=epoch.number, commit=True)

    def close(self) -> None:
        import wandb

        try:
            self.run.finish()
        finally:
            wandb.teardown()  # otherwise its exit handler prints errors if its service died


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""Trackers by name."""


class Watch:
    """The trackers of one training.

    They log an epoch after the state that includes it has been written, so that a training that is killed and resumed
    logs no epoch twice.

    Args:
        log: called with one line when a tracker fails.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log
        self.trackers: dict[str, Tracker] = {}
        self.pending: list[Epoch] = []

    def start(self, tracking: Tracking, run: Run) -> None:
        """Start trackers.

        Raises:
            UserError: if one of them does not start.
        """
        for name in tracking.trackers:
            try:
                Path(tracking.directory).mkdir(parents=True, exist_ok=True)
                self.trackers[name] = TRACKERS[name](tracking, run)
            except Exception as error:  # trackers may raise any error
                self.close()
                if isinstance(error, ImportError):
                    reason = f"{error}; install its packages with 'pip install leaf-activations[tracking]'"
                else:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"tracking: {name} failed to start: {reason}") from None

    def observe(self, record: EpochRecord, network: nn.Module) -> None:
        """Keep the data of the last epoch until ``flush``."""
        if self.trackers:
            self.pending.append(observe(record, network))

    def flush(self) -> None:
        """Log the epochs that were observed since the last call."""
        for epoch in self.pending:
            self._each(methodcaller("log_epoch", epoch))
        self.pending.clear()

    def close(self) -> None:
        """Close the trackers."""
        self._each(methodcaller("close"))
        self.trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                self.log(f"tracking: {name} failed, training continues without it: {type(error).__name__}: {error}")
                del self.trackers[name]
                with suppress(Exception):
                    tracker.close()
