"""Status of a grid, determined from its files on any machine that can read them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from typing import Any

from leaf.experiment.cells import Cell, has_state
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.identity import Identity
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.progress import Progress, is_training, read_progress
from leaf.experiment.runs import Run, read_run
from leaf.experiment.scales import Settings
from leaf.names import ACTIVATIONS

RUNNING, INTERRUPTED, FAILED, DAMAGED = "running", "interrupted", "failed", "damaged"
STALE, DIVERGED, WAITING, DONE = "stale", "diverged", "waiting", "done"
STATUSES = {
    RUNNING: "training now",
    INTERRUPTED: "training ended early; the next run resumes it",
    FAILED: "training ended with an error; the next run tries again",
    DAMAGED: "its files differ from those that its run wrote",
    STALE: "made with other settings or another training version",
    DIVERGED: "the loss became NaN or infinite, which is a result",
    WAITING: "not started",
    DONE: "finished",
}
"""Statuses of a cell with their meaning, in the order of the report."""

PART = 50
"""Number of cells per task of the thread pool, since a task costs more than the status of one cell."""


@dataclass(frozen=True)
class CellStatus:
    """Status of one cell.

    Attributes:
        status: a key of ``STATUSES``.
        detail: a description.
        epochs_left: number of epochs left to train; fractional within an epoch.
        seconds_per_epoch: mean wall time of an epoch of this cell, if known.
    """

    cell: Cell
    status: str
    detail: str = ""
    epochs_left: float = 0
    seconds_per_epoch: float | None = None


def outcome(run: Run, wanted: Identity) -> str:
    """Return the status of a finished cell: ``DONE``, ``DIVERGED`` or ``STALE``."""
    if wanted.differences(run.identity):
        return STALE
    return DIVERGED if run.diverged_at else DONE


def look(
    cells: Iterable[Cell], scale: str, settings: Settings, continues: str | None = None, device: str = "auto"
) -> list[CellStatus]:
    """Determine the status of every cell.

    Args:
        scale, settings: the name of the scale and its settings.
        continues: name of a scale from whose states the cells may resume.
        device: the device that the cells would train on; ``"auto"`` accepts states of any device.
    """
    cells = list(cells)
    parts = [cells[start : start + PART] for start in range(0, len(cells), PART)]
    with ThreadPoolExecutor() as pool:  # many small files, perhaps on a slow disk
        found = pool.map(lambda part: [_look(cell, scale, settings, continues, device) for cell in part], parts)
        return list(chain.from_iterable(found))


def _look(cell: Cell, scale: str, settings: Settings, continues: str | None, device: str) -> CellStatus:
    try:
        epochs = cell.epochs(settings.epochs)
    except UserError as error:
        return CellStatus(cell, FAILED, str(error))
    directory = cell.directory(scale)
    run, damage = None, None
    try:
        run = read_run(directory, by_time=True)
    except DamagedError as error:
        damage = str(error)
    wanted = Identity.of(cell, scale, settings, device)
    of_any_device = replace(wanted, device=None)
    differences = of_any_device.differences(run.identity) if run else []
    if run and not differences:
        seconds = sum(session.seconds for session in run.sessions) / run.epochs
        return CellStatus(cell, outcome(run, of_any_device), _end(run), 0, seconds or None)
    progress = read_progress(directory)
    training = is_training(directory, progress)
    if progress:
        return _under_way(cell, scale, wanted, epochs, progress, training)
    if training:
        return CellStatus(cell, RUNNING, "starting", len(epochs))
    if damage:
        return CellStatus(cell, DAMAGED, damage)
    if run:
        return CellStatus(cell, STALE, f"made with {', '.join(differences)}")
    if has_state(directory):
        return CellStatus(cell, INTERRUPTED, "without status.json; resumes from its state", len(epochs))
    if continues and (done := _done_before(cell, wanted, continues)):
        where = f"resumes after epoch {epochs.start + done} of the scale {continues}"
        return CellStatus(cell, WAITING, where, max(0, len(epochs) - done))
    return CellStatus(cell, WAITING, "", len(epochs))


def _under_way(
    cell: Cell, scale: str, wanted: Identity, epochs: range, progress: Progress, training: bool
) -> CellStatus:
    """Determine the status of a cell that has a ``status.json`` and no current outputs."""
    made = progress.identity if progress.saved and has_state(cell.directory(scale)) else None
    resumes = training or bool(made and not wanted.obstacles(made, progress.epoch - epochs.start))
    left = min(len(epochs), max(0, epochs.stop - progress.epochs_done)) if resumes else len(epochs)
    if training:
        return CellStatus(cell, RUNNING, _how_far(progress, epochs, left), left, progress.seconds_per_epoch)
    next_run = f"resumes {progress.saved}" if resumes else "starts again"
    if progress.failure:
        return CellStatus(cell, FAILED, f"{progress.failure}; {next_run}", left, progress.seconds_per_epoch)
    how = f"stopped by {progress.stopped}" if progress.stopped else "ended for an unknown reason"
    where = f"in {_place(progress, epochs)}, on {progress.host}"
    return CellStatus(cell, INTERRUPTED, f"{how} {where}; {next_run}", left, progress.seconds_per_epoch)


def _done_before(cell: Cell, wanted: Identity, scale: str) -> int:
    """Return the number of finished epochs at another scale from whose state training can resume, else 0."""
    directory = cell.directory(scale)
    try:
        run = read_run(directory) if has_state(directory) else None
    except DamagedError:
        return 0
    return run.epochs if run and not wanted.obstacles(run.identity, run.epochs) else 0


def _end(run: Run) -> str:
    if run.diverged_at:
        return f"at epoch {run.diverged_at}, first in {run.nonfinite_layer}"
    return f"{run.epochs} epochs in {duration(run.train_seconds)} on {run.device}"


def _place(progress: Progress, epochs: range) -> str:
    minibatch = f", minibatch {progress.minibatch}/{progress.minibatches}" if progress.minibatch else ""
    return f"epoch {min(progress.epoch + 1, epochs.stop)}/{epochs.stop}{minibatch}"


def _how_far(progress: Progress, epochs: range, left: float) -> str:
    parts = [_place(progress, epochs)]
    if progress.test_accuracy is not None:
        parts.append(f"accuracy {progress.test_accuracy:.2%}")
    if progress.seconds_per_epoch:
        parts.append(f"{duration(left * progress.seconds_per_epoch)} left")
    return ", ".join([*parts, f"on {progress.host}"])


def summarize(found: Sequence[CellStatus], scale: str, everything: bool = False) -> Iterator[str]:
    """Yield the lines of the report: numbers of cells, the time left, and the cells that need attention.

    Args:
        found: the result of ``look``.
        everything: also list the cells that are done or waiting.
    """
    count = Counter(one.status for one in found)
    yield ", ".join([f"{scale}: {len(found)} cells", *(f"{count[s]} {s}" for s in reversed(STATUSES) if count[s])])
    yield from _time_left(found, count[RUNNING])
    for status in STATUSES:
        if everything or status not in (WAITING, DONE):
            for one in found:
                if one.status == status:
                    yield f"{status:12}{one.cell.name}{one.detail and f': {one.detail}'}"


def _time_left(found: Sequence[CellStatus], running: int) -> Iterator[str]:
    """Estimate the remaining training time from the epochs of cells of the same kind."""
    unfinished = [one for one in found if one.epochs_left]
    known: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for one in found:
        if one.seconds_per_epoch:
            for kind in _kinds(one.cell):
                known[kind].append(one.seconds_per_epoch)
    if unfinished and not known:
        yield "time left: unknown until a cell has trained"
    elif unfinished:
        means = {kind: fmean(seconds) for kind, seconds in known.items()}
        nearest = [next(means[kind] for kind in _kinds(one.cell) if kind in means) for one in unfinished]
        total = sum(one.epochs_left * seconds for one, seconds in zip(unfinished, nearest, strict=True))
        at_a_time = f", {duration(total / running)} with {running} cells at a time, as now" if running > 1 else ""
        yield f"about {duration(total)} of training left{at_a_time}"


def _kinds(cell: Cell) -> list[tuple[Any, ...]]:
    """Return kinds of cells with similar times per epoch, from the most specific to that of all cells."""
    kind = (cell.network, cell.dataset, ACTIVATIONS[cell.activation].family, PROCEDURES[cell.procedure].two_stage)
    return [kind, kind[:2], kind[:1], ()]


def duration(seconds: float) -> str:
    """Format a duration with about two digits."""
    for unit, size, least in (("days", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * size:
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{seconds:.0f} s"
