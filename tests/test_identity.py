"""What makes a result: the job, ``leaf status``, ``leaf collect`` and Snakemake agree on whether it has changed."""

from pathlib import Path

import pytest
from test_job import Killed, kill_in_epoch

from leaf.experiment.cells import Cell
from leaf.experiment.guests import dismiss_guests, load_guests
from leaf.experiment.job import train_cell
from leaf.experiment.scales import Settings
from leaf.experiment.status import look

SETTINGS = Settings(epochs=3, train_images=256, test_images=100)

GUEST = """
from torch import nn
from leaf.activations import ACTIVATIONS, plain
ACTIVATIONS["softsign"] = plain("softsign", nn.Softsign)
"""


def train(cell: Cell, settings: Settings = SETTINGS, **options) -> list[str]:
    said: list[str] = []
    train_cell(cell, "tiny", settings, "cpu", threads=1, say=said.append, **options)
    return said


@pytest.fixture
def guest():
    file = Path("guest.py")
    file.write_text(GUEST)
    load_guests(["guest.py"])
    yield file
    dismiss_guests()


def test_an_edited_guest_file_makes_status_and_job_start_again(empty_project, guest):
    cell = Cell("lenet5", "fashion_mnist", "softsign", "classic", "adam", 42)
    with pytest.raises(Killed):
        train(cell, progress=kill_in_epoch(3))
    assert look([cell], "tiny", SETTINGS)[0].detail == "Killed; goes on after epoch 2"
    guest.write_text(guest.read_text() + "\n")
    load_guests(["guest.py"])
    (found,) = look([cell], "tiny", SETTINGS)
    assert "goes on" not in found.detail and found.epochs_left == 3
    assert "passed over" in train(cell)[0]
