"""Effect of the number of threads on training: the first epochs of a cell with one and with two threads.

Writes rounding.csv into the directory given: python benchmarks/rounding.py reports/benchmark
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import dataset_file
from leaf.experiment.devices import device_name
from leaf.experiment.loading import load
from leaf.experiment.rounding import train_epochs

CELLS = [Cell("lenet5", dataset, "relu", "classic", "adam", 42) for dataset in ("fashion_mnist", "cifar10")]
TRAIN_IMAGES, TEST_IMAGES, EPOCHS = 10_000, 1_000, 1


def rows(cell: Cell) -> list[dict[str, object]]:
    """The mean training loss of each epoch with one and two threads, and the relative difference."""
    data = load(cell.dataset, dataset_file(cell.dataset), TRAIN_IMAGES, TEST_IMAGES)
    one, two = (train_epochs(cell, data, EPOCHS, threads) for threads in (1, 2))
    return [
        {
            "device": device_name(torch.device("cpu")), "cell": cell.name, "images": TRAIN_IMAGES, "epoch": a.epoch,
            "loss_1_thread": a.train_loss, "loss_2_threads": b.train_loss,
            "relative_difference": abs(a.train_loss - b.train_loss) / a.train_loss,
        }
        for a, b in zip(one, two, strict=True)
    ]  # fmt: skip


def main() -> None:
    """Measure all cells and write them."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row for cell in CELLS for row in rows(cell)])
    table.to_csv(directory / "rounding.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
