"""Effect of bfloat16 on accuracy: a small cell with five seeds, trained in bfloat16 and in float32.

Writes precision.csv into the directory given: python benchmarks/precision.py reports/benchmark
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from leaf.analysis.statistics import paired_interval
from leaf.experiment.cells import Cell
from leaf.experiment.datasets import dataset_file
from leaf.experiment.devices import device_name
from leaf.experiment.loading import load
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

VARIANTS = {"tanh": "classic", "leaf-tanh": "p24sl"}
SEEDS = (42, 100, 128, 1999, 7823)
SETTINGS = Settings(epochs=5, train_images=10_000)
DATASET = "fashion_mnist"


def test_accuracies(cell: Cell) -> dict[str, float]:
    """Test accuracy of the last epoch in %, by precision."""
    data = load(DATASET, dataset_file(DATASET), SETTINGS.train_images, SETTINGS.test_images)
    found = {}
    for precision in ("float32", "bfloat16"):
        training = Training(cell, SETTINGS, data, precision=precision)
        found[precision] = 100 * [training.run_epoch() for _ in training.epochs][-1].test_accuracy
    return found


def row(activation: str, procedure: str) -> dict[str, object]:
    """Mean accuracies of a variant, and their paired difference with its 95% interval."""
    cells = [Cell("lenet5", DATASET, activation, procedure, "adam", seed) for seed in SEEDS]
    accuracies = pd.DataFrame([test_accuracies(cell) for cell in cells])
    differences = accuracies["bfloat16"] - accuracies["float32"]
    low, high, *_ = paired_interval(list(differences), 0.95)
    return {
        "device": device_name(torch.device("cpu")), "cell": cells[0].name.rpartition("/")[0], "seeds": len(SEEDS),
        "epochs": SETTINGS.epochs, "images": SETTINGS.train_images, **accuracies.mean().to_dict(),
        "difference": differences.mean(), "low": low, "high": high,
    }  # fmt: skip


def main() -> None:
    """Train all cells in both precisions and write the comparison."""
    torch.set_num_threads(1)
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row(*variant) for variant in VARIANTS.items()])
    table.to_csv(directory / "precision.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
