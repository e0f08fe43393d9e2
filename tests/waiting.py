"""Waits with a time limit, whose errors name the condition."""

import subprocess
import time
from collections.abc import Callable


def wait_until(done: Callable[[], bool], what: str, seconds: float = 60, every: float = 0.05) -> None:
    """Wait until a condition holds.

    Args:
        done: the condition.
        what: the condition in words.
        seconds: how long to wait at most.
        every: the time between two checks, in seconds.

    Raises:
        TimeoutError: if it doesn't hold in time.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


def wait_for_end(process: subprocess.Popen, what: str, seconds: float = 60) -> int:
    """Wait for a process to end, and return its exit status. It is killed if it does not end in time.

    Raises:
        TimeoutError: if it doesn't end in time.
    """
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        raise TimeoutError(f"waited {seconds:g} s for {what} to end") from None
