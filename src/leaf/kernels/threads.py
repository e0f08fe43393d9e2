"""How many threads a kernel on a CPU computes with. Any number of them gives the same bits."""

import os
import sys

import torch

may_start = sys.platform != "darwin"
"""Whether the kernel may start threads: not on macOS, where its OpenMP next to torch's would end the program, nor
in a process that was forked, which inherits OpenMP's state but none of its threads."""


def allowed() -> int:
    """Torch's number of threads, or 1 where none may be started."""
    return torch.get_num_threads() if may_start else 1


def _after_fork_in_child() -> None:
    global may_start
    may_start = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
