"""Definitions of the data sets, with checksums; ``leaf.experiment.loading`` reads their files.

A data set is a safetensors file with four uint8 tensors: images ``(N, C, H, W)`` and labels ``(N,)``, for training and
for testing. The arrays must have the known SHA-256, from whichever source they come.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaf.experiment.errors import UserError
from leaf.names import ImageShape
from leaf.registry import Registry

if TYPE_CHECKING:
    import numpy as np

Arrays = dict[str, "np.ndarray"]
"""uint8 arrays by the names in ``ARRAYS``."""


@dataclass(frozen=True)
class Dataset:
    """Definition of a data set.

    Attributes:
        title: its name in tables.
        image_shape: ``(C, H, W)`` of one image.
        classes: number of classes; labels are smaller.
        images: number of images for ``"train"`` and ``"test"``.
        sha256: SHA-256 of the bytes of each of the four arrays, by name.
        read: returns the arrays, for a data set without a source in ``leaf.experiment.fetching``. It is called with
            the configured directory of data sets, or ``None``.
    """

    title: str
    image_shape: ImageShape
    classes: int
    images: dict[str, int]
    sha256: dict[str, str]
    read: Callable[[Path | None], Arrays] | None = None


FETCHED = ("fashion_mnist", "cifar10")
"""Data sets with sources in ``leaf.experiment.fetching``; all others need ``read``."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def _check(name: str, kind: Any) -> None:
    """Check a data set before it is registered.

    Raises:
        UserError: if it is invalid.
    """
    if not isinstance(kind, Dataset):
        raise UserError(f"dataset {name!r} is not a Dataset")
    if kind.read is None and name not in FETCHED:
        raise UserError(f"dataset {name!r} has no read, which must return its arrays")
    if set(kind.images) != {"train", "test"} or set(kind.sha256) != set(ARRAYS):
        raise UserError(f"dataset {name!r}: images needs the keys train and test, sha256 {', '.join(ARRAYS)}")


FASHION_MNIST = Dataset(
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
)
CIFAR10 = Dataset(
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
)

DATASETS: Registry[Dataset] = Registry("dataset", _check, {"fashion_mnist": FASHION_MNIST, "cifar10": CIFAR10})
"""Data sets by name."""

DIRECTORY = Path("resources/datasets")


def dataset_file(name: str) -> Path:
    """Path of a data set's file, relative to the working directory."""
    return DIRECTORY / f"{name}.safetensors"
