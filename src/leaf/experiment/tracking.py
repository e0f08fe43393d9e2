"""Watching a cell train from outside: every epoch's numbers and histograms, told to TensorBoard and Weights & Biases.

Nothing here reaches back into training. The trackers' packages are the extra ``tracking`` of this one; none of them is
imported unless it is asked for.
"""

import json
import os
from collections.abc import Callable, Mapping
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
"""Bins of every histogram, between the smallest and the largest value."""


@dataclass(frozen=True)
class Tracking:
    """Which trackers watch, and where they write.

    Attributes:
        trackers: names in ``TRACKERS``.
        directory: what they write below: ``tensorboard/{scale}/{cell}``, ``wandb``.
        wandb_mode: ``"offline"`` keeps a run in files (``wandb sync`` sends it later); ``"online"`` sends it at once.
        wandb_project: the project of Weights & Biases that runs belong to.

    Raises:
        UserError: if there is no such tracker or mode.
    """

    trackers: tuple[str, ...] = ()
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
    def from_config(cls, values: Mapping[str, Any]) -> "Tracking":
        """The configuration's ``tracking``."""
        return cls(**{**values, "trackers": tuple(values["trackers"])})

    @classmethod
    def from_json(cls, text: str) -> "Tracking":
        """The same as JSON.

        Raises:
            UserError: if the text is not such JSON.
        """
        try:
            return cls.from_config(json.loads(text))
        except (KeyError, TypeError, ValueError) as error:
            example = json.dumps(asdict(cls(("tensorboard",))))
            raise UserError(f"--tracking {text!r}: {error!r}; expected JSON such as {example}") from None


class Run(NamedTuple):
    """What a tracker is told of a training when it starts: of which cell, at which scale, with what, from where on."""

    cell: Cell
    scale: str
    about: Mapping[str, Any]
    first_epoch: int


class Histogram(NamedTuple):
    """How often values lie where: int64 counts ``(BINS,)`` between float64 edges ``(BINS + 1,)``; and two sums."""

    counts: np.ndarray
    edges: np.ndarray
    sum: float
    sum_of_squares: float


class Epoch(NamedTuple):
    """What a tracker is told of an epoch: its number, from 1; its record; and histograms by name.

    ``parameters/…`` are of every parameter at the end of the epoch, ``gradients/…`` of its last minibatch's gradients.
    """

    number: int
    numbers: Mapping[str, float]
    histograms: Mapping[str, Histogram]


def observe(record: EpochRecord, network: nn.Module) -> Epoch:
    """What there is to tell of the epoch that a network has just been trained and tested in."""
    numbers = {name: value for name, value in asdict(record).items() if name != "epoch" and value is not None}
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors[f"parameters/{name}"] = parameter.detach()
        if parameter.grad is not None:  # a training that went on after its epoch's last minibatch has none
            tensors[f"gradients/{name}"] = parameter.grad
    histograms = {name: histogram(values) for name, values in tensors.items() if values.isfinite().any()}
    return Epoch(record.epoch, numbers, histograms)


def histogram(values: Tensor) -> Histogram:
    """The histogram of the finite ones among ``values``, of which there must be one."""
    flat = values.cpu().double().numpy().ravel()
    flat = flat[np.isfinite(flat)]
    counts, edges = np.histogram(flat, BINS)
    return Histogram(counts, edges, flat.sum().item(), flat.dot(flat).item())


class Tracker(Protocol):
    """One way to watch. Whatever its methods raise is told; after the start, training goes on without it."""

    def __init__(self, tracking: Tracking, run: Run) -> None: ...

    def tell(self, epoch: Epoch) -> None:
        """Note one epoch."""

    def close(self) -> None:
        """Note that the training ended, or was stopped and may go on later."""


class TensorBoard:
    """An event file below ``tensorboard/{scale}/{cell}`` for each start of a training."""

    def __init__(self, tracking: Tracking, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory = Path(tracking.directory, "tensorboard", run.scale, run.cell.name)
        self.writer = SummaryWriter(directory, purge_step=run.first_epoch)  # hides what an earlier training left

    def tell(self, epoch: Epoch) -> None:
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
    """A run whose id tells the scale and the cell: a training that goes on goes on in it."""

    def __init__(self, tracking: Tracking, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is to tell of training, not of itself
        import wandb

        online = tracking.wandb_mode == "online"
        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True,
            finish_timeout=60, finish_timeout_raises=True,  # for ever otherwise, when the network is gone
            x_transaction_log_flush_interval=1,
        )  # fmt: skip
        self.run = wandb.init(
            project=tracking.wandb_project, dir=tracking.directory, mode=tracking.wandb_mode,
            id=f"{run.scale}.{run.cell.name.replace('/', '.')}", name=run.cell.name, group=run.scale,
            config=dict(run.about),
            resume="allow" if online and run.first_epoch > 1 else None,  # else replaces what an earlier training left
            settings=settings,
        )  # fmt: skip

    def tell(self, epoch: Epoch) -> None:
        import wandb

        histograms = {
            name: wandb.Histogram(np_histogram=(counts, edges))
            for name, (counts, edges, *_) in epoch.histograms.items()
        }
        # Committed, else an epoch is not written until the next one comes.
        self.run.log({**epoch.numbers, **histograms}, step=epoch.number, commit=True)

    def close(self) -> None:
        import wandb

        try:
            self.run.finish()
        finally:
            wandb.teardown()  # else its exit handler has its own say where its service died


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""Every tracker, by name."""


class Watch:
    """The trackers of one training.

    An epoch is told once the state that holds it is written: a training that is killed and goes on from its state
    tells none twice.

    Args:
        say: told in a line when a tracker fails while training goes on.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.trackers: dict[str, Tracker] = {}
        self.untold: list[Epoch] = []

    def start(self, tracking: Tracking, run: Run) -> None:
        """Start trackers.

        Raises:
            UserError: if one of them doesn't start.
        """
        for name in tracking.trackers:
            try:
                Path(tracking.directory).mkdir(parents=True, exist_ok=True)
                self.trackers[name] = TRACKERS[name](tracking, run)
            except Exception as error:  # whatever a tracker may raise
                self.close()
                if isinstance(error, ImportError):
                    reason = f"{error}; 'pip install leaf-activations[tracking]' installs what it needs"
                else:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"tracking: {name} doesn't start: {reason}") from None

    def observe(self, record: EpochRecord, network: nn.Module) -> None:
        """Take note of an epoch that has just ended."""
        if self.trackers:
            self.untold.append(observe(record, network))

    def tell(self) -> None:
        """Tell the epochs noted since the last time."""
        for epoch in self.untold:
            self._each(methodcaller("tell", epoch))
        self.untold.clear()

    def close(self) -> None:
        """Part from the trackers."""
        self._each(methodcaller("close"))
        self.trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                self.say(f"tracking: {name} failed, training goes on without it: {type(error).__name__}: {error}")
                del self.trackers[name]
                with suppress(Exception):
                    tracker.close()
