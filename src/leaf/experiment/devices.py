"""Which device a cell trains on, and how cells that train at the same time share a machine's GPUs."""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from leaf.experiment.errors import UserError
from leaf.experiment.provenance import cpu_name


def device_name(device: torch.device) -> str:
    """The make of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


@contextmanager
def training_device(name: str) -> Iterator[torch.device]:
    """The device of a configuration's ``device``, to be used while the context lasts.

    Of several GPUs it is the one that the fewest cells train on. How many may train there at a time is Snakemake's
    matter (the resource ``gpu_cells``); only CUDA_VISIBLE_DEVICES, as SLURM sets it, keeps a GPU out of the choice.

    Raises:
        UserError: if there is no such device, or a GPU is demanded and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is demanded, but torch finds no GPU here; choose auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    gpus = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    with seat(gpus) as index, torch.cuda.device(index):  # whose generator is the one that a state holds
        yield torch.device("cuda", index)


def _open_no_link(path: str, flags: int) -> int:
    """For ``open``, where others may have put something: never what a symbolic link points to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


@contextmanager
def seat(gpus: Sequence[str]) -> Iterator[int]:
    """Index of the GPU that the fewest processes have a seat at, one of which is held while the context lasts.

    A seat is a locked file in the machine's directory for temporary files. The kernel gives it back when its holder
    dies, so that a killed job takes up no place.

    Args:
        gpus: names that every process on this machine knows the GPUs by.
    """
    directory = Path(tempfile.gettempdir(), f"leaf-seats-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    for row in itertools.count():
        for index, gpu in enumerate(gpus):
            with open(directory / f"{gpu}-{row}", "a", opener=_open_no_link) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield index
                return
