"""The choice of a device. GPU slots are locked files, so that they can be tested without a GPU."""

import signal
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
import torch

from leaf.experiment.devices import gpu_slot, training_device
from leaf.experiment.errors import UserError

GPUS = ["GPU-a", "GPU-b", "GPU-c"]

HOLD = """
import sys
from leaf.experiment.devices import gpu_slot
with gpu_slot(sys.argv[1:]) as (index, _):
    print(index, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def own_slots(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def holder(*gpus: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process that holds a slot; return it and the GPU."""
    command = [sys.executable, "-c", HOLD, *gpus]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_slots_are_taken_in_turn():
    with ExitStack() as stack:
        taken = Counter(stack.enter_context(gpu_slot(GPUS))[0] for _ in range(7))
    assert taken == {0: 3, 1: 2, 2: 2}


def test_a_slot_that_is_released_is_taken_next():
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(gpu_slot(GPUS))
        with gpu_slot(GPUS) as (last, _):
            assert last == 2
        assert stack.enter_context(gpu_slot(GPUS)) == (2, 0)


def test_a_killed_process_releases_its_slot():
    process, index = holder(*GPUS)
    with gpu_slot(GPUS) as (mine, _):
        assert (index, mine) == (0, 1)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    with gpu_slot(GPUS) as (mine, _):
        assert mine == 0


@pytest.mark.slow
def test_jobs_that_see_other_gpus_share_by_the_gpu_not_by_its_number():
    process, index = holder("GPU-b")
    assert index == 0
    for gpus, free in ((["GPU-b", "GPU-c"], 1), (["GPU-a", "GPU-b"], 0)):
        with gpu_slot(gpus) as (mine, _):
            assert mine == free
    process.communicate("\n")


def test_a_link_in_a_slots_place_is_not_followed(tmp_path):
    with gpu_slot(["GPU-a"]):
        (taken,) = tmp_path.glob("leaf-gpu-slots-*/GPU-a-0")
    taken.unlink()
    (tmp_path / "precious").write_text("mine")
    taken.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), gpu_slot(["GPU-a"]):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_cells_that_share_a_gpu_without_the_multi_process_service_are_warned(tmp_path, monkeypatch):
    """Replaces ``torch.cuda``, so that it runs without a GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(uuid="GPU-a"))
    monkeypatch.setattr("torch.cuda.device", lambda index: nullcontext())
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with warnings.catch_warnings(action="error"), training_device("cuda"):
        with pytest.raises(UserWarning, match="nvidia-cuda-mps-control -d"), training_device("cuda"):
            pass
        (tmp_path / "control").touch()
        with training_device("cuda") as device:
            assert device == torch.device("cuda", 0)


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
