"""Read and verify the files of data sets."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from leaf.experiment.datasets import ARRAYS, DATASETS, Arrays
from leaf.experiment.errors import UserError


@dataclass(frozen=True)
class Data:
    """A data set, or the first images of it, in memory.

    Attributes:
        train_images, test_images: uint8, ``(N, C, H, W)``.
        train_labels, test_labels: int64, ``(N,)``.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: torch.device) -> "Data":
        """Copy the data to a device."""
        return Data(*(tensor.to(device) for tensor in vars(self).values()))


def differences(name: str, arrays: Arrays) -> list[str]:
    """Describe each difference between arrays and the data set ``name``. The list is empty if there is none."""
    dataset, found = DATASETS[name], []
    for array_name, expected in dataset.sha256.items():
        split, kind = array_name.split("_")
        shape = (dataset.images[split], *(dataset.image_shape if kind == "images" else ()))
        array = arrays.get(array_name)
        if array is None:
            found.append(f"{array_name} missing")
        elif array.dtype != np.uint8 or array.shape != shape:
            found.append(f"{array_name} is {array.dtype}{list(array.shape)}, not uint8{list(shape)}")
        elif (digest := hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()) != expected:
            right = f"not {expected}" if expected else "its definition has none"
            found.append(f"{array_name} has SHA-256 {digest}, {right}")
    return found


def load(name: str, file: Path, train_images: int | None = None, test_images: int | None = None) -> Data:
    """Read a data set from its file and verify all its arrays.

    Args:
        name: a name in ``DATASETS``.
        file: the safetensors file.
        train_images, test_images: number of images to keep, from the first; ``None`` for all.

    Raises:
        UserError: if the file is missing, unreadable, or not this data set.
    """
    advice = f"delete it and run 'leaf fetch {name}'"
    if not file.is_file():
        raise UserError(f"data set {name}: {file} is missing; run 'leaf fetch {name}'")
    try:
        arrays = safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"data set {name}: {file} cannot be read ({error}); {advice}") from None
    if found := differences(name, arrays):
        raise UserError(f"data set {name}: {file} is not the original: {'; '.join(found)}; {advice}")
    count = {"train": train_images, "test": test_images}
    first = {key: torch.from_numpy(arrays[key][: count[key.split("_")[0]]].copy()) for key in ARRAYS}
    return Data(**{key: tensor.long() if key.endswith("labels") else tensor for key, tensor in first.items()})
