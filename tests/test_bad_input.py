"""Users' mistakes: one line that says what is wrong and what would be right, exit status 1, no output files."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import PROJECT

from leaf.cli import main
from leaf.experiment.cells import Cell
from leaf.experiment.datasets import dataset_file
from leaf.experiment.job import train_cell
from leaf.experiment.scales import Settings

CELL = "lenet5/fashion_mnist/leaf-tanh/p24sl/adam/seed42"
SETTINGS = Settings(epochs=1, train_images=128, test_images=50)
TINY = ["--scale", "tiny", "--settings", SETTINGS.to_json()]


@pytest.fixture
def project(tmp_path, monkeypatch, data):
    """A project without results, with links to the data sets that a test may replace."""
    for name in ("config.yaml", "workflow"):
        os.symlink(PROJECT / name, tmp_path / name)
    (tmp_path / "resources/datasets").mkdir(parents=True)
    for file in (PROJECT / "resources/datasets").iterdir():
        os.symlink(file, tmp_path / "resources/datasets" / file.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(directory: Path) -> set[str]:
    """All files except a cell's directory, its lock and its status."""
    return {str(file) for file in directory.rglob("*") if file.is_file() and file.name not in ("lock", "status.json")}


def assert_refused(project: Path, arguments: list[str], message: str) -> None:
    before = tree(project)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    said = str(exit_.value.code)
    assert re.search(message, said), said
    assert said.startswith("leaf: ")
    assert "\n" not in said
    assert tree(project) == before


def experiment(**changes):
    whole = {
        "title": "Mine", "networks": ["lenet5"], "datasets": ["cifar10"], "activations": ["relu"],
        "procedures": ["classic"], "optimizers": ["adam"], "seeds": [1], "cells": [{}],
    }  # fmt: skip
    return {"experiments": {"mine": {**whole, **changes}}}


def scale(**changes):
    return {"scales": {"mine": {"extends": "quick", **changes}}}


