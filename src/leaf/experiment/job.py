"""The training job of one cell: keep current outputs, else resume from the state, else start training."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from leaf.experiment.building import check_cell
from leaf.experiment.cells import OUTPUTS, PREVIOUS, STATE, Cell
from leaf.experiment.checkpoint import load_state, save_state
from leaf.experiment.computing import PRECISIONS
from leaf.experiment.datasets import DATASETS, dataset_file
from leaf.experiment.devices import device_name, training_device
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.files import remove_parts
from leaf.experiment.identity import Identity
from leaf.experiment.loading import load
from leaf.experiment.lock import hold
from leaf.experiment.outputs import write_outputs
from leaf.experiment.progress import BEAT, STATUS, Progress, note_failure, write_progress
from leaf.experiment.provenance import Execution, Session
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings
from leaf.experiment.tracking import Run, Tracking, Watch
from leaf.experiment.training import Training
from leaf.kernels import kernel_for
from leaf.names import ACTIVATIONS

ProgressCallback = Callable[[int, int, int], None]
"""Called with the epoch, from 1, the number of its finished minibatches, and the number of all its minibatches."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(frozen=True)
class Schedule:
    """Times at which the state is written: every ``epochs`` epochs, and ``minutes`` minutes after the last time."""

    epochs: int = 1
    minutes: float = 10


