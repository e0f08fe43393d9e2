"""Number of threads of the CPU kernel. Any number gives the same bits."""

import os
import sys

import torch

may_start = sys.platform != "darwin"
"""Whether the kernel may start threads. It may not on macOS, where a second OpenMP next to torch's ends the program,
and not in a forked process, which inherits OpenMP's state without its threads."""


def allowed() -> int:
    """Torch's number of threads, or 1 if none may be started."""
    return torch.get_num_threads() if may_start else 1


def _after_fork_in_child() -> None:
    global may_start
    may_start = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