CONFIGURATIONS = {
    "unknown key": ({"scal": "quick"}, "unknown key 'scal' .did you mean 'scale'"),
    "unknown scale": ({"scale": "papre"}, "unknown scale 'papre' .did you mean 'paper'"),
    "scale a number": ({"scale": 3}, "scale: expected string, found 3"),
    "scale null": ({"scale": None}, "scale: expected string, found None"),
    "scales a list": ({"scales": ["quick"]}, "scales: expected object"),
    "scale named with a slash": ({"scales": {"a/b": {"extends": "quick"}}}, "scales: 'a/b' does not match"),
    "quick changed": ({"scales": {"quick": {"extends": "quick"}}}, "a fixed scale; choose another name"),
    "paper changed": ({"scales": {"paper": {"extends": "quick"}}}, "a fixed scale; choose another name"),
    "extends nothing": ({"scales": {"mine": {"epochs": 1}}}, "scales.mine: 'extends' is a required property"),
    "extends the unknown": (scale(extends="qick"), "scales.mine.extends: unknown scale 'qick'"),
    "a name that is taken": ({"scales": {"shipped": {"extends": "quick"}}}, "scales.shipped: reports/shipped is taken"),
    "extends itself": (scale(extends="mine"), "scales: mine: extends is circular"),
    "extend each other": (
        {"scales": {"a": {"extends": "b"}, "b": {"extends": "a"}}},
        "scales: a, b: extends is circular",
    ),
    "zero epochs": (scale(epochs=0), "scales.mine.epochs: 0 is less than the minimum of 1"),
    "negative epochs": (scale(epochs=-5), "scales.mine.epochs: -5 is less than"),
    "epochs as text": (scale(epochs="5"), "scales.mine.epochs: expected integer, found '5'"),
    "fractional epochs": (scale(epochs=1.5), "scales.mine.epochs: expected integer, found 1.5"),
    "epochs true": (scale(epochs=True), "scales.mine.epochs: expected integer, found True"),
    "zero batch size": (scale(batch_size=0), "scales.mine.batch_size: 0 is less than"),
    "negative batch size": (scale(batch_size=-128), "scales.mine.batch_size: -128 is less than"),
    "zero images": (scale(train_images=0), "scales.mine.train_images: 0 is less than"),
    "test images as text": (scale(test_images="all"), "scales.mine.test_images: expected integer or null"),
    "zero seeds": (scale(seeds=0), "scales.mine.seeds: 0 is less than"),
    "misspelt setting": (scale(epoch=3), "scales.mine: unknown key 'epoch' .did you mean 'epochs'"),
    "no experiments": ({"experiments": None}, "experiments: expected object"),
    "experiments a list": ({"experiments": []}, "experiments: expected object"),
    "experiment named with a dash": ({"experiments": {"my-own": experiment()["experiments"]["mine"]}}, "'my-own' does"),
    "no cells": (experiment(cells=[]), "experiments.mine.cells:"),
    "cells a mapping": (experiment(cells={}), "experiments.mine.cells: expected array"),
    "cell a text": (experiment(cells=["relu"]), "experiments.mine.cells.0: expected object, found 'relu'"),
    "misspelt list": (
        experiment(cells=[{"activation": ["relu"]}]),
        "unknown key 'activation' .did you mean 'activations'",
    ),
    "empty networks": (experiment(networks=[]), "experiments.mine.networks:"),
    "networks a text": (experiment(networks="lenet5"), "experiments.mine.networks: expected array"),
    "a network twice": (experiment(networks=["lenet5", "lenet5"]), "mine.networks: .*non-unique"),
    "unknown network": (experiment(networks=["lenet"]), "unknown network 'lenet' .did you mean 'lenet5'"),
    "unknown data set": (experiment(datasets=["mnist"]), "unknown dataset 'mnist'"),
    "unknown activation": (experiment(activations=["ReLU"]), "unknown activation 'ReLU'.*known: relu, silu"),
    "unknown procedure": (experiment(procedures=["dspu4"]), "unknown procedure 'dspu4'"),
    "unknown optimizer": (experiment(optimizers=["sgd"]), "unknown optimizer 'sgd'.*known: adam, rmsprop"),
    "AHAF as tanh": (experiment(activations=["ahaf-tanh"]), "cell lenet5/cifar10/ahaf-tanh/.*unknown activation"),
    "P24Sl on ReLU": (experiment(procedures=["p24sl"]), "'p24sl' slows down p2 and p4 and 'relu' has neither"),
    "DSPT of a base function": (
        experiment(procedures=["dspt"]),
        "'dspt' trains activation parameters .* 'relu' has none",
    ),
    "no seeds": (experiment(seeds=[]), "experiments.mine.seeds:"),
    "a seed twice": (experiment(seeds=[1, 1]), "experiments.mine.seeds: .*non-unique"),
    "a negative seed": (experiment(seeds=[-1]), "experiments.mine.seeds.0: -1 is less than"),
    "a seed as text": (experiment(seeds=["1"]), "experiments.mine.seeds.0: expected integer"),
    "a huge seed": (experiment(seeds=[2**31]), "experiments.mine.seeds.0: 2147483648 is greater than"),
    "in_all as text": (experiment(in_all="yes"), "experiments.mine.in_all: expected boolean"),
    "unknown precision": (
        {"precision": "half"},
        "precision: 'half' is not one of 'float32', 'tf32', 'tf32-convolutions', 'bfloat16'",
    ),
    "unknown device": ({"device": "gpu"}, "device: 'gpu' is not one of 'auto', 'cpu', 'cuda'"),
    "unknown figure format": ({"figure_format": "jpg"}, "figure_format: 'jpg' is not one of"),
    "checkpoint never": ({"checkpoint": {"epochs": 0}}, "checkpoint.epochs: 0 is less than"),
    "checkpoint in zero minutes": ({"checkpoint": {"minutes": 0}}, "checkpoint.minutes: 0 is less than or equal"),
    "unknown tracker": ({"tracking": {"trackers": ["aim"]}}, "trackers.0: 'aim' is not one of 'tensorboard', 'wandb'"),
    "a tracker twice": ({"tracking": {"trackers": ["wandb", "wandb"]}}, "tracking.trackers: .*non-unique"),
    "unknown mode": ({"tracking": {"wandb_mode": "off"}}, "wandb_mode: 'off' is not one of 'offline', 'online'"),
    "directory a number": ({"datasets_directory": 5}, "datasets_directory: expected string or null"),
}


