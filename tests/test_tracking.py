"""Logging to the real trackers, offline, and reading the logs with their own tools."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from project_copy import comparable_results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from leaf import build_network
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.job import Schedule, Stopped, train_cell
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import Settings
from leaf.experiment.tracking import Tracking, observe

CELL = Cell("lenet5", "fashion_mnist", "leaf-tanh", "dspt-p24sl", "adam", 42)
SETTINGS = Settings(epochs=4, train_images=256, test_images=100)
BOTH = Tracking(("tensorboard", "wandb"))
RUN_ID = f"tiny.{CELL.name.replace('/', '.')}"


def train(tracking: Tracking | None = BOTH, scale: str = "tiny", **options) -> list[str]:
    said: list[str] = []
    train_cell(CELL, scale, SETTINGS, "cpu", threads=1, log=said.append, tracking=tracking, **options)
    return said


@pytest.fixture
def expected(empty_project):
    """The cell's outputs without trackers."""
    train(None, "untracked")
    return comparable_results(CELL.directory("untracked"))


def results():
    return comparable_results(CELL.directory("tiny"))


def metrics() -> pd.DataFrame:
    return pd.read_csv(CELL.directory("tiny") / "metrics.csv", index_col="epoch").dropna(axis="columns")


def tensorboard() -> EventAccumulator:
    return EventAccumulator(f"tracking/tensorboard/tiny/{CELL.name}", {"scalars": 0, "histograms": 0}).Reload()


def wandb_records() -> list[dict]:
    """Records of all Weights & Biases runs, in the order of writing."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    logs = sorted(Path("tracking/wandb").glob("offline-run-*/*.wandb"), key=lambda log: log.stat().st_mtime_ns)
    texts = [
        subprocess.run([*command, log], env=environment, check=True, capture_output=True, text=True).stdout
        for log in logs
    ]
    return [json.loads(line) for line in "".join(texts).splitlines()]


def history(records: list[dict]) -> list[dict]:
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def steps(records: list[dict]) -> list[int]:
    return [item["_step"] for item in history(records)]


def test_metrics_and_histograms_are_logged_and_results_are_the_same(expected):
    assert len(train()) == 1
    assert results() == expected
    model = safetensors.torch.load_file(CELL.directory("tiny") / "model.safetensors")
    names = {f"{kind}/{name}" for kind in ("parameters", "gradients") for name in model}

    events, truth = tensorboard(), metrics()
    assert set(events.Tags()["scalars"]) == set(truth.columns) and "slow_learning_rate" in truth.columns
    for name, column in truth.items():
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in column.items()]
    assert set(events.Tags()["histograms"]) == names
    for name, values in model.items():
        *_, last = events.Histograms(f"parameters/{name}")
        logged = last.histogram_value
        assert last.step == 4 and logged.num == sum(logged.bucket) == values.numel()
        assert (logged.min, logged.max) == (values.min().item(), values.max().item())
        assert logged.sum == pytest.approx(values.double().sum().item())
        edges = torch.tensor([logged.min, *logged.bucket_limit], dtype=torch.float64)
        counts, _ = torch.histogram(values.double().flatten(), edges)
        assert counts.tolist() == list(logged.bucket)

    records = wandb_records()
    assert steps(records) == [1, 2, 3, 4]
    for item, (_, row) in zip(history(records), truth.iterrows(), strict=True):
        assert {name: item[name] for name in truth.columns} == row.to_dict()
        assert {name.removesuffix("._type") for name in item if name.endswith("._type")} == names
        logged = events.Histograms("gradients/conv1.weight")[item["_step"] - 1].histogram_value
        assert item["gradients/conv1.weight.values"] == logged.bucket
        assert item["gradients/conv1.weight.bins"] == pytest.approx([logged.min, *logged.bucket_limit])
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["project"], run["run_group"]) == (RUN_ID, "leaf", "tiny")
    settings = {"activation": "leaf-tanh", "seed": 42, "epochs": 4, "threads": 1, "kernel": "numba"}
    assert settings.items() <= run["config"]["update"].items()


def test_histograms_are_of_the_finite_values():
    network = build_network("lenet5", "fashion_mnist", "relu")
    with torch.no_grad():
        network.conv1.weight[0] = float("nan")
        network.linear2.weight.fill_(float("inf"))
    record = EpochRecord(7, float("nan"), 0.1, 0.2, 0.3, None, 1e-3, None, 1.0)
    number, numbers, histograms = observe(record, network)
    assert number == 7 and set(numbers) == {
        "train_loss", "train_loss_variance", "test_loss", "test_accuracy", "learning_rate", "train_seconds",
    }  # fmt: skip
    assert histograms["parameters/conv1.weight"].counts.sum() == 19 * 25
    assert "parameters/linear2.weight" not in histograms and not any("gradients" in name for name in histograms)


def test_a_resumed_training_resumes_its_run(expected):
    """Stopped by a signal within an epoch, then killed an epoch after a state was written."""
    schedule = Schedule(epochs=2)

    def stop(epoch, step, steps):
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(epoch, step, steps):
        if epoch == 4:
            raise ZeroDivisionError

    with pytest.raises(Stopped):
        train(progress=stop, schedule=schedule)
    with pytest.raises(ZeroDivisionError):
        train(progress=kill, schedule=schedule)
    assert steps(wandb_records()) == [1, 2]  # what a state holds, and nothing else
    train(schedule=schedule)
    assert results() == expected
    assert [event.step for event in tensorboard().Scalars("test_loss")] == [1, 2, 3, 4]
    assert [event.step for event in tensorboard().Histograms("gradients/conv1.weight")] == [1, 2, 3, 4]
    records = wandb_records()
    assert steps(records) == [1, 2, 3, 4]
    assert [item["test_loss"] for item in history(records)] == metrics()["test_loss"].tolist()
    assert [record["run"]["run_id"] for record in records if record["type"] == "run"] == 3 * [RUN_ID]
    assert train() == [f"{CELL.name}: outputs are current, kept"]


def test_a_training_from_the_start_hides_earlier_epochs(empty_project):
    only = Tracking(("tensorboard",), "elsewhere")
    train_cell(CELL, "tiny", Settings(epochs=3, train_images=128, test_images=50), "cpu", tracking=only)
    shutil.rmtree("results")
    train_cell(CELL, "tiny", Settings(epochs=2, train_images=128, test_images=50), "cpu", tracking=only)
    shutil.move("elsewhere", "tracking")
    assert [event.value for event in tensorboard().Scalars("test_loss")] == [
        pytest.approx(loss, rel=1e-6) for loss in metrics()["test_loss"]
    ]


def wandb_service() -> int:
    """The process that writes for Weights & Biases: a child of this one."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = stat.read_text().rpartition(")")
        if name.endswith("(wandb-core") and rest.split()[0] != "Z" and int(rest.split()[1]) == os.getpid():
            return int(stat.parent.name)
    raise AssertionError("there is no wandb-core")


