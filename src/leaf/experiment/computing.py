"""How torch computes in a process that trains: deterministically, with memory kept at hand, in a precision."""

import ctypes
import os
from typing import Any

import torch
from torch import Tensor

from leaf.networks import Network

PRECISIONS = {
    "float32": "every number and product",
    "tf32": "GPUs alone: convolutions and matrix products round their inputs to 10 bits",
    "tf32-convolutions": "GPUs alone: convolutions round their inputs to 10 bits, as torch does by default",
    "bfloat16": "convolutions and matrix products compute in bfloat16, weights and activations stay float32",
}
"""What a cell can be trained in, by name."""


def make_deterministic() -> None:
    """Let torch use deterministic algorithms only, and spare it filling memory that is about to be written."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next minibatch, which asks for as much again.

    glibc gives large blocks back to the system at once, and each page that comes back is filled with zeros first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(top_pad, 2**26)


def compute_in(precision: str, network: Network, device: torch.device) -> None:
    """Let a network on a device compute in one of the ``PRECISIONS``; what it gives is float32 or wider.

    TF32 is switched for the whole process: the network that was prepared last decides.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "tf32-convolutions")
    if precision == "bfloat16":
        exact = network.forward

        def forward(*arguments: Any, **options: Any) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return exact(*arguments, **options).float()

        network.forward = forward  # type: ignore[method-assign]