@pytest.mark.parametrize(("values", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configuration(project, values, message):
    assert_refused(project, ["cells", "--config", json.dumps(values)], message)


FILES = {
    "no YAML": (b"scale: [quick\nscales: {", r"mine.yaml: .*line 2"),
    "a tab": (b"scale:\n\tquick", r"mine.yaml: .*line 2"),
    "a list": (b"- scale\n", "mine.yaml: expected keys and values, found list"),
    "empty": (b"", "mine.yaml: expected keys and values, found NoneType"),
    "no text": (b"\xff\xfe\x00", "mine.yaml: "),
    "a scale's name a number": (b"scales: {2024: {extends: paper}}", "scales: expected string, found 2024"),
    "code": (b"scale: !!python/object/apply:os.system ['touch pwned']", "mine.yaml: could not determine a constructor"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_configuration_file(project, content, message):
    (project / "mine.yaml").write_bytes(content)
    assert_refused(project, ["cells", "--configfile", "mine.yaml"], message)


COMMANDS = {
    "no such configuration file": (["cells", "--configfile", "none.yaml"], "none.yaml not found"),
    "no cell": (["train", "lenet5"], "'lenet5' names no cell; a cell's name looks like {network}/{dataset}"),
    "misspelt cell": (
        ["train", CELL.replace("tanh", "than")],
        "unknown activation 'leaf-than' .did you mean 'leaf-tanh'",
    ),
    "settings no JSON": (["train", CELL, "--scale", "tiny", "--settings", "{"], "--settings '{'"),
    "unknown setting": (["train", CELL, "--scale", "tiny", "--settings", '{"epoch": 1}'], "--settings .*epoch"),
    "settings of a wrong type": (
        ["train", CELL, "--scale", "tiny", "--settings", '{"epochs": "3"}'],
        "settings: epochs must be a whole number from 1 to 100000, not '3'",
    ),
    "no such precision": (
        ["train", CELL, *TINY, "--precision", "float16"],
        "unknown precision 'float16'; known: float32",
    ),
    "precision of GPUs": (
        ["train", CELL, *TINY, "--device", "cpu", "--precision", "tf32"],
        "tf32 needs a GPU",
    ),
    "precision of convolutions on GPUs": (
        ["train", CELL, *TINY, "--device", "cpu", "--precision", "tf32-convolutions"],
        "precision: tf32-convolutions needs a GPU",
    ),
    "no such tracker": (
        ["train", CELL, *TINY, "--tracking", '{"trackers": ["aim"]}'],
        "tracking: unknown tracker 'aim'; known: tensorboard, wandb",
    ),
    "tracking no JSON": (["train", CELL, *TINY, "--tracking", "wandb"], "--tracking 'wandb': .*expected JSON such as"),
    "no such device": (["train", CELL, *TINY, "--device", "gpu"], "unknown device 'gpu'; known: auto, cpu, cuda"),
    "overrides no YAML": (["cells", "--config", "{scale: paper"], "--config '{scale: paper': .*line 1"),
    "statistics no YAML": (["table", CELL, *TINY, "--statistics", "{", "--differences", "a.csv"], "--statistics '{': "),
    "statistics misspelt": (
        ["table", CELL, *TINY, "--statistics", "{metrics: auto}", "--differences", "a.csv"],
        "--statistics '{metrics: auto}': expected metric and confidence",
    ),
    "no such filter": (["cells", "--dataset", "mnist"], "unknown dataset 'mnist'"),
    "no table": (["table", CELL], "nothing to make; ask for one or more of: --summary, --paper"),
    "no such format": (["table", CELL, "--paper", "a.xls"], "a.xls: unknown table format '.xls'"),
    "no such picture": (["figure", "--initial_forms", "a.gif2"], "a.gif2: unknown figure format '.gif2'"),
    "no figure": (["figure", CELL], "nothing to make; ask for one or more of: --progress, --forms"),
    "forms of two cells": (["figure", CELL, CELL.replace("42", "43"), "--forms", "a.svg"], "2 cells given; .*takes"),
    "progress of no cell": (["figure", "--progress", "a.svg"], "0 cells given; --progress takes one or more"),
    "forms of no training": (["figure", CELL, "--evolution", "a.svg"], f"{CELL}: no learned curves at scale quick"),
    "no records": (["analyse", "nowhere"], "nowhere: no collected records .*leaf collect"),
}


@pytest.mark.parametrize(("arguments", "message"), COMMANDS.values(), ids=COMMANDS)
def test_command(project, arguments, message):
    assert_refused(project, arguments, message)


def replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def swapped(arrays):
    return arrays | {"train_images": arrays["test_images"], "test_images": arrays["train_images"]}


def tampered(arrays):
    labels = arrays["test_labels"].copy()
    labels[0] = (labels[0] + 1) % 10
    return arrays | {"test_labels": labels}


DATA = {
    "missing": (lambda file: file.unlink(), "fashion_mnist.safetensors is missing; run 'leaf fetch fashion_mnist'"),
    "empty": (lambda file: replace(file, b""), "cannot be read"),
    "truncated": (lambda file: replace(file, file.read_bytes()[:-10]), "cannot be read"),
    "another format": (lambda file: replace(file, pickle.dumps([1])), "cannot be read"),
    "swapped": (swapped, r"train_images is uint8\[10000, 1, 28, 28\], not uint8\[60000"),
    "tampered": (tampered, "test_labels has SHA-256"),
    "without labels": (lambda arrays: {"train_images": arrays["train_images"]}, "train_labels missing"),
    "of floats": (
        lambda arrays: arrays | {"test_labels": arrays["test_labels"].astype(np.float32)},
        r"test_labels is float32\[10000\], not uint8",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_set(project, case):
    change, message = DATA[case]
    file = dataset_file("fashion_mnist")
    if case in ("swapped", "tampered", "without labels", "of floats"):
        arrays = change(safetensors.numpy.load_file(file))
        replace(file, safetensors.numpy.save(arrays))
    else:
        change(file)
    assert_refused(project, ["train", CELL, *TINY, "--device", "cpu"], f"data set fashion_mnist: .*{message}")


@pytest.fixture
def trained(project):
    train_cell(Cell.parse(CELL), "tiny", SETTINGS, "cpu", log=lambda line: None)
    return Cell.parse(CELL).directory("tiny")


def other_model() -> bytes:
    return safetensors.numpy.save({"conv1.weight": np.zeros((1, 1))})


OUTPUTS = {
    "edited metrics": ("metrics.csv", lambda text: text.replace(b"0.0", b"0.9", 1), "metrics.csv is not the file"),
    "empty metrics": ("metrics.csv", lambda text: b"", "metrics.csv is not the file that the run wrote"),
    "metrics without a column": ("metrics.csv", lambda text: text.replace(b"test_loss", b"loss"), "metrics.csv is not"),
    "another model": ("model.safetensors", lambda content: other_model(), "model.safetensors is not the file"),
    "truncated forms": ("forms.safetensors", lambda content: content[:-1], "forms.safetensors is not the file"),
    "no record": ("run.json", lambda text: b"{}", "run.json is not a record of a run"),
    "broken record": ("run.json", lambda text: text[:50], "run.json is not a record of a run"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_modified_outputs(project, trained, case):
    name, change, message = OUTPUTS[case]
    (trained / name).write_bytes(change((trained / name).read_bytes()))
    arguments = [CELL, *TINY, "--summary", "table.csv"]
    assert_refused(project, ["table", *arguments], f"{message}.*'leaf train' makes the outputs")
    (trained / "state.pt").unlink()
    said: list[str] = []
    train_cell(Cell.parse(CELL), "tiny", SETTINGS, "cpu", log=said.append)
    assert re.search(message, said[0])
    main(["table", *arguments])
    assert (project / "table.csv").exists()


def test_a_lost_output(project, trained):
    (trained / "model.safetensors").unlink()
    assert_refused(project, ["table", CELL, *TINY, "--summary", "a.csv"], "model.safetensors is missing")


def test_a_state_that_runs_code(project, trained):
    class Malicious:
        def __reduce__(self):
            return (os.system, ("touch pwned",))

    (trained / "run.json").unlink()
    torch.save({"identity": Malicious()}, trained / "state.pt")
    said: list[str] = []
    train_cell(Cell.parse(CELL), "tiny", SETTINGS, "cpu", log=said.append)
    assert "state.pt: damaged, skipped" in said[0]
    assert not (project / "pwned").exists()


def test_results_cannot_be_written(project):
    (project / "results").write_text("in the way")
    assert_refused(project, ["train", CELL, *TINY], "results/tiny/.*: cannot be written to: .*Not a directory")


def test_a_table_cannot_be_written(project, trained):
    (project / "tables").write_text("in the way")
    arguments = ["table", CELL, *TINY, "--summary", "tables/a.csv"]
    assert_refused(project, arguments, "tables/a.csv cannot be written: ")


def test_a_gpu_is_demanded(project):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert_refused(project, ["train", CELL, *TINY, "--device", "cuda"], "cuda is requested, but torch finds no GPU")


def test_a_gpu_runs_out_of_memory(project, monkeypatch):
    """Simulates the error without a GPU, with torch's message."""

    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 0 bytes free.")

    monkeypatch.setattr("leaf.experiment.training.training_step", out_of_memory)
    arguments = ["train", CELL, *TINY, "--device", "cpu"]
    assert_refused(project, arguments, f"{CELL}: with minibatches of 128 images: CUDA out of memory")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cells", "--scale", "papre"], "leaf: unknown scale 'papre' .did you mean 'paper'"),
        (["train", "lenet5/cifar10/relu/dspt/adam/seed1"], "leaf: cell .*'relu' has none"),
        (["fetch", "mnist"], "leaf: unknown dataset 'mnist'"),
    ],
)
def test_end_to_end(project, arguments, message):
    command = [sys.executable, "-c", "from leaf.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
