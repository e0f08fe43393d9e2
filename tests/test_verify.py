"""The spot check of collected records, on real images and few of them."""

import math
from dataclasses import replace

import pytest

from leaf.analysis import collection
from leaf.analysis.collection import collect, read_records, write_records
from leaf.analysis.verify import verifiable, verify
from leaf.cli import main
from leaf.experiment import rounding
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.job import train_cell
from leaf.experiment.scales import Settings

CELL = Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42)
SETTINGS = Settings(epochs=2, train_images=640, test_images=100)


@pytest.fixture
def records(empty_project):
    train_cell(CELL, "paper", SETTINGS, "cpu", threads=1, log=lambda line: None)
    write_records(collect({CELL: ["mine"]}, "paper", SETTINGS, with_forms=True), empty_project / "shipped")
    return read_records(empty_project / "shipped")


@pytest.fixture
def images(data):
    return data("fashion_mnist", 640, 100)


def check(records, images, epochs=2) -> tuple[bool, str]:
    said: list[str] = []
    return verify(records, CELL, images, epochs, said.append), "\n".join(said)


def test_the_same_bits(records, images):
    assert verifiable(records) == [CELL]
    for epochs in (1, 2):
        follows, said = check(records, images, epochs)
        assert follows and f"{epochs} epochs, bitwise as recorded on CPU" in said


def test_another_rounding_follows_and_another_result_does_not(records, images):
    records.epochs["train_loss"] += 1e-4
    follows, said = check(records, images)
    assert follows and "differs by 1.0e-04 of" in said and "BEYOND" not in said
    records.epochs.loc[records.epochs["epoch"] == 2, "test_accuracy"] -= 0.2
    follows, said = check(records, images)
    assert not follows and said.count("BEYOND ROUNDING") == 1 and "differs by 20.00%" in said
    assert check(records, images, epochs=1)[0]


def test_rounding_is_measured(data):
    images = data("fashion_mnist", 2560, 100)
    reference = rounding.train_epochs(CELL, images, 1)
    (bounds,) = rounding.rounding_tolerance(CELL, images, reference)
    assert bounds.loss >= rounding.LEAST_LOSS and bounds.accuracy >= rounding.LEAST_ACCURACY
    others = [rounding.train_epochs(CELL, images, 1, **options)[0].train_loss for options in rounding.ROUNDINGS]
    off = [abs(other - reference[0].train_loss) for other in others]
    assert 0 < max(off) <= bounds.loss / rounding.SPREADS
    assert len(set(others)) > 2  # they are other roundings, and not all the same


def test_measuring_prints_nothing(images, recwarn):
    rounding.train_epochs(CELL, images, 1, own_convolutions=False)
    assert not recwarn.list


def test_what_cannot_be_verified_is_reported(records, images, monkeypatch, capsys):
    with pytest.raises(UserError, match="no record of the scale paper made with the present training version"):
        verify(records, Cell("lenet5", "cifar10", "relu", "classic", "adam", 42), images, 1)
    assert not verifiable(replace(records, cells=records.cells.assign(scale="sound")))
    records.epochs["train_loss"] = math.nan
    with pytest.raises(UserError, match="diverged in its first epoch"):
        check(records, images)
    monkeypatch.setattr(collection, "TRAINING_VERSION", 99)
    with pytest.raises(SystemExit, match="no cell of the scale paper made with the present training version"):
        main(["verify", "--records", "shipped"])
    with pytest.raises(SystemExit, match="no collected records"):
        main(["verify", "--records", "nowhere"])
