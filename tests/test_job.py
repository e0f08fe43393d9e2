"""One training job on real images: outputs, keeping, resuming, refusing."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from conftest import PROJECT
from project_copy import comparable_results

from leaf import build_network
from leaf.cli import main
from leaf.experiment import identity, job, provenance
from leaf.experiment.augmentation import to_unit_interval
from leaf.experiment.cells import OUTPUTS, SHOWN, Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.identity import settings_json
from leaf.experiment.job import Schedule, train_cell
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings

CELL = Cell("lenet5", "fashion_mnist", "leaf-tanh", "dspt-p24sl", "adam", 42)
SETTINGS = Settings(epochs=3, train_images=256, test_images=100)


def train(cell=CELL, settings=SETTINGS, **options) -> list[str]:
    said: list[str] = []
    train_cell(cell, "tiny", settings, "cpu", threads=1, log=said.append, **options)
    return said


def results():
    return comparable_results(CELL.directory("tiny"))


class Killed(Exception):
    pass


def kill_in_epoch(number: int):
    def progress(epoch, step, steps):
        if epoch == number:
            raise Killed

    return progress


def test_the_command_derives_what_the_forms_show_also_of_a_current_cell(empty_project):
    train()
    before = results()
    main(["train", CELL.name, "--scale", "tiny", "--settings", settings_json(SETTINGS, [CELL]), "--device", "cpu",
          "--precision", "float32", "--checkpoint-epochs", "1", "--checkpoint-minutes", "1", "--tracking",
          '{"trackers": []}', "--threads", "1"])  # fmt: skip
    assert (CELL.directory("tiny") / SHOWN).is_file() and results() == before


def test_outputs(empty_project):
    assert train() == [f"{CELL.name}: 3 epochs, test accuracy {results_accuracy():.2%}"]
    directory = CELL.directory("tiny")
    assert {file.name for file in directory.iterdir()} == {*OUTPUTS, "state.pt", "lock"}
    metrics = pd.read_csv(directory / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2, 3]
    assert (metrics["learning_rate"] == 1e-3).all() and (metrics["slow_learning_rate"] == 1e-6).all()
    assert metrics["test_accuracy"].between(0, 1).all() and (metrics["train_seconds"] > 0).all()

    network = build_network("lenet5", "fashion_mnist", "leaf-tanh")
    network.load_state_dict(safetensors.torch.load_file(directory / "model.safetensors"))
    forms = safetensors.torch.load_file(directory / "forms.safetensors")
    assert torch.equal(forms["parameters/activation3.p3"], network.activations[2].p3)
    assert forms["quantiles/activation1.p1"].shape == (4, 7)
    assert forms["quantiles/activation1.p2"][0].tolist() == [2.0] * 7
    final = network.activations[1].p3.detach().flatten()
    assert forms["quantiles/activation2.p3"][-1, 3].item() == pytest.approx(final.quantile(0.5).item())
    assert [forms[f"inputs/activation{i}"].sum().item() for i in (1, 2, 3)] == [
        100 * 20 * 24 * 24, 100 * 50 * 8 * 8, 100 * 500,
    ]  # fmt: skip
    assert len(forms["input_edges/activation2"]) == len(forms["inputs/activation2"]) + 1
    assert (forms["gradient_norms/start"] > 0).all() and len(forms["gradient_norms/end"]) == 4

    run = json.loads((directory / "run.json").read_text())
    assert run["identity"]["cell"] == CELL.name and run["diverged_at"] is None and run["epochs"] == 3
    assert run["identity"]["data"] == DATASETS["fashion_mnist"].sha256
    assert run["execution"] == {"threads": 1, "kernel": "numba", "precision": "float32"}
    (session,) = run["sessions"]
    assert session["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(session["commit"] or "0" * 40) == 40


def results_accuracy() -> float:
    return pd.read_csv(CELL.directory("tiny") / "metrics.csv")["test_accuracy"].iloc[-1]


def test_base_cells_have_inputs_and_gradient_norms_only(empty_project):
    cell = Cell("lenet5", "fashion_mnist", "tanh", "classic", "adam", 42)
    train(cell)
    forms = safetensors.torch.load_file(cell.directory("tiny") / "forms.safetensors")
    assert {name.split("/")[0] for name in forms} == {"inputs", "input_edges", "gradient_norms"}
    assert read_run(cell.directory("tiny")).execution.kernel == "reference"
    assert pd.read_csv(cell.directory("tiny") / "metrics.csv")["slow_learning_rate"].isna().all()


def test_current_outputs_are_kept_and_touched(empty_project):
    train()
    before = results()
    for name in OUTPUTS:
        os.utime(CELL.directory("tiny") / name, (1, 1))
    assert train(progress=kill_in_epoch(1)) == [f"{CELL.name}: outputs are current, kept"]
    assert results() == before
    assert all((CELL.directory("tiny") / name).stat().st_mtime > 1 for name in OUTPUTS)


def test_killed_at_any_epoch_ends_as_if_undisturbed(empty_project):
    train()
    expected = results()
    for name in (*OUTPUTS, "state.pt"):
        (CELL.directory("tiny") / name).unlink()
    for epoch in (1, 2, 3):
        with pytest.raises(Killed):
            train(progress=kill_in_epoch(epoch))
        status = CELL.directory("tiny") / "status.json"
        assert (json.loads(status.read_text())["epoch"] if status.exists() else 0) == epoch - 1
    assert train()[0] == f"{CELL.name}: resumes after epoch 2"
    assert results() == expected
    assert len(read_run(CELL.directory("tiny")).sessions) == 3  # the first had nothing to leave


def test_a_resumed_cell_computes_as_before(empty_project, monkeypatch):
    with monkeypatch.context() as without_numba:
        without_numba.setattr(job, "kernel_for", lambda device: "reference")
        train(precision="bfloat16")
        expected = results()
        for name in (*OUTPUTS, "state.pt"):
            (CELL.directory("tiny") / name).unlink()
        with pytest.raises(Killed):
            train(precision="bfloat16", progress=kill_in_epoch(2))
    assert train() == [
        f"{CELL.name}: resumes after epoch 1, with kernel reference, precision bfloat16 as before",
        f"{CELL.name}: 3 epochs, test accuracy {results_accuracy():.2%}",
    ]
    assert results() == expected
    run = read_run(CELL.directory("tiny"))
    assert (run.execution.kernel, run.execution.precision) == ("reference", "bfloat16")


def test_the_commit_is_that_of_the_code_or_none(tmp_path, monkeypatch):
    assert len(provenance.git().get("commit", "")) == (40 if (PROJECT / ".git").exists() else 0)
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "--allow-empty", "-qm", "a"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))  # installed within another project
    assert provenance.git() == {}


def test_every_device_that_a_cell_was_trained_on_is_reported(empty_project, monkeypatch):
    for device, epoch in (("one", 2), ("another", 3), ("one", 4)):
        monkeypatch.setattr(job, "device_name", lambda _, device=device: f"CPU ({device})")
        with suppress(Killed):
            train(progress=kill_in_epoch(epoch))
    run = read_run(CELL.directory("tiny"))
    assert [session.device for session in run.sessions] == ["CPU (one)", "CPU (another)", "CPU (one)"]
    assert run.device == "CPU (one) and CPU (another)"


def test_a_state_of_an_unavailable_kernel_is_kept_and_reported(empty_project, monkeypatch):
    with pytest.raises(Killed):
        train(progress=kill_in_epoch(2))
    with monkeypatch.context() as without_numba:
        without_numba.setattr(job, "kernel_for", lambda device: "reference")
        with pytest.raises(UserError, match="trained with the kernel 'numba', which is not available here"):
            train()
    assert "resumes after epoch 1" in train()[0]


def test_bfloat16_is_near_float32_and_something_else(empty_project):
    def losses(precision: str) -> pd.Series:
        train(settings=Settings(epochs=1, train_images=1280, test_images=100), precision=precision)
        for name in ("run.json", "state.pt"):
            (CELL.directory("tiny") / name).unlink()
        return pd.read_csv(CELL.directory("tiny") / "metrics.csv")["train_loss"]

    exact, rounded = losses("float32"), losses("bfloat16")
    assert (exact != rounded).all() and rounded.to_numpy() == pytest.approx(exact.to_numpy(), rel=0.02)


def test_validation_must_leave_images_to_train_on(empty_project):
    with pytest.raises(UserError, match="60000 validation_images leave none of fashion_mnist's 60000 training images"):
        train(settings=Settings(epochs=1, test_images=10, validation_images=60_000))


def test_lost_or_edited_outputs_are_written_again_without_training(empty_project):
    train()
    expected = results()
    directory = CELL.directory("tiny")
    (directory / "model.safetensors").unlink()
    (directory / "metrics.csv").write_text("epoch\n1\n")
    said = train(progress=kill_in_epoch(1))
    assert "metrics.csv is not the file that the run wrote" in said[0] and "after epoch 3" in said[1]
    assert results() == expected


def test_more_epochs_resume_from_the_state(empty_project):
    longer = Settings(epochs=5, train_images=256, test_images=100)
    train(settings=longer)
    expected = results()
    for name in (*OUTPUTS, "state.pt"):
        (CELL.directory("tiny") / name).unlink()
    train()
    assert "resumes after epoch 3" in train(settings=longer)[0]
    assert results() == expected


def train_longer(cell=CELL, scale="longer", **options) -> list[str]:
    """Two more epochs, as a separate scale."""
    said: list[str] = []
    train_cell(cell, scale, Settings(5, train_images=256, test_images=100), "cpu", 1, log=said.append, **options)
    return said


def test_a_longer_scale_resumes_from_the_state_of_the_shorter(empty_project):
    cell = Cell("kerasnet", "fashion_mnist", "leaf-silu", "dspt-p24sl", "adam", 42)  # with dropout
    train(cell)
    before = {file: file.read_bytes() for file in cell.directory("tiny").iterdir()}
    assert train_longer(cell, continues="tiny")[0] == f"{cell.name}: resumes after epoch 3 of the scale tiny"
    assert "resumes" not in train_longer(cell, "from the start", continues="nowhere")[0]
    assert comparable_results(cell.directory("longer")) == comparable_results(cell.directory("from the start"))
    assert {file: file.read_bytes() for file in cell.directory("tiny").iterdir()} == before
    assert [read_run(cell.directory(scale)).epochs for scale in ("tiny", "longer")] == [3, 5]
    assert len(read_run(cell.directory("longer")).sessions) == 2


def test_a_longer_scale_prefers_its_own_state(empty_project):
    train()
    with pytest.raises(Killed):
        train_longer(continues="tiny", progress=kill_in_epoch(5))
    assert train_longer(continues="tiny")[0] == f"{CELL.name}: resumes after epoch 4"


def test_a_shorter_scales_state_that_does_not_fit_is_passed_over(empty_project):
    train(settings=Settings(epochs=1, train_images=128, test_images=100))
    said = train_longer(continues="tiny")
    assert said[0] == f"{CELL.directory('tiny')}/state.pt: made with train images 128 instead of 256, skipped"
    assert "resumes" not in said[1] and len(pd.read_csv(CELL.directory("longer") / "metrics.csv")) == 5


@pytest.mark.parametrize("what", ["settings", "training version", "damaged", "too long"])
def test_states_that_do_not_fit_are_passed_over(empty_project, monkeypatch, what):
    train()
    settings = SETTINGS
    if what == "settings":
        settings = Settings(epochs=3, train_images=128, test_images=100)
        word = "made with train images 256 instead of 128"
    elif what == "training version":
        monkeypatch.setattr(identity, "TRAINING_VERSION", 10**6)
        word = "made with training version 1 instead of 1000000"
    elif what == "too long":
        settings = Settings(epochs=2, train_images=256, test_images=100)
        word = "made with 3 epochs instead of at most 2"
    else:
        (CELL.directory("tiny") / "run.json").unlink()
        (CELL.directory("tiny") / "state.pt").write_bytes(b"PK rubbish")
        word = "damaged"
    said = train(settings=settings)
    assert word in said[0] and "resumes" not in " ".join(said)
    assert len(pd.read_csv(CELL.directory("tiny") / "metrics.csv")) == settings.epochs


def test_a_damaged_state_falls_back_to_the_one_before(empty_project):
    train()
    expected = results()
    for name in (*OUTPUTS, "state.pt"):
        (CELL.directory("tiny") / name).unlink()
    with pytest.raises(Killed):
        train(progress=kill_in_epoch(3))
    (CELL.directory("tiny") / "state.pt").write_bytes(b"")
    said = train()
    assert "state.pt: damaged" in said[0] and "resumes after epoch 1" in said[1]
    assert results() == expected


def test_a_cell_has_one_trainer_at_a_time(empty_project):
    train()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.flock(f, fcntl.LOCK_EX);"
         "print('held', flush=True); time.sleep(1)", str(CELL.directory("tiny") / "lock")],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    started = time.monotonic()
    said = train()
    assert "held by process" in said[0] and "waiting" in said[0] and time.monotonic() - started > 0.3
    assert holder.wait(60) == 0


def test_divergence_is_a_result(empty_project, monkeypatch):
    """Images are set to NaN in the second epoch to simulate divergence."""
    calls = 0

    def poisoned(pixels, dtype):
        nonlocal calls
        calls += 1
        # an epoch is two minibatches of training and one of testing, after one for the gradient norms
        return to_unit_interval(pixels, dtype) * (float("nan") if calls == 6 else 1.0)

    monkeypatch.setattr("leaf.experiment.training.to_unit_interval", poisoned)
    said = train()
    assert said == [f"{CELL.name}: diverged at epoch 2, first in conv1, test accuracy {results_accuracy():.2%}"]
    run = read_run(CELL.directory("tiny"))
    assert (run.diverged_at, run.epochs, run.nonfinite_layer) == (2, 2, "conv1")
    metrics = pd.read_csv(CELL.directory("tiny") / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2] and metrics["train_loss"].isna().tolist() == [False, True]
    labels = safetensors.torch.load_file("resources/datasets/fashion_mnist.safetensors")["test_labels"][:100]
    assert results_accuracy() == pytest.approx((labels == 0).double().mean().item())  # as published: class 0 throughout
    assert train() == [f"{CELL.name}: outputs are current, kept"]


def test_a_missing_gpu(empty_project):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="cuda is requested, but torch finds no GPU"):
        train_cell(CELL, "tiny", SETTINGS, "cuda")


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], (5, 30)), (["--checkpoint-epochs", "2"], (2, 30)), (["--checkpoint-minutes", "0.5"], (5, 0.5))],
)
def test_states_are_written_as_often_as_the_configuration_or_the_command_line_says(
    empty_project, monkeypatch, options, expected
):
    config = yaml.safe_load((PROJECT / "config.yaml").read_text()) | {"checkpoint": {"epochs": 5, "minutes": 30}}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    Path("workflow").symlink_to(PROJECT / "workflow")
    schedules = []
    monkeypatch.setattr(job, "train_cell", lambda *arguments, **_: schedules.extend(arguments))
    monkeypatch.setattr("leaf.analysis.forms.read_forms", lambda cell, directory: None)  # nothing was trained
    main(["train", CELL.name, "--settings", SETTINGS.to_json(), "--scale", "tiny", *options])
    assert Schedule(*expected) in schedules


def test_command_line_and_its_start(empty_project, monkeypatch):
    """The training process does not import what only tables and figures need, and uses little memory."""
    code = (
        "import sys; from leaf.cli import main; main(sys.argv[1:]);"
        "print(sorted({'pandas', 'matplotlib', 'snakemake', 'torchvision'} & set(sys.modules)))"
    )
    cell = Cell("kerasnet", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 1)
    settings = Settings(epochs=1, train_images=256, test_images=1000)
    options = {"scale": "tiny", "settings": settings.to_json(), "device": "cpu", "precision": "float32", "threads": "2"}
    command = ["train", cell.name, *(text for key, value in options.items() for text in (f"--{key}", value))]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "1 epochs, test accuracy" in done.stdout
    run = read_run(cell.directory("tiny"))
    assert run.execution.threads == 2 and run.peak_memory_bytes < 1.5 * 2**30
