"""Whole epochs on whole data against two witnesses: the plain loop, and the published implementation's own epochs.

Rounding differs between them, and training amplifies it. The first epoch must agree within rounding's reach; later ones
within a few times the spread that rounding alone causes, measured here on ours: as the workflow trains (one thread, the
CPU's own convolutions), with two threads, and with convolutions made of plain matrix products. Run as `make fidelity`.
"""

import json
import sys
from pathlib import Path

import plain_loop
import torch

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import Data, dataset_file, load
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

EPOCHS = 2
CELLS = [
    Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42),
    Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42),
    Cell("lenet5", "fashion_mnist", "ahaf-silu", "dspt", "adam", 7823),
    Cell("lenet5", "fashion_mnist", "leaf-relu", "p24sl", "rmsprop", 100),
    Cell("lenet5", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 42),
]

BOUNDS = (3e-4, 0.005)
"""For mean loss and accuracy where rounding's measured spread is small: an independent loop stayed within a third."""

SPREADS = 3
"""How many times rounding's measured spread an epoch may be off, where that is more."""

Epochs = list[tuple[float, float]]
"""Mean training loss and test accuracy, epoch by epoch."""


def ours(cell: Cell, data: Data, threads: int = 1, own_convolutions: bool = True) -> Epochs:
    """The package's own training."""
    torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=own_convolutions):
        training = Training(cell, Settings(epochs=EPOCHS), data)
        records = [training.run_epoch() for _ in range(EPOCHS)]
    return [(record.train_loss, record.test_accuracy) for record in records]


def plain(cell: Cell, data: Data) -> Epochs:
    """The plain loop's training."""
    torch.set_num_threads(2)
    return [(epoch.train_loss, epoch.test_accuracy) for epoch in plain_loop.train(cell, data, EPOCHS)]


def published() -> dict[Cell, Epochs]:
    """The epochs that the published implementation itself ran."""
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
    """Compare every cell, print the figures, and fail if one is out of bounds."""
    witnesses, failed = published(), []
    heading = ("epoch", "witness", "its loss", "Δ loss", "spread", "bound", "Δ acc.", "bound")
    print(f"{'cell':52}", "{:>5} {:>10} {:>9} {:>8} {:>8} {:>8} {:>7} {:>7}".format(*heading))
    for cell in CELLS:
        data = load(cell.dataset, dataset_file(cell.dataset))
        as_trained = ours(cell, data)
        rounded = [ours(cell, data, threads=2), ours(cell, data, own_convolutions=False)]
        against = {"plain loop": plain(cell, data)}
        if cell in witnesses:
            against["published"] = witnesses[cell]
        for name, witness in against.items():
            for epoch in range(EPOCHS):
                spreads = [max(abs(o[epoch][i] - as_trained[epoch][i]) for o in rounded) for i in (0, 1)]
                bounds = list(BOUNDS)
                if name != "published":
                    bounds = [max(bound, SPREADS * spread) for bound, spread in zip(BOUNDS, spreads, strict=True)]
                off = [abs(witness[epoch][i] - as_trained[epoch][i]) for i in (0, 1)]
                verdict = "" if all(o <= b for o, b in zip(off, bounds, strict=True)) else "  OUT OF BOUNDS"
                print(
                    f"{cell.name:52} {epoch + 1:5} {name:>10} {witness[epoch][0]:9.6f}"
                    f" {off[0]:8.1e} {spreads[0]:8.1e} {bounds[0]:8.1e}"
                    f" {off[1]:7.2%} {bounds[1]:7.2%}{verdict}",
                    flush=True,
                )
                if verdict:
                    failed.append(f"{cell.name}, epoch {epoch + 1}, {name}")
    sys.exit("\n".join(["out of bounds:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
