"""Progress of a cell's training in ``status.json``, for ``leaf status``.

A running training rewrites the file every ``BEAT`` seconds, so that other machines can see by its age that it runs. If
training ends early, the file remains and holds the reason. Otherwise it is removed when the outputs are complete.
"""

import contextlib
import json
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from leaf.experiment.errors import UserError
from leaf.experiment.files import write_text
from leaf.experiment.identity import Identity
from leaf.experiment.lock import is_held
from leaf.experiment.provenance import timestamp

STATUS = "status.json"

BEAT = 30
"""Seconds after which a running training rewrites its status, at the end of a minibatch."""

SILENCE = 300
"""Seconds without an update after which training on another machine counts as ended."""


@dataclass(frozen=True)
class Progress:
    """Progress of a cell's training, and the reason if it ended early.

    Attributes:
        epoch: number of finished epochs.
        minibatch, minibatches: number of finished minibatches of the current epoch, and of all minibatches of an epoch.
        test_accuracy: test accuracy after the last finished epoch, in [0, 1]; ``None`` before the first.
        seconds_per_epoch: mean wall time of an epoch in all sessions; ``None`` if nothing was trained.
        saved: position of the state on disk, such as ``after epoch 3``; ``None`` if there is none.
        identity: identity of the results in training.
        stopped: name of the signal that stopped it, if any.
        failure: reason of its failure in one line, if any.
        host: name of the machine.
        updated: date and time of this update in UTC, in ISO 8601.
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
        """Number of finished epochs, including the fraction of the current one."""
        return self.epoch + (self.minibatch / self.minibatches if self.minibatches else 0)


def write_progress(directory: Path, progress: Progress) -> None:
    """Write a cell's ``status.json``, with the current machine and time.

    Raises:
        UserError: if it cannot be written.
    """
    here = replace(progress, host=socket.gethostname(), updated=timestamp())
    write_text(directory / STATUS, json.dumps(asdict(here)) + "\n")


def read_progress(directory: Path) -> Progress | None:
    """Read a cell's ``status.json``; ``None`` if it is missing or unreadable."""
    try:
        values = json.loads((directory / STATUS).read_text(encoding="utf-8"))
        if values["identity"]:
            values["identity"] = Identity.from_json(values["identity"])
        progress = Progress(**values)
        datetime.fromisoformat(progress.updated)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return progress


def note_failure(directory: Path, error: Exception) -> None:
    """Add the reason of a failure to ``status.json``. If the file cannot be written, do nothing."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".rstrip(": ")
    progress = read_progress(directory) or Progress()
    with contextlib.suppress(UserError):
        write_progress(directory, replace(progress, failure=" ".join(reason.split())))


def is_training(directory: Path, progress: Progress | None) -> bool:
    """Return whether the cell is being trained, according to its files.

    If it trains on this machine, its lock is held. Locks of other machines may be invisible; for these, the last update
    of the status must be recent.

    Args:
        progress: the result of ``read_progress``.
    """
    held = is_held(directory)
    if held or progress is None or (held is False and progress.host == socket.gethostname()):
        return bool(held)
    silence = time.time() - datetime.fromisoformat(progress.updated).timestamp()
    return not (progress.stopped or progress.failure) and silence < SILENCE