class Stopped(Exception):
    """A signal stopped the training, after the state was written. ``signal`` is the signal's number."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {where}, state written; the next run resumes")
        self.signal = number


def train_cell(
    cell: Cell,
    scale: str,
    settings: Settings,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    schedule: Schedule = Schedule(),
    progress: ProgressCallback = lambda epoch, step, steps: None,
    log: Callable[[str], None] = print,
    continues: str | None = None,
    tracking: Tracking | None = None,
) -> None:
    """Make the outputs of one cell, with as little training as necessary.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: number of threads for a new training; a resumed one keeps its number.
        precision: a name in ``PRECISIONS`` for a new training; a resumed one keeps its precision.
        schedule: times at which the state is written.
        progress: called after every minibatch.
        log: called with one line for each action.
        continues: another scale; its state of the cell is used if this scale has none that fits.
        tracking: the trackers to log to, if any. They do not affect results.

    Raises:
        UserError: if the data set, the device or a tracker is unavailable, memory runs out, or a file cannot be
            written.
        Stopped: if one of ``STOP_SIGNALS`` arrives during training.
    """
    directory = cell.directory(scale)
    with hold(directory, log):
        remove_parts(directory)
        try:
            run = read_run(directory)
        except DamagedError as damage:
            run = None
            log(str(damage))
        if run and not Identity.of(cell, scale, settings).differences(run.identity):
            for name in OUTPUTS:
                os.utime(directory / name)
            (directory / STATUS).unlink(missing_ok=True)
            log(f"{cell.name}: outputs are current, kept")
            return
        with _caught_signals() as caught, _noted_failure(directory), training_device(device) as chosen:
            try:
                job = _Job(cell, scale, settings, chosen, threads, precision, log, continues)
                with closing(job.watch):  # closed last: a slow network may delay it
                    job.start_trackers(tracking)
                    job.run(schedule, progress, caught)
            except torch.OutOfMemoryError as error:
                reason = str(error).split(". ")[0]
                raise UserError(f"{cell.name}: with minibatches of {settings.batch_size} images: {reason}") from None


def check_possible(execution: Execution, device: torch.device) -> None:
    """Check that a device supports an execution's precision and kernel.

    Raises:
        UserError: if it does not.
    """
    if execution.precision not in PRECISIONS:
        raise UserError(f"unknown precision {execution.precision!r}; known: {', '.join(PRECISIONS)}")
    if execution.precision.startswith("tf32") and device.type != "cuda":
        raise UserError(f"precision: {execution.precision} needs a GPU; choose float32 or bfloat16")
    if execution.precision != "float32" and device.type == "cuda" and not torch.cuda.is_tf32_supported():
        name = torch.cuda.get_device_name(device)
        raise UserError(f"precision: {name} supports neither tf32 nor bfloat16; choose float32")
    if execution.kernel not in ("reference", kernel_for(device)):
        raise UserError(
            f"the state was trained with the kernel {execution.kernel!r}, which is not available here; other kernels"
            f" round differently: install {execution.kernel}, or delete the state to start again"
        )


class _Job:
    """A cell's training and its files and trackers.

    Raises:
        UserError: as ``train_cell``, before the first minibatch.
    """

    def __init__(
        self,
        cell: Cell,
        scale: str,
        settings: Settings,
        device: torch.device,
        threads: int | None,
        precision: str,
        log: Callable[[str], None],
        continues: str | None,
    ) -> None:
        self.cell, self.scale, self.settings, self.log = cell, scale, settings, log
        self.directory, self.started = cell.directory(scale), time.time()
        for file in (self.directory / name for name in (*OUTPUTS, STATE, PREVIOUS)):
            if file.exists() and not file.is_file():
                raise UserError(f"{file}: is not a file; remove it")
        self.sessions = [Session.start(device_name(device))]
        self.epochs = cell.epochs(settings.epochs)
        check_cell(cell)
        weights = self._take_parent()
        self.identity = Identity.of(cell, scale, settings, device)
        state, of_scale = self._load_state(continues)
        kernel = kernel_for(device) if ACTIVATIONS[cell.activation].fused else "reference"
        chosen = Execution(threads or torch.get_num_threads(), kernel, precision)
        self.execution = Execution.from_json(state["execution"]) if state else chosen
        check_possible(self.execution, device)
        torch.set_num_threads(self.execution.threads)
        settings.check_images(cell.dataset, DATASETS[cell.dataset].images, "settings: ")
        data = load(cell.dataset, dataset_file(cell.dataset), settings.train_images, settings.test_images)
        self.training = Training(cell, settings, data, device, self.execution.kernel, self.execution.precision, weights)
        if state:
            self.sessions[:0] = (Session(**earlier) for earlier in state["sessions"])
            self.training.load_state_dict(state["training"])
            kept = [f"{key} {value}" for key, value in vars(self.execution).items() if value != vars(chosen)[key]]
            as_before = f", with {', '.join(kept)} as before" if kept else ""
            log(f"{cell.name}: resumes {self.where}{of_scale}{as_before}")
        self.saved = self.where if state else None
        self.saved_at = self.reported_at = time.monotonic()
        self.watch = Watch(log)

    def _load_state(self, continues: str | None) -> tuple[dict[str, Any] | None, str]:
        """Load the state to resume from, if one fits, and a phrase that names its scale if it is another one."""
        for scale in filter(None, (self.scale, continues)):
            state, refused = load_state(self.cell.directory(scale), self.identity)
            for line in refused:
                self.log(line)
            if state:
                return state, "" if scale == self.scale else f" of the scale {scale}"
        return None, ""

    def _take_parent(self) -> dict[str, torch.Tensor] | None:
        """Load the final weights of the cell's parent, if it has one.

        Raises:
            UserError: if the parent has no current results.
        """
        if not (parent := self.cell.parent):
            return None
        directory = parent.directory(self.scale)
        run = read_run(directory)
        if not run or Identity.of(parent, self.scale, self.settings).differences(run.identity):
            found = "is stale" if run else "has no results"
            raise UserError(
                f"{self.cell.name}: its parent {parent.name} {found} at scale {self.scale};"
                f" run 'leaf train {parent.name}' first"
            )
        return safetensors.torch.load_file(directory / "model.safetensors")

    @property
    def where(self) -> str:
        """Position of the training as a phrase, such as ``after epoch 3, minibatch 20``."""
        partial = self.training.partial
        minibatch = f", minibatch {len(partial.losses)}" if partial else ""
        return f"after epoch {self.training.epochs_done}{minibatch}"

    def start_trackers(self, tracking: Tracking | None) -> None:
        """Start the trackers, unless training is finished."""
        about = {
            **asdict(self.cell), "scale": self.scale, **self.identity.settings,
            "training_version": self.identity.training_version, "device": self.identity.device,
            **asdict(self.execution),
        }  # fmt: skip
        if tracking and not self.training.finished:
            self.watch.start(tracking, Run(self.cell, self.scale, about, len(self.training.records) + 1))

    def run(self, schedule: Schedule, progress: ProgressCallback, caught: list[int]) -> None:
        """Train to the end and write the outputs. After a signal, write the state and raise ``Stopped``."""

        def after_minibatch(step: int, steps: int) -> None:
            progress(self.training.epochs_done + 1, step, steps)
            if caught or time.monotonic() - self.saved_at > 60 * schedule.minutes:
                self.save()
            if caught:
                self.report(stopped=signal.Signals(caught[0]).name)
                raise Stopped(caught[0], self.where)
            if time.monotonic() - self.reported_at > BEAT:
                self.report()

        self.report()
        while not self.training.finished:
            self.watch.observe(self.training.run_epoch(after_minibatch), self.training.network)
            if self.training.finished or len(self.training.records) % schedule.epochs == 0:
                self.save()
            self.report()
        write_outputs(
            self.directory, self.cell, self.training, self.identity, self.scale, self.execution, self.sessions
        )
        for name in (PREVIOUS, STATUS):
            (self.directory / name).unlink(missing_ok=True)
        last = self.training.records[-1]
        end = f"{len(self.training.records)} epochs"
        if self.training.diverged:
            end = f"diverged at epoch {last.epoch}, first in {self.training.nonfinite_layer}"
        self.log(f"{self.cell.name}: {end}, test accuracy {last.test_accuracy:.2%}")

    def save(self) -> None:
        """Write the state, then log its epochs, which will not be trained again."""
        self.sessions[-1].seconds = round(time.time() - self.started, 3)
        state = {
            "identity": asdict(self.identity),
            "execution": asdict(self.execution),
            "sessions": [asdict(session) for session in self.sessions],
            "training": self.training.state_dict(),
        }
        save_state(self.directory, state)
        self.saved, self.saved_at = self.where, time.monotonic()
        self.watch.flush()

    def report(self, stopped: str | None = None) -> None:
        """Write the progress to ``status.json``."""
        training = self.training
        now = Progress(
            epoch=training.epochs_done,
            minibatch=len(training.partial.losses) if training.partial else 0,
            minibatches=training.minibatches,
            test_accuracy=training.records[-1].test_accuracy if training.records else None,
            saved=self.saved,
            identity=self.identity,
            stopped=stopped,
        )
        if trained := now.epochs_done - self.epochs.start:
            before = sum(session.seconds for session in self.sessions[:-1])
            now = replace(now, seconds_per_epoch=(before + time.time() - self.started) / trained)
        write_progress(self.directory, now)
        self.reported_at = time.monotonic()


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collect the numbers of stop signals in a list instead of ending the process."""
    caught: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in STOP_SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _noted_failure(directory: Path) -> Iterator[None]:
    """Record the reason of a failure in ``status.json``. A stop by a signal is not a failure."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, Stopped):
            note_failure(directory, error)
        raise
