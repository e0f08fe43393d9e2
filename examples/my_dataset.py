"""A custom data set, the shoes of Fashion-MNIST: sandals, sneakers and ankle boots.

With plugins: [examples/my_dataset.py] in the configuration, its name is `shoes`.
"""

from pathlib import Path

import numpy as np
import safetensors.numpy

from leaf.experiment.datasets import DATASETS, Arrays, Dataset
from leaf.experiment.fetching import fetch

SHOES = (5, 7, 9)
"""Their labels in Fashion-MNIST; here 0, 1 and 2."""


def read(directory: Path | None) -> Arrays:
    """Read the four arrays: images uint8 (N, C, H, W), labels uint8 (N,).

    Args:
        directory: the configuration's `datasets_directory`, a directory with the user's files; None if not set.
    """
    whole = safetensors.numpy.load_file(fetch("fashion_mnist", directory))
    arrays = {}
    for split in ("train", "test"):
        images, labels = whole[f"{split}_images"], whole[f"{split}_labels"]
        shoes = np.isin(labels, SHOES)
        arrays[f"{split}_images"] = images[shoes]
        arrays[f"{split}_labels"] = np.searchsorted(SHOES, labels[shoes]).astype(np.uint8)
    return arrays


DATASETS.register(
    "shoes",
    Dataset(
        title="Shoes",
        image_shape=(1, 28, 28),
        classes=3,
        images={"train": 18_000, "test": 3_000},
        # Leave these empty at first: `leaf fetch shoes` prints them.
        sha256={
            "train_images": "0c391ff6d77d8e075915003cc5b0d6483ed6f1a5a367ff72ff34e764e308a6dd",
            "train_labels": "5c10b335464c2efc4198ad146a3daba19ac72437a2bee675ce67ce9bfacd86dd",
            "test_images": "80a85dabfde1cf1efcc2777bbccd026a4882b0c61167bdb65a8eb3a54d9ec493",
            "test_labels": "e2c5029d44ee9ee564eef6f543df0c63fc13a5b30598f54b68ba66ed6238d568",
        },
        read=read,
    ),
)
