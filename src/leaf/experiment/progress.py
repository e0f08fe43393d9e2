"""What a cell tells of itself until it has its outputs: ``status.json``, for whoever watches files.

A cell in training writes it anew every ``BEAT`` seconds, so that another machine can tell from its age whether the cell
still trains; it stays when training ends early, with the reason, and goes when the outputs are there.
"""

import contextlib
import json
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from leaf.experiment.errors import UserError
from leaf.experiment.files import write_text
from leaf.experiment.identity import Identity
from leaf.experiment.lock import is_held
from leaf.experiment.provenance import timestamp

STATUS = "status.json"

BEAT = 30
"""Seconds after which a cell in training writes its status again, at the next minibatch."""

SILENCE = 300
"""Seconds without a word after which a cell on another machine is taken to have ended."""


@dataclass(frozen=True)
class Progress:
    """How far a cell's training is, or how it ended early.

    Attributes:
        epoch: epochs done.
        minibatch, minibatches: those done in the epoch under way, and in an epoch.
        test_accuracy: after the last epoch, a share in [0, 1]; ``None`` before the first.
        seconds_per_epoch: wall time so far, over all sessions; ``None`` if nothing was trained.
        saved: where its state on disk goes on from, in words; ``None`` if there is none.
        identity: what makes the results that it trains for.
        stopped: the name of the signal that ended it.
        failure: why it failed, in a line.
        host: the machine it is on.
        updated: when this was written, in UTC.
    """

    epoch: int = 0
    minibatch: int = 0
    minibatches: int = 0
    test_accuracy: float | None = None
    seconds_per_epoch: float | None = None
    saved: str | None = None
    identity: Identity | None = None
    stopped: str | None = None
    failure: str | None = None
    host: str = ""
    updated: str = ""

    @property
    def epochs_done(self) -> float:
        """Epochs done, the one under way in part."""
        return self.epoch + (self.minibatch / self.minibatches if self.minibatches else 0)

    @property
    def silence(self) -> float:
        """Seconds since this was written."""
        return max(0.0, time.time() - datetime.fromisoformat(self.updated).timestamp())


def write_progress(directory: Path, progress: Progress) -> None:
    """Write a cell's ``status.json``, with the present machine and time.

    Raises:
        UserError: if it cannot be written.
    """
    here = replace(progress, host=socket.gethostname(), updated=timestamp(time.time()))
    write_text(directory / STATUS, json.dumps(asdict(here)) + "\n")


def read_progress(directory: Path) -> Progress | None:
    """What a cell's ``status.json`` tells; ``None`` if there is none that can be read."""
    try:
        values = json.loads((directory / STATUS).read_text(encoding="utf-8"))
        identity = _identity(values)
        progress = Progress(**{**values, "identity": identity})
        datetime.fromisoformat(progress.updated)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return progress


def _identity(values: dict[str, Any]) -> Identity | None:
    """The identity in a ``status.json``; commit 2790cbb wrote settings and training version only."""
    settings, version = values.pop("settings", None), values.pop("training_version", None)
    if settings:
        return Identity(None, settings, version)
    return Identity(**values["identity"]) if values.get("identity") else None


def note_failure(directory: Path, error: Exception) -> None:
    """Leave the reason beside a cell's files, with how far it was, if the disk still takes it."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".rstrip(": ")
    progress = read_progress(directory) or Progress()
    with contextlib.suppress(UserError):
        write_progress(directory, replace(progress, failure=" ".join(reason.split())))


def drop_progress(directory: Path) -> None:
    """Remove the status of a cell that is finished."""
    (directory / STATUS).unlink(missing_ok=True)


def is_training(directory: Path, progress: Progress | None) -> bool:
    """Whether someone trains the cell now, as far as files can tell.

    On this machine the cell's lock tells. Of another machine the lock may not be seen, nor its processes: what it wrote
    lately tells.

    Args:
        progress: what ``read_progress`` gave.
    """
    held = is_held(directory)
    if held or progress is None or (held is False and progress.host == socket.gethostname()):
        return bool(held)
    return not (progress.stopped or progress.failure) and progress.silence < SILENCE
