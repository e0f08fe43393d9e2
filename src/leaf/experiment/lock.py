"""A cell's lock: held by whoever trains it or removes its files. The kernel gives it back when its holder dies."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leaf.experiment.errors import UserError

LOCK = "lock"


@contextmanager
def hold(directory: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of a cell's directory, which is made if needed. Where the file system has no locks, go on without.

    Args:
        say: told in a line that someone else holds it; then it is waited for.

    Raises:
        UserError: if the directory cannot be written to, or someone else holds the lock and ``say`` is not given.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        opened = (directory / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"{directory}: cannot write there: {error}") from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            held = f"{directory}: held by {lock.read().strip() or 'another process'}"
            if say is None:
                raise UserError(f"{held}; end it, or wait for it") from None
            say(f"{held}, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if say:
                say(f"{directory}: cannot be locked ({error.strerror}); nobody else may train this cell now")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def is_held(directory: Path) -> bool | None:
    """Whether someone holds the lock of a cell's directory; ``None`` where the file system has no locks.

    On a file system that machines share, this one may not see the others' locks.
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
