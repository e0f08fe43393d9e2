"""Verification of collected records: train a cell's first epochs again and compare them with its record."""

import math
from collections.abc import Callable

import torch

from leaf.analysis.collection import Records, finished
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.loading import Data
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.rounding import rounding_tolerance, train_epochs
from leaf.kernels import kernel_for

COMPARED = ["train_loss", "train_loss_variance", "test_loss", "test_accuracy"]
"""Columns that are bitwise equal on computers of the same kind."""


def verifiable(records: Records) -> list[Cell]:
    """List the cells of the scale ``paper`` that were trained from a new network, in float32, and are not stale."""
    cells = finished(records.cells).query("precision == 'float32' and scale == 'paper'")
    from_new_network = cells["procedure"] == cells["procedure"].map(PROCEDURES.base_name)
    return [Cell.parse(name) for name in cells["cell"][from_new_network]]


def verify(records: Records, cell: Cell, data: Data, epochs: int, log: Callable[[str], None] = print) -> bool:
    """Train the first epochs of a cell of the scale ``paper`` on the CPU, and compare them with its record.

    On computers of the same kind they are bitwise equal. Otherwise each epoch's mean training loss and test accuracy
    must agree within the numerical tolerance, which is measured.

    Returns:
        ``True`` if they agree.

    Raises:
        UserError: if the cell is not ``verifiable``, or diverged in its first epoch.
    """
    if cell not in verifiable(records):
        raise UserError(f"{cell.name}: no record of the scale paper made with the present training version in float32")
    (row,) = records.cells[records.cells["cell"] == cell.name].to_dict("records")
    recorded = records.epochs[records.epochs["cell"] == cell.name].head(epochs).to_dict("records")
    recorded = [epoch for epoch in recorded if math.isfinite(epoch["train_loss"])]
    if not recorded:
        raise UserError(f"{cell.name}: diverged in its first epoch; choose a cell with a finite loss")
    kernel = row["kernel"] if row["kernel"] in ("reference", kernel_for(torch.device("cpu"))) else "reference"
    here = train_epochs(cell, data, len(recorded), int(row["threads"]), kernel)
    if all(vars(ours)[key] == theirs[key] for ours, theirs in zip(here, recorded, strict=True) for key in COMPARED):
        log(f"{cell.name}: {len(recorded)} epochs, bitwise as recorded on {row['device']}")
        return True
    log(f"{cell.name}: not bitwise as on {row['device']} with torch {row['torch']}; measuring the numerical tolerance")
    follows = True
    bounds = rounding_tolerance(cell, data, here)
    for ours, theirs, bound in zip(here, recorded, bounds, strict=True):
        loss = abs(ours.train_loss - theirs["train_loss"])
        accuracy = abs(ours.test_accuracy - theirs["test_accuracy"])
        within = loss <= bound.loss and accuracy <= bound.accuracy
        log(
            f"epoch {ours.epoch}: training loss {ours.train_loss:.6f}, recorded {theirs['train_loss']:.6f}, differs by"
            f" {loss:.1e} of {bound.loss:.1e}; accuracy {ours.test_accuracy:.2%}, recorded"
            f" {theirs['test_accuracy']:.2%}, differs by {accuracy:.2%} of {bound.accuracy:.2%}"
            + ("" if within else ": BEYOND ROUNDING")
        )
        follows &= within
    return follows
