"""Identity of results: the job, ``leaf status``, ``collect``, ``prune`` and Snakemake agree on every change."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from conftest import PROJECT
from test_job import Killed, kill_in_epoch

from leaf.analysis.collection import collect
from leaf.experiment import identity, provenance
from leaf.experiment.cells import OUTPUTS, Cell
from leaf.experiment.clearing import prune
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.identity import settings_json
from leaf.experiment.job import train_cell
from leaf.experiment.plugins import load_plugins, unload_plugins
from leaf.experiment.runs import Run, read_run, write_run
from leaf.experiment.scales import Settings
from leaf.experiment.status import look

SETTINGS = Settings(epochs=3, train_images=256, test_images=100)
PLUGIN = (PROJECT / "examples/my_network.py").read_text().replace("128", "8")
CELL = Cell("lenet5", "fashion_mnist", "tanh", "classic", "adam", 42)
PATCHED = Cell("lenet5", "fashion_mnist", "leaf-tanh", "patch1-p24sl", "adam", 42)


def train(cell: Cell, settings: Settings = SETTINGS, scale: str = "tiny", **options) -> list[str]:
    said: list[str] = []
    train_cell(cell, scale, settings, **{"device": "cpu", "threads": 1, "log": said.append, **options})
    return said


def first_words(cell: Cell, settings: Settings, **options) -> str:
    """Messages of the job before it starts to train."""
    said: list[str] = []
    with suppress(Killed, UserError):
        train(cell, settings, log=said.append, progress=stop, **options)
    return "\n".join(said)


def stop(epoch: int, step: int, steps: int) -> None:
    raise Killed


@contextmanager
def plugin_cell() -> Iterator[Cell]:
    """A cell whose network is in the plugin file ``plugin.py``."""
    try:
        load_plugins(["plugin.py"])
        yield Cell("mlp", "fashion_mnist", "tanh", "classic", "adam", 42)
    finally:
        unload_plugins()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """Three cells, each twice: finished at the scale tiny, interrupted in the last epoch at the scale early."""
    directory = tmp_path_factory.mktemp("identity")
    (directory / "resources").symlink_to(PROJECT / "resources")
    (directory / "plugin.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        with plugin_cell() as own:
            train(PATCHED.parent)
            for cell in (CELL, own, PATCHED):
                with pytest.raises(Killed):
                    train(cell, progress=kill_in_epoch(3))
                shutil.copytree(cell.directory("tiny"), cell.directory("early"))
                train(cell)
            shutil.copytree(PATCHED.parent.directory("tiny"), PATCHED.parent.directory("early"))
    return directory


@pytest.fixture
def project(trained, tmp_path, monkeypatch) -> Iterator[None]:
    copy = shutil.copytree(trained, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(copy)
    yield
    unload_plugins()


# --- changes ----------------------------------------------------------------------------------------------------------


def change_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(identity, "TRAINING_VERSION", identity.TRAINING_VERSION + 1)


def change_data(patch: pytest.MonkeyPatch) -> None:
    changed = replace(DATASETS["fashion_mnist"], sha256=dict.fromkeys(DATASETS["fashion_mnist"].sha256, "0"))
    patch.setitem(DATASETS.data, "fashion_mnist", changed)


def change_device(patch: pytest.MonkeyPatch) -> None:
    """Pretend that the cell was trained on a GPU so far."""
    for scale in ("tiny", "early"):
        directory = CELL.directory(scale)
        state = torch.load(directory / "state.pt", weights_only=True)
        state["identity"]["device"] = "cuda"
        torch.save(state, directory / "state.pt")
        for file in (directory / "run.json", directory / "status.json"):
            if file.exists():
                values = json.loads(file.read_text())
                values["identity"]["device"] = "cuda"
                file.write_text(json.dumps(values))
        (directory / "state.previous.pt").unlink(missing_ok=True)


def change_plugin(patch: pytest.MonkeyPatch) -> None:
    Path("plugin.py").write_text(PLUGIN + "\n")
    load_plugins(["plugin.py"])


def change_parent(patch: pytest.MonkeyPatch) -> None:
    for scale in ("tiny", "early"):
        directory = PATCHED.parent.directory(scale)
        run, file = read_run(directory), directory / "model.safetensors"
        weights = {name: 2 * weight for name, weight in safetensors.torch.load_file(file).items()}
        safetensors.torch.save_file(weights, file)
        write_run(directory, run)


class Change(NamedTuple):
    """A change and its required consequences.

    ``params`` tells whether Snakemake's parameters change: a new version of the code or of a data set trains nothing by
    itself, and a parent is an input file of the rule.
    """

    current: bool
    resumes: bool
    params: bool
    cell: str = "built in"
    settings: Settings = SETTINGS
    options: dict = {}
    make: Callable[[pytest.MonkeyPatch], None] = lambda patch: None


CHANGES = {
    "nothing": Change(True, True, False),
    "nothing, with a plugin": Change(True, True, False, "plugin"),
    "nothing, with a parent": Change(True, True, False, "patched"),
    "plugin": Change(False, False, True, "plugin", make=change_plugin),
    "settings": Change(False, False, True, settings=replace(SETTINGS, train_images=128)),
    "more epochs": Change(False, True, True, settings=replace(SETTINGS, epochs=4)),
    "fewer epochs": Change(False, False, True, settings=replace(SETTINGS, epochs=1)),
    "version": Change(False, False, False, make=change_version),
    "data": Change(False, False, False, make=change_data),
    "device": Change(True, False, False, make=change_device),
    "parent": Change(False, False, False, "patched", make=change_parent),
    "precision": Change(True, True, False, options={"precision": "bfloat16"}),
    "threads": Change(True, True, False, options={"threads": 2}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_all_commands_agree_on_a_change(project, monkeypatch, change):
    with plugin_cell() as own:
        cell = {"built in": CELL, "plugin": own, "patched": PATCHED}[change.cell]
        before = settings_json(SETTINGS, [cell])
        change.make(monkeypatch)

        assert (settings_json(change.settings, [cell]) != before) == change.params
        (finished,) = look([cell], "tiny", change.settings, device="cpu")
        assert finished.status == ("done" if change.current else "stale")
        assert finished.detail.removeprefix("made with ")  # a stale cell names what differs
        (collected,) = collect({cell: ()}, "tiny", change.settings).cells["status"]
        assert collected == finished.status
        assert set(prune([cell], "tiny", change.settings)) == ({cell} if change.current else set())
        said = first_words(cell, change.settings, **change.options)
        assert ("outputs are current, kept" in said) == change.current

        (interrupted,) = look([cell], "early", change.settings, device="cpu")
        assert ("resumes after epoch 2" in interrupted.detail) == change.resumes
        assert ("starts again" in interrupted.detail) != change.resumes
        said = first_words(cell, change.settings, scale="early", **change.options)
        assert ("resumes after epoch 2" in said) == change.resumes


def test_a_longer_scale_resumes_where_status_says(project, monkeypatch):
    longer = replace(SETTINGS, epochs=4)
    for change, resumes in ((lambda patch: None, True), (change_data, False)):
        change(monkeypatch)
        (found,) = look([CELL], "longer", longer, continues="tiny")
        said = first_words(CELL, longer, scale="longer", continues="tiny")
        assert ("of the scale tiny" in found.detail) == ("of the scale tiny" in said) == resumes
        shutil.rmtree(CELL.directory("longer"))


# --- files of commit 2790cbb ------------------------------------------------------------------------------------------

OLD_RUN = {
    "cell": {**asdict(CELL), "name": CELL.name},
    "scale": "tiny",
    "settings": {
        "epochs": 3, "batch_size": 128, "train_images": 256, "test_images": 100, "validation_images": 0,
        "shuffle": False,
    },
    "threads": 1, "kernel": "triton", "precision": "tf32", "device": "NVIDIA H100 80GB HBM3",
    "sessions": [
        {"started": "2026-11-26T04:17:21+00:00", "host": "vm", "seconds": 1.5},
        {"started": "2026-11-27T04:17:21+00:00", "host": "vm", "device": "NVIDIA H100 80GB HBM3", "seconds": 419.497},
    ],
    "data_sha256": DATASETS["fashion_mnist"].sha256,
    "training_version": 1, "epochs": 3, "diverged_at": None, "nonfinite_layer": None, "network_parameters": 1600042,
    "train_seconds": 397.968, "peak_memory_bytes": 1631010816,
    "versions": {"python": "3.12.3", "leaf-activations": "0.1.0", "torch": "2.11.0", "numpy": "2.5.2"},
    "git": {"commit": "2790cbb43e657f21549995efb77ba288723df7f7", "clean": True},
}  # fmt: skip
"""A ``run.json`` as commit 2790cbb wrote it."""


def test_a_run_of_the_old_layout_is_current(project):
    directory = CELL.directory("tiny")
    digests = json.loads((directory / "run.json").read_text())["sha256"]
    (directory / "run.json").write_text(json.dumps({**OLD_RUN, "sha256": digests}))
    assert train(CELL) == [f"{CELL.name}: outputs are current, kept"]
    (row,) = collect({CELL: ()}, "tiny", SETTINGS).cells.to_dict("records")
    assert row["status"] == "done" and (row["commit"], row["clean"]) == (OLD_RUN["git"]["commit"], True)
    assert (row["device"], row["kernel"], row["torch"]) == ("NVIDIA H100 80GB HBM3", "triton", "2.11.0")
    run = read_run(directory)
    assert (run.identity.device, run.sessions[0].commit) == ("cuda", None)
    write_run(directory, run)
    assert read_run(directory) == run == Run.from_json(json.loads((directory / "run.json").read_text()))


def test_a_state_of_the_old_layout_is_resumed(project):
    with plugin_cell() as cell:
        file = cell.directory("early") / "state.pt"
        state = torch.load(file, weights_only=True)
        made = state["identity"]
        state["identity"] = {
            "cell": made["cell"],
            "settings": {key: value for key, value in made["settings"].items() if key != "epochs"},
            "training_version": 1, "data": made["data"], "device": "cpu", "guests": sorted(made["plugins"].values()),
        }  # fmt: skip
        state["sessions"] = [{"started": "2026-11-27T04:17:21+00:00", "host": "vm", "device": "CPU", "seconds": 1.0}]
        torch.save(state, file)
        assert "resumes after epoch 2" in look([cell], "early", SETTINGS)[0].detail
        assert "resumes after epoch 2" in train(cell, scale="early")[0]
        for name in OUTPUTS[1:3]:
            assert (cell.directory("early") / name).read_bytes() == (cell.directory("tiny") / name).read_bytes()


def test_files_with_former_names_are_read(project):
    """``guests`` instead of ``plugins``, and the kernel ``plain`` instead of ``reference``."""

    def rename(values):
        values["identity"]["guests"] = values["identity"].pop("plugins")
        return values

    with plugin_cell() as cell:
        early, finished = cell.directory("early"), cell.directory("tiny")
        state = rename(torch.load(early / "state.pt", weights_only=True))
        state["execution"]["kernel"] = "plain"
        torch.save(state, early / "state.pt")
        for file in (early / "status.json", finished / "run.json"):
            file.write_text(json.dumps(rename(json.loads(file.read_text()))))
        assert train(cell) == [f"{cell.name}: outputs are current, kept"]
        assert train(cell, scale="early")[0] == f"{cell.name}: resumes after epoch 2"
        assert read_run(early).execution.kernel == "reference"


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_commit_made_during_training_is_not_recorded_as_the_one_that_trained(empty_project, monkeypatch):
    commits = iter("abc")
    monkeypatch.setattr(provenance, "git", lambda: {"commit": next(commits), "clean": True})
    with pytest.raises(Killed):
        train(CELL, progress=kill_in_epoch(2))

    def commit(epoch: int, step: int, steps: int) -> None:
        monkeypatch.setattr(provenance, "git", lambda: {"commit": "during training", "clean": False})

    train(CELL, progress=commit)
    run = read_run(CELL.directory("tiny"))
    assert [(session.commit, session.clean) for session in run.sessions] == [("a", True), ("b", True)]
    (row,) = collect({CELL: ()}, "tiny", SETTINGS).cells.to_dict("records")
    assert (row["commit"], row["clean"]) == ("a and b", True)


def test_what_would_fail_at_the_end_fails_before_training(empty_project, monkeypatch):
    in_the_way = CELL.directory("tiny") / "forms.safetensors"
    in_the_way.mkdir(parents=True)
    with pytest.raises(UserError, match=r"forms\.safetensors: is not a file"):
        train(CELL, progress=stop)
    in_the_way.rmdir()

    def version(package: str) -> str:
        raise PackageNotFoundError("no-such-package")

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "version", version)
        with pytest.raises(UserError, match="package no-such-package is not installed"):
            train(CELL, progress=stop)
    assert look([CELL], "tiny", SETTINGS)[0].status == "failed"
