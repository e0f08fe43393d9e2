"""Compare whole epochs on all data with the plain loop and with recorded epochs of the published implementation.

Rounding differs between them, and training amplifies it. Epochs must agree with the plain loop within the numerical
tolerance, which is measured on this package, and with the published epochs within a fixed bound. Run as
`make fidelity`.
"""

import json
import sys
from pathlib import Path

import plain_loop
import torch

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import Data, dataset_file, load
from leaf.experiment.rounding import LEAST_ACCURACY, LEAST_LOSS, Bounds, reach_of_rounding, train_epochs

EPOCHS = 2
CELLS = [
    Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42),
    Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42),
    Cell("lenet5", "fashion_mnist", "ahaf-silu", "dspt", "adam", 7823),
    Cell("lenet5", "fashion_mnist", "leaf-relu", "p24sl", "rmsprop", 100),
    Cell("lenet5", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 42),
]

Epochs = list[tuple[float, float]]
"""Mean training loss and test accuracy of each epoch."""


def plain(cell: Cell, data: Data) -> Epochs:
    """Train with the plain loop."""
    torch.set_num_threads(2)
    return [(epoch.train_loss, epoch.test_accuracy) for epoch in plain_loop.train(cell, data, EPOCHS)]


def published() -> dict[Cell, Epochs]:
    """Read the recorded epochs of the published implementation."""
    file = Path(__file__).parent.parent / "tests/fixtures/published_epochs.json"
    names = {"LeNet-5": "lenet5", "F-MNIST": "fashion_mnist"}
    found = {}
    for entry in json.loads(file.read_text()):
        form = entry["form"].lower()
        cell = Cell(
            names[entry["network"]], names[entry["dataset"]],
            form if entry["family"] == "base" else f"{entry['family']}-{form}",
            entry["procedure"], entry["optimizer"], entry["seed"],
        )  # fmt: skip
        found[cell] = [(epoch["loss_mean"], epoch["test_accuracy"]) for epoch in entry["epochs"]]
    return found


def main() -> None:
    """Compare all cells, print the differences, and fail if one is out of bounds."""
    witnesses, failed = published(), []
    heading = ("epoch", "witness", "its loss", "Δ loss", "bound", "Δ acc.", "bound")
    print(f"{'cell':52}", "{:>5} {:>10} {:>9} {:>8} {:>8} {:>7} {:>7}".format(*heading))
    for cell in CELLS:
        data = load(cell.dataset, dataset_file(cell.dataset))
        as_trained = train_epochs(cell, data, EPOCHS)
        reach = reach_of_rounding(cell, data, as_trained)
        against = {"plain loop": plain(cell, data)}
        if cell in witnesses:
            against["published"] = witnesses[cell]
        for name, witness in against.items():
            bounds = reach if name != "published" else [Bounds(LEAST_LOSS, LEAST_ACCURACY)] * EPOCHS
            for record, (loss, accuracy), bound in zip(as_trained, witness, bounds, strict=True):
                off = Bounds(abs(record.train_loss - loss), abs(record.test_accuracy - accuracy))
                within = off.loss <= bound.loss and off.accuracy <= bound.accuracy
                print(
                    f"{cell.name:52} {record.epoch:5} {name:>10} {loss:9.6f} {off.loss:8.1e} {bound.loss:8.1e}"
                    f" {off.accuracy:7.2%} {bound.accuracy:7.2%}{'' if within else '  OUT OF BOUNDS'}",
                    flush=True,
                )
                if not within:
                    failed.append(f"{cell.name}, epoch {record.epoch}, {name}")
    sys.exit("\n".join(["out of bounds:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
