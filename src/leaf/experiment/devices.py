"""Select the device that a cell trains on, and distribute concurrent cells over the GPUs of a machine."""

import fcntl
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from leaf.experiment.errors import UserError
from leaf.experiment.provenance import cpu_name


def device_name(device: torch.device) -> str:
    """Return the model name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


NO_MPS = (
    "several cells share this GPU by time slicing: start NVIDIA's multi-process service once per machine with"
    " 'nvidia-cuda-mps-control -d'"
)


@contextmanager
def training_device(name: str) -> Iterator[torch.device]:
    """Select the device for the configuration's ``device``, to be used within the context.

    Of several GPUs, select the one with the fewest cells. Snakemake's resource ``gpu_cells`` limits their number. Only
    CUDA_VISIBLE_DEVICES, which SLURM sets, excludes a GPU.

    Raises:
        UserError: if the name is unknown, or ``"cuda"`` is requested and there is no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is requested, but torch finds no GPU; choose auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    gpus = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    with gpu_slot(gpus) as (index, others), torch.cuda.device(index):  # a state holds the current device's generator
        if others and not mps_runs():
            warnings.warn(NO_MPS, stacklevel=3)
        yield torch.device("cuda", index)


def mps_runs() -> bool:
    """Return whether NVIDIA's multi-process service (MPS) runs, according to the pipe of its clients."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()


def _open_no_link(path: str, flags: int) -> int:
    """Opener for ``open`` that rejects symbolic links, which other users may have created."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


@contextmanager
def gpu_slot(gpus: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Hold a slot on the GPU with the fewest taken slots.

    A slot is a locked file in the machine's directory for temporary files. The operating system releases the lock when
    its process ends, so that a killed job holds no slot.

    Args:
        gpus: names of the GPUs, equal in all processes on this machine.

    Yields:
        The index of the GPU, and the number of its slots that were taken before.
    """
    directory = Path(tempfile.gettempdir(), f"leaf-gpu-slots-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    for row in itertools.count():
        for index, gpu in enumerate(gpus):
            with open(directory / f"{gpu}-{row}", "a", opener=_open_no_link) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield index, row
                return