def test_trackers_that_fail_during_training(expected, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda failed: None)  # the event file's own writer

    def disturb(epoch, step, steps):
        if (epoch, step) == (3, 1) and not disturbed:
            disturbed.append(epoch)
            os.kill(wandb_service(), signal.SIGKILL)
            shutil.rmtree("tracking/tensorboard")

    disturbed: list[int] = []
    said = train(progress=disturb)
    assert Counter(line.split(" failed")[0] for line in said) == Counter(
        ["tracking: tensorboard", "tracking: wandb", f"{CELL.name}: 4 epochs, test accuracy {accuracy():.2%}"]
    )
    assert all("training continues without it: " in line and "\n" not in line for line in said if "failed" in line)
    assert results() == expected
    shutil.rmtree("results")
    shutil.rmtree("tracking")
    assert len(train()) == 1 and steps(wandb_records()) == [1, 2, 3, 4]  # in the same process


def accuracy() -> float:
    return metrics()["test_accuracy"].iloc[-1]


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_tracker_that_does_not_start_is_reported_before_training(empty_project, tracker):
    Path("tracking").write_text("in the way")
    with pytest.raises(UserError, match=f"tracking: {tracker} failed to start: FileExistsError.*tracking"):
        train(Tracking((tracker,)))
    # nothing of a training, but word for `leaf status` of why there is none
    assert {file.name for file in CELL.directory("tiny").iterdir()} == {"lock", "status.json"}
    assert "failed to start" in (CELL.directory("tiny") / "status.json").read_text()


def test_started_trackers_are_closed_when_another_does_not_start(empty_project):
    Path("tracking").mkdir()
    Path("tracking/tensorboard").write_text("in the way")
    with pytest.raises(UserError, match="tracking: tensorboard failed to start: "):
        train(Tracking(("wandb", "tensorboard")))
    with pytest.raises(AssertionError, match="no wandb-core"):
        wandb_service()


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_package_that_is_not_installed(empty_project, monkeypatch, tracker):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)  # which imports the package
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(UserError, match=rf"{tracker} failed to start: .*'pip install leaf-activations\[tracking\]'"):
        train(Tracking((tracker,)))


def test_trackers_that_are_not_configured_are_not_imported(empty_project):
    code = "import sys; sys.modules['tensorboard'] = sys.modules['wandb'] = None; from leaf.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "lenet5/fashion_mnist/relu/classic/adam/seed42", "--scale", "tiny"]
    command += ["--settings", Settings(epochs=1, train_images=128, test_images=50).to_json(), "--device", "cpu"]
    command += ["--precision", "float32", "--threads", "1", "--tracking", '{"trackers": []}']
    subprocess.run(command, check=True)
    assert not Path("tracking").exists()
