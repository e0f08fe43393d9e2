"""Torch's settings for training: deterministic algorithms, memory allocation and precision."""

import ctypes
import os
from typing import Any

import torch
from torch import Tensor

from leaf.networks import Network

PRECISIONS = {
    "float32": "all numbers and products",
    "tf32": "GPUs only: convolutions and matrix products round their inputs to 10 bits",
    "tf32-convolutions": "GPUs only: convolutions round their inputs to 10 bits, as torch does by default",
    "bfloat16": "convolutions and matrix products compute in bfloat16, weights and activations stay float32",
}
"""Precisions by name."""


def make_deterministic() -> None:
    """Make torch use only deterministic algorithms, without filling uninitialized memory."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next minibatch, which needs the same amount.

    By default glibc returns large blocks to the operating system, which zeroes each page before it reuses it.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(top_pad, 2**26)


def compute_in(precision: str, network: Network, device: torch.device) -> None:
    """Make a network compute in one of the ``PRECISIONS``. Its output is float32 or wider.

    TF32 is a setting of the whole process, so that the last call determines it.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "tf32-convolutions")
    if precision == "bfloat16":
        exact = network.forward

        def forward(*arguments: Any, **options: Any) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return exact(*arguments, **options).float()

        network.forward = forward  # type: ignore[method-assign]
