"""A cell's lock, held while it is trained or its files are removed. The operating system releases it on exit."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leaf.experiment.errors import UserError

LOCK = "lock"


@contextmanager
def hold(directory: Path, log: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of a cell's directory. Create the directory if it is missing.

    On a file system without locks, continue without one.

    Args:
        log: called with one line before waiting for a lock that another process holds. Default: do not wait.

    Raises:
        UserError: if the directory is not writable, or another process holds the lock and there is no ``log``.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        opened = (directory / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to: {error}") from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            held = f"{directory}: held by {lock.read().strip() or 'another process'}"
            if log is None:
                raise UserError(f"{held}; end it, or wait for it") from None
            log(f"{held}, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if log:
                log(f"{directory}: cannot be locked ({error.strerror}); no other process may train this cell")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def is_held(directory: Path) -> bool | None:
    """Return whether a process holds the lock of a cell's directory; ``None`` if the file system has no locks.

    On a shared file system, locks held on other machines may be invisible.
    """
    try:
        with (directory / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False
