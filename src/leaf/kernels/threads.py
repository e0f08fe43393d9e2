"""Number of threads of the CPU kernel. Any number gives the same bits."""

import os
import sys

import torch

may_start = sys.platform != "darwin"
"""``False`` if the kernel must not start threads: on macOS, where a second OpenMP library ends the program, and in a
forked process, which inherits OpenMP's state without its threads."""


def allowed() -> int:
    """Return torch's number of threads, or 1 if the kernel must not start threads."""
    return torch.get_num_threads() if may_start else 1


def _after_fork_in_child() -> None:
    global may_start
    may_start = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
