"""Every command line in docs/reruns.md, with the jobs that Snakemake plans for it."""

import json
import re
import shlex
import shutil
import socket
from dataclasses import replace

import pytest
import yaml
from conftest import PROJECT
from project_copy import Copy, job_counts
from test_job import Killed, kill_in_epoch

from leaf.cli import main
from leaf.experiment.augmentation import to_unit_interval
from leaf.experiment.cells import OUTPUTS, Cell
from leaf.experiment.config import read_config
from leaf.experiment.job import train_cell
from leaf.experiment.progress import Progress, write_progress

SMALL = """
scale: tiny
scales:
  tiny: {extends: quick, epochs: 1, train_images: 128, test_images: 50, seeds: null}
experiments:
  linear_units:
    title: Linear units
    in_all: true
    networks: [lenet5, kerasnet]
    datasets: [fashion_mnist]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [relu], procedures: [classic]}
      - {activations: [leaf-relu], procedures: [p24sl]}
  bounded_functions:
    title: Bounded functions
    in_all: true
    networks: [lenet5]
    datasets: [fashion_mnist]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [tanh], procedures: [classic]}
      - {activations: [leaf-tanh], procedures: [p24sl]}
device: cpu
"""


def cell(activation: str, network: str = "lenet5", seed: int = 42) -> Cell:
    procedure = "p24sl" if activation.startswith("leaf") else "classic"
    return Cell(network, "fashion_mnist", activation, procedure, "adam", seed)


EXPERIMENTS = ("linear_units", "bounded_functions")
DONE, STALE, DIVERGED = [cell("relu"), cell("relu", "kerasnet")], cell("leaf-relu"), cell("tanh")
WAITING = {cell("leaf-tanh"), cell("leaf-relu", "kerasnet")}
ALL = {*DONE, STALE, DIVERGED, *WAITING}
NEW_SEED = {cell(one.activation, one.network, 43) for one in ALL}


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Copy:
    """A project with real cells of every kind, trained without Snakemake; one diverged because its images are NaN."""
    copy = Copy(tmp_path_factory.mktemp("reruns"), SMALL)
    config = {**yaml.safe_load((PROJECT / "config.yaml").read_text()), **yaml.safe_load(SMALL)}
    (copy.directory / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy.directory)
        patch.setattr("leaf.experiment.config.CONFIG", copy.directory / "config.yaml")
        for one in (*DONE, STALE):
            settings = read_config(overrides={"scales": {"tiny": {"epochs": 2 if one == STALE else 1}}}).scales["tiny"]
            train_cell(one, "tiny", settings.settings, "cpu", log=lambda line: None)
        patch.setattr("leaf.experiment.training.to_unit_interval", lambda *a: to_unit_interval(*a) * float("nan"))
        train_cell(DIVERGED, "tiny", read_config().scales["tiny"].settings, "cpu", log=lambda line: None)
    return copy


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """The same project as working directory, restored after the test."""
    shutil.copytree(finished.directory / "results", tmp_path / "results")
    monkeypatch.chdir(finished.directory)
    monkeypatch.setattr("leaf.experiment.config.CONFIG", finished.directory / "config.yaml")
    yield finished
    shutil.rmtree("results")
    shutil.move(tmp_path / "results", "results")


def documented() -> dict[str, tuple[list[str], dict[str, dict]]]:
    """Shell commands of the page by heading, with the configuration files that they name."""
    found = {}
    for section in (PROJECT / "docs/reruns.md").read_text().split("\n## ")[1:]:
        files = re.findall(r"file `(\w+\.yaml)`[^`]*```yaml\n(.*?)```", section, re.S)
        commands = re.findall(r"```sh\n(.*?)\n```", section, re.S)
        found[section.splitlines()[0]] = commands, {name: yaml.safe_load(content) for name, content in files}
    return found


def leaf(command: str, capsys) -> list[str]:
    """Lines printed by a ``leaf`` command."""
    capsys.readouterr()
    main(shlex.split(command)[1:])
    return capsys.readouterr().out.splitlines()


