"""Fixtures of all tests: the numbers of the published implementation, and the real data sets."""

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from project_copy import PROJECT

from leaf.experiment import fetching
from leaf.experiment.cells import CHOICES, Cell
from leaf.experiment.datasets import DATASETS, dataset_file
from leaf.experiment.fetching import fetch
from leaf.experiment.loading import Data, load

FIXTURES = Path(__file__).parent / "fixtures"

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

NAMES = {"LeNet-5": "lenet5", "KerasNet": "kerasnet", "F-MNIST": "fashion_mnist", "CIFAR-10": "cifar10"}
"""Names of the published implementation, with the names in this package."""


def published(name: str) -> list[dict[str, Any]]:
    """Read a file of numbers from the published implementation, with this package's names."""
    entries = json.loads((FIXTURES / f"published_{name}.json").read_text())
    return [entry | {key: NAMES[entry[key]] for key in ("network", "dataset")} for entry in entries]


def published_cell(entry: dict[str, Any]) -> Cell:
    """The cell of an entry in a published file."""
    form = entry["form"].lower()
    activation = form if entry["family"] == "base" else f"{entry['family']}-{form}"
    return Cell(entry["network"], entry["dataset"], activation, entry["procedure"], entry["optimizer"], entry["seed"])


LONGEST = tuple(f"test_{name}.py" for name in ("kernels", "training", "workflow", "faults", "processes", "verify"))
"""Files that take longest, in the order in which they start.

None of them runs alone at the end, and the kernels are compiled before the first copy of the project is made.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files start first, and mark the tests that read the data sets."""
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))
    for item in items:
        if "data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.fixture(scope="session", autouse=True)
def in_project() -> None:
    """Tests run in the project's top-level directory, wherever pytest was started."""
    os.chdir(PROJECT)
    torch.set_num_threads(1)  # two tests run at a time


@pytest.fixture(scope="session")
def data(in_project: None) -> Callable[..., Data]:
    """The real data sets, fetched if needed: ``data("cifar10")``, ``data("cifar10", 256, 100)``."""
    for name in CHOICES["dataset"]:
        fetch(name)
    whole = {name: load(name, dataset_file(name)) for name in CHOICES["dataset"]}

    def first(name: str, train_images: int | None = None, test_images: int | None = None) -> Data:
        full = whole[name]
        return Data(
            full.train_images[:train_images], full.train_labels[:train_images],
            full.test_images[:test_images], full.test_labels[:test_images],
        )  # fmt: skip

    return first


@pytest.fixture(scope="session")
def originals(data, tmp_path_factory):
    """The data sets in their original files' formats, made from the fetched ones."""
    directory = tmp_path_factory.mktemp("originals")
    arrays = {name: safetensors.numpy.load_file(dataset_file(name)) for name in DATASETS}
    for key, file in fetching.FASHION_MNIST_FILES.items():
        array = arrays["fashion_mnist"][key]
        array = array[:, 0] if key.endswith("images") else array
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (directory / f"{file}.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    for split, batches in fetching.CIFAR10_BATCHES.items():
        images, labels = (arrays["cifar10"][f"{split}_{kind}"] for kind in ("images", "labels"))
        for batch, part, part_labels in zip(
            batches, np.split(images, len(batches)), np.split(labels, len(batches)), strict=True
        ):
            content = {b"data": part.reshape(10_000, -1), b"labels": part_labels.tolist()}
            (directory / batch).write_bytes(pickle.dumps(content))
    return directory


@pytest.fixture
def empty_project(data: Callable[..., Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory that contains only the fetched data sets."""
    (tmp_path / "resources").symlink_to(PROJECT / "resources")
    monkeypatch.chdir(tmp_path)
    return tmp_path
