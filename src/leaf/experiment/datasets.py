"""The data sets: what each one is, to the last byte, and how its file is read.

A data set is one safetensors file with four uint8 tensors: images ``(N, C, H, W)`` and labels ``(N,)``, for training
and for testing. Whoever made the file, its contents must have the known SHA-256.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from leaf.experiment.errors import UserError
from leaf.networks import ImageShape
from leaf.registry import Registry

Arrays = dict[str, np.ndarray]
"""uint8 arrays by the names in ``ARRAYS``."""


@dataclass(frozen=True)
class Dataset:
    """What the project knows of a data set.

    Attributes:
        title: its name in tables.
        image_shape: ``(C, H, W)`` of one image.
        classes: how many there are; labels are below that.
        images: how many for ``"train"`` and for ``"test"``.
        sha256: of the bytes of each of the four arrays, by name.
        read: gives its arrays, if ``leaf.experiment.fetching`` doesn't know where they come from; called with the
            user's directory of data sets, or ``None``.
    """

    title: str
    image_shape: ImageShape
    classes: int
    images: dict[str, int]
    sha256: dict[str, str]
    read: Callable[[Path | None], Arrays] | None = None


FETCHED = ("fashion_mnist", "cifar10")
"""The data sets whose sources ``leaf.experiment.fetching`` knows; any other has its own ``read``."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def _check(name: str, kind: Any) -> None:
    """See that a data set can be registered.

    Raises:
        UserError: if not.
    """
    if not isinstance(kind, Dataset):
        raise UserError(f"dataset {name!r} is no Dataset")
    if kind.read is None and name not in FETCHED:
        raise UserError(f"dataset {name!r} has no read, which would give its arrays")
    if set(kind.images) != {"train", "test"} or set(kind.sha256) != set(ARRAYS):
        raise UserError(f"dataset {name!r}: images needs the keys train and test, sha256 {', '.join(ARRAYS)}")


DATASETS: Registry[Dataset] = Registry("dataset", _check)
"""Every data set of the grid, by name."""

DATASETS.register(
    "fashion_mnist",
    Dataset(
        title="Fashion-MNIST",
        image_shape=(1, 28, 28),
        classes=10,
        images={"train": 60_000, "test": 10_000},
        sha256={
            "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
    ),
)
DATASETS.register(
    "cifar10",
    Dataset(
        title="CIFAR-10",
        image_shape=(3, 32, 32),
        classes=10,
        images={"train": 50_000, "test": 10_000},
        sha256={
            "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        },
    ),
)

DIRECTORY = Path("resources/datasets")


def dataset_file(name: str) -> Path:
    """Where a data set's file lies, relative to the working directory."""
    return DIRECTORY / f"{name}.safetensors"


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
        """The same on a device."""
        return Data(*(tensor.to(device) for tensor in vars(self).values()))


def differences(name: str, arrays: Arrays) -> list[str]:
    """How arrays differ from the data set that they claim to be, one phrase each; empty if not at all."""
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
            found.append(f"{array_name} has SHA-256 {digest}, not {expected or 'given'}")
    return found


def load(name: str, file: Path, train_images: int | None = None, test_images: int | None = None) -> Data:
    """Read a data set from its file and verify all of it.

    Args:
        name: a name in ``DATASETS``.
        file: the safetensors file.
        train_images, test_images: keep the first so many; ``None`` for all.

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
    first = {key: torch.from_numpy(array[: count[key.split("_")[0]]].copy()) for key, array in arrays.items()}
    return Data(
        train_images=first["train_images"],
        train_labels=first["train_labels"].long(),
        test_images=first["test_images"],
        test_labels=first["test_labels"].long(),
    )
