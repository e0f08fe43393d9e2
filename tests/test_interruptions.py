"""Signals to a trainer: it writes its state after the minibatch, ends, and resumes to the same bits."""

import os
import random
import signal
import subprocess
import sys

import pytest
from project_copy import comparable_results
from waiting import wait_until

from leaf.experiment.cells import Cell
from leaf.experiment.job import Schedule, Stopped, train_cell
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings

SETTINGS = Settings(epochs=3, train_images=1280, test_images=500)
CELL = Cell("kerasnet", "fashion_mnist", "leaf-silu", "dspt-p24sl", "adam", 42)
SMALL = Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42)


def train(cell: Cell, scale: str, **options) -> list[str]:
    said: list[str] = []
    train_cell(cell, scale, SETTINGS, "cpu", threads=1, log=said.append, **options)
    return said


def test_stopped_again_and_again_ends_in_the_same_bits(empty_project):
    """Signals at random minibatches, in training and in testing, of a cell with dropout."""
    train(CELL, "undisturbed")
    rng, stops = random.Random(1), 0
    for _ in range(30):
        wait = rng.randrange(1, 9)

        def signal_later(epoch, step, steps):
            nonlocal wait
            wait -= 1
            if wait == 0:
                os.kill(os.getpid(), rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))

        try:
            train(CELL, "disturbed", progress=signal_later)
            break
        except Stopped:
            stops += 1
    assert stops >= 4
    assert len(read_run(CELL.directory("disturbed")).sessions) == stops + 1
    assert comparable_results(CELL.directory("disturbed")) == comparable_results(CELL.directory("undisturbed"))
    # the handlers are gone with the training
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_real_process_and_a_real_signal(empty_project, number):
    long = Settings(epochs=50, train_images=1280, test_images=500)
    command = [sys.executable, "-c", "from leaf.cli import main; main()", "train", SMALL.name, "--scale", "tiny"]
    command += ["--settings", long.to_json(), "--device", "cpu", "--precision", "float32", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    directory = SMALL.directory("tiny")
    status = directory / "status.json"
    wait_until(lambda: status.exists() or process.poll() is not None, "the first status.json")
    assert process.poll() is None
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name} after epoch" in output and "Traceback" not in output
    assert (directory / "state.pt").exists() and not (directory / "run.json").exists()


def test_the_state_is_written_on_schedule(empty_project):
    seen = set()

    def look(epoch, step, steps):
        seen.add((epoch, step, (SMALL.directory("tiny") / "state.pt").exists()))

    train(SMALL, "tiny", schedule=Schedule(epochs=2), progress=look)
    assert (2, 5, False) in seen and (3, 5, True) in seen  # after two epochs, not after one


def test_minutes_pass_within_an_epoch(empty_project):
    first = []

    def look(epoch, step, steps):
        if (SMALL.directory("tiny") / "state.pt").exists() and not first:
            first.append((epoch, step))

    train(SMALL, "tiny", schedule=Schedule(epochs=3, minutes=1e-9), progress=look)
    assert first == [(1, 2)]
