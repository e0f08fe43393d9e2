"""Which device a cell trains on. Seats at GPUs are files, so that they can be tried without a GPU."""

import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
import torch

from leaf.experiment.devices import seat, training_device
from leaf.experiment.errors import UserError

pytestmark = pytest.mark.slow

GPUS = ["GPU-a", "GPU-b", "GPU-c"]

HOLD = """
import sys
from leaf.experiment.devices import seat
with seat(sys.argv[1:]) as index:
    print(index, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def own_seats(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def holder(*gpus: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a seat, and at which GPU."""
    command = [sys.executable, "-c", HOLD, *gpus]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_seats_are_taken_in_turn():
    with ExitStack() as stack:
        taken = Counter(stack.enter_context(seat(GPUS)) for _ in range(7))
    assert taken == {0: 3, 1: 2, 2: 2}


def test_a_seat_that_is_left_is_taken_next():
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(seat(GPUS))
        with seat(GPUS) as last:
            assert last == 2
        assert stack.enter_context(seat(GPUS)) == 2


def test_a_killed_process_leaves_its_seat():
    process, index = holder(*GPUS)
    with seat(GPUS) as mine:
        assert (index, mine) == (0, 1)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    with seat(GPUS) as mine:
        assert mine == 0


def test_jobs_that_see_other_gpus_share_by_the_gpu_not_by_its_number():
    process, index = holder("GPU-b")
    assert index == 0
    for gpus, free in ((["GPU-b", "GPU-c"], 1), (["GPU-a", "GPU-b"], 0)):
        with seat(gpus) as mine:
            assert mine == free
    process.communicate("\n")


def test_a_link_in_a_seats_place_is_not_followed(tmp_path):
    with seat(["GPU-a"]):
        (taken,) = tmp_path.glob("leaf-seats-*/GPU-a-0")
    taken.unlink()
    (tmp_path / "precious").write_text("mine")
    taken.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), seat(["GPU-a"]):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_device_that_is_asked_for():
    with training_device("cpu") as device:
        assert device == torch.device("cpu")
    with training_device("auto") as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="unknown device 'gpu'"), training_device("gpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds no GPU"), training_device("cuda"):
            pass