def dry_run(project: Copy, line: str, capsys) -> tuple[set[Cell], dict[str, int], str]:
    """Run a command line, except for Snakemake's jobs.

    Returns:
        The cells that would train, the number of jobs by rule, and all that Snakemake said.
    """
    *before, last = re.split(r" (?:&&|\| xargs -r) ", line)
    for command in before:
        printed = leaf(re.sub(r"\$\((.*)\)", lambda inner: " ".join(leaf(inner[1], capsys)), command), capsys)
    arguments = shlex.split(last)[1:] + (printed if "| xargs" in line else [])
    done = project.run("snakemake", "-n", "-p", *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return set(map(Cell.parse, re.findall(r"leaf train (\S+) ", said))), job_counts(said), said


COMMANDS = {
    "One cell": {cell("leaf-tanh")},
    "One experiment": {cell("leaf-relu", "kerasnet")},
    "One network": {cell("leaf-tanh")},
    "All LEAF cells": WAITING,
    "One more seed for everything": WAITING | NEW_SEED,
    "Longer training of finished cells": ALL,
    "Diverged cells": WAITING | {DIVERGED},
    "Stale cells": {STALE},
    "Every cell verified": ALL,
    "One cell from its start": WAITING | {cell("relu")},
}


def test_every_command_of_the_page_is_tested():
    elsewhere = {"The figures alone", "Disk space"}  # in test_workflow.py, and below
    assert set(documented()) == {*COMMANDS, *elsewhere}
    assert all(len(commands) == 1 and "\n" not in commands[0] for commands, _ in documented().values())


@pytest.mark.parametrize(("heading", "trained"), COMMANDS.items(), ids=COMMANDS)
def test_what_a_command_trains(project, capsys, heading, trained):
    (line,), files = documented()[heading]
    for name, content in files.items():  # of the page's, what this project has
        if "experiments" in content:
            content["experiments"] = {key: content["experiments"][key] for key in EXPERIMENTS}
        (project.directory / name).write_text(yaml.safe_dump(content).replace("paper", "tiny"))
    found, jobs, said = dry_run(project, line.replace("/quick/", "/tiny/"), capsys)
    assert found == trained and jobs["train"] == len(trained)
    if "xargs" in line or heading == "One cell":
        assert set(jobs) == {"train", "total"}
    elif heading == "One experiment":
        assert jobs["linear_units"] == 1 and "claims" not in jobs
    else:
        assert jobs["all"] == 1 and jobs["claims"] == 1
    assert ("--continues tiny" in said) == (heading == "Longer training of finished cells")


def files_of(one: Cell) -> set[str]:
    return {file.name for file in one.directory("tiny").iterdir()}


def test_forget(project, capsys):
    before = {one: files_of(one) for one in (*DONE, STALE)}
    said = leaf(f"leaf forget {DONE[0].name} {STALE.name} {cell('leaf-tanh').name}", capsys)
    assert re.fullmatch(rf"{DONE[0].name}: removed, \d\.\d MB", said[0]) and "removed" in said[1]
    assert said[2] == f"{cell('leaf-tanh').name}: nothing to remove"
    assert files_of(DONE[0]) == files_of(STALE) == {"lock"}  # someone may be waiting for it
    assert files_of(DONE[1]) == before[DONE[1]]
    assert leaf("leaf forget", capsys) == []
    with pytest.raises(SystemExit, match="'leaf-tanh' names no cell"):
        main(["forget", "leaf-tanh"])


def test_a_cell_in_training_is_not_forgotten(project, capsys):
    settings = read_config().scales["tiny"].settings
    held = cell("leaf-tanh").directory("tiny")
    refused = []

    def forget_too(epoch, step, steps):
        if step == steps:
            with pytest.raises(SystemExit) as exit_:
                main(["forget", DONE[0].name, cell("leaf-tanh").name])
            refused.append(exit_.value.code)

    train_cell(cell("leaf-tanh"), "tiny", settings, "cpu", progress=forget_too, log=lambda line: None)
    assert refused[0] == f"leaf: {held}: is being trained on {socket.gethostname()}; end it, or wait for it"
    assert {*OUTPUTS, "state.pt"} < files_of(cell("leaf-tanh")) and {*OUTPUTS, "state.pt"} < files_of(DONE[0])

    write_progress(held, Progress())
    words = json.loads((held / "status.json").read_text())
    (held / "status.json").write_text(json.dumps(words | {"host": "node17"}))  # as if another machine were at it
    with pytest.raises(SystemExit, match="is being trained on node17"):
        main(["forget", DONE[0].name, cell("leaf-tanh").name])
    assert {*OUTPUTS, "state.pt"} < files_of(DONE[0])


def test_prune_leaves_what_may_still_be_needed(project, capsys):
    settings = read_config().scales["tiny"].settings
    unfinished, damaged = cell("leaf-tanh"), DONE[1]
    with pytest.raises(Killed):
        train_cell(
            unfinished, "tiny", replace(settings, epochs=2), "cpu", progress=kill_in_epoch(2), log=lambda line: None
        )
    (damaged.directory("tiny") / "metrics.csv").unlink()
    freed = sum((one.directory("tiny") / "state.pt").stat().st_size for one in (DONE[0], DIVERGED))
    (line,) = documented()["Disk space"][0]
    assert leaf(line, capsys) == [f"tiny: states of 2 finished cells removed, {freed / 1e6:.1f} MB freed"]
    assert all("state.pt" not in files_of(one) and set(OUTPUTS) < files_of(one) for one in (DONE[0], DIVERGED))
    assert all("state.pt" in files_of(one) for one in (unfinished, damaged, STALE))
    assert leaf(line, capsys) == ["tiny: states of 0 finished cells removed, 0.0 MB freed"]
