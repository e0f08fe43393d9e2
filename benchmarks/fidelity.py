"""Compare whole epochs on all data with the plain loop and with recorded epochs of the published implementation.

Exact: in contiguous memory and with one thread, networks with base functions perform the same operations as the plain
loop. Their mean losses must be equal. `python benchmarks/fidelity.py exact` compares only these.

As trained: rounding differs between them, and training amplifies it. Epochs must agree with the plain loop within the
numerical tolerance, which is measured on this package, and with the published epochs within a fixed bound.

Run as `make fidelity`.
"""

import json
import math
import sys
from pathlib import Path

import plain_loop
import torch

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import dataset_file
from leaf.experiment.loading import Data, load
from leaf.experiment.rounding import LEAST_ACCURACY, LEAST_LOSS, Bounds, rounding_tolerance, train_epochs

EPOCHS = 2
CELLS = [
    Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42),
    Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42),
    Cell("lenet5", "fashion_mnist", "ahaf-silu", "dspt", "adam", 7823),
    Cell("lenet5", "fashion_mnist", "leaf-relu", "p24sl", "rmsprop", 100),
    Cell("lenet5", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 42),
]

EXACT_EPOCHS = 3
EXACT_CELLS = [
    Cell("lenet5", "cifar10", "tanh", "classic", "adam", 42),
    Cell("lenet5", "fashion_mnist", "sigmoid", "classic", "adam", 42),
]
"""Without dropout, for which the plain loop draws from another stream."""

EQUAL = 1e-15
"""By how much means of equal losses may differ, relative: their sums may be taken in another order."""

Epochs = list[tuple[float, float]]
"""Mean training loss and test accuracy of each epoch."""


def plain(cell: Cell, data: Data, epochs: int, threads: int) -> Epochs:
    """Train with the plain loop."""
    torch.set_num_threads(threads)
    return [(epoch.train_loss, epoch.test_accuracy) for epoch in plain_loop.train(cell, data, epochs)]


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


def compare_exactly() -> list[str]:
    """Print each epoch's mean loss and its difference from the plain loop's; return the epochs that differ."""
    failed = []
    print(f"{'exact: contiguous, one thread':52}", "{:>5} {:>18} {:>8}".format("epoch", "its loss", "Δ loss"))
    for cell in EXACT_CELLS:
        data = load(cell.dataset, dataset_file(cell.dataset))
        ours = train_epochs(cell, data, EXACT_EPOCHS, threads=1, memory_format=torch.contiguous_format)
        for record, (loss, _) in zip(ours, plain(cell, data, EXACT_EPOCHS, threads=1), strict=True):
            equal = math.isclose(record.train_loss, loss, rel_tol=EQUAL, abs_tol=0)
            off = abs(record.train_loss - loss)
            print(
                f"{cell.name:52} {record.epoch:5} {loss:18.16f} {off:8.1e}{'' if equal else '  NOT EQUAL'}", flush=True
            )
            if not equal:
                failed.append(f"{cell.name}, epoch {record.epoch}, exact")
    return failed


def compare_as_trained() -> list[str]:
    """Print each epoch's figures and bounds; return those out of bounds."""
    witnesses, failed = published(), []
    heading = ("epoch", "witness", "its loss", "Δ loss", "bound", "Δ acc.", "bound")
    print(f"{'cell':52}", "{:>5} {:>10} {:>9} {:>8} {:>8} {:>7} {:>7}".format(*heading))
    for cell in CELLS:
        data = load(cell.dataset, dataset_file(cell.dataset))
        as_trained = train_epochs(cell, data, EPOCHS)
        reach = rounding_tolerance(cell, data, as_trained)
        against = {"plain loop": plain(cell, data, EPOCHS, threads=2)}
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
    return failed


def main() -> None:
    """Compare every cell, and fail if one does not agree."""
    if sys.argv[1:] not in ([], ["exact"]):
        sys.exit("usage: python benchmarks/fidelity.py [exact]")
    failed = compare_exactly()
    if not sys.argv[1:]:
        failed += compare_as_trained()
    sys.exit("\n".join(["out of bounds:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
