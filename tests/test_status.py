"""Status of the grid from files: of real training that was ended, and with synthetic files of other machines."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import PROJECT
from test_job import Killed, kill_in_epoch

from leaf.cli import main
from leaf.experiment import identity, job
from leaf.experiment.cells import Cell
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.job import Stopped, train_cell
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings
from leaf.experiment.status import CellStatus, look, summarize

SETTINGS = Settings(epochs=3, train_images=256, test_images=100)
CELL = Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42)
DIRECTORY = CELL.directory("tiny")


def train(cell: Cell = CELL, settings: Settings = SETTINGS, **options) -> list[str]:
    said: list[str] = []
    train_cell(cell, "tiny", settings, "cpu", threads=1, log=said.append, **options)
    return said


def status(settings: Settings = SETTINGS) -> tuple[str, str]:
    (found,) = look([CELL], "tiny", settings)
    return found.status, found.detail


def test_a_real_process_from_its_start_to_its_end_by_force(empty_project):
    assert status() == ("waiting", "")
    long = Settings(epochs=50, train_images=1280, test_images=500)
    command = [sys.executable, "-c", "from leaf.cli import main; main()", "train", CELL.name, "--scale", "tiny"]
    command += ["--settings", long.to_json(), "--device", "cpu", "--precision", "float32", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen = set()
    while not re.search("^epoch [3-9]/", status(long)[1]):
        seen.add(status(long)[0])
        assert process.poll() is None
        time.sleep(0.05)
    assert seen <= {"waiting", "running"}
    running = rf"epoch \d/50(, minibatch \d+/10)?, accuracy \d\d\.\d\d%, [\d.]+ (s|min) left, on {socket.gethostname()}"
    assert status(long)[0] == "running" and re.fullmatch(running, status(long)[1])
    process.kill()
    process.wait(60)
    ended, detail = status(long)
    assert ended == "interrupted"
    found = re.search(r"^ended for an unknown reason in epoch (\d+)/50, .*; resumes after epoch (\d+)$", detail)
    assert found and int(found[1]) == int(found[2]) + 1
    with pytest.raises(Killed):  # what was said is what happens
        train(settings=long, progress=kill_in_epoch(int(found[1])))
    assert status(long) == ("failed", f"Killed; resumes after epoch {found[2]}")


def test_a_signal(empty_project):
    def stop(epoch, step, steps):
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(progress=stop)
    where = f"in epoch 2/3, minibatch 1/2, on {socket.gethostname()}"
    assert status() == ("interrupted", f"stopped by SIGTERM {where}; resumes after epoch 1, minibatch 1")
    other = replace(SETTINGS, train_images=128)
    assert status(other) == ("interrupted", f"stopped by SIGTERM {where}; starts again")
    assert train()[0] == f"{CELL.name}: resumes after epoch 1, minibatch 1"
    assert status()[0] == "done" and not (DIRECTORY / "status.json").exists()


def test_failures_report_their_reason(empty_project):
    (empty_project / "resources").unlink()
    with pytest.raises(UserError):
        train()
    assert status()[0] == "failed"
    assert status()[1].endswith("fashion_mnist.safetensors is missing; run 'leaf fetch fashion_mnist'; starts again")
    (empty_project / "resources").symlink_to(PROJECT / "resources")

    in_the_way = DIRECTORY / "state.previous.pt/in the way"

    def block_the_second_state(epoch, step, steps):
        if epoch == 2:
            in_the_way.mkdir(parents=True, exist_ok=True)

    with pytest.raises(UserError):
        train(progress=block_the_second_state)
    assert status()[0] == "failed" and re.search("state.pt cannot be written: .*; resumes after epoch 1$", status()[1])
    shutil.rmtree(in_the_way.parent)
    assert train()[0] == f"{CELL.name}: resumes after epoch 1"
    assert status()[0] == "done"


def test_an_error_of_the_program_is_reported_too(empty_project):
    with pytest.raises(Killed):
        train(progress=kill_in_epoch(3))
    assert status() == ("failed", "Killed; resumes after epoch 2")


def test_within_an_epoch(empty_project, monkeypatch):
    monkeypatch.setattr(job, "BEAT", 0)
    seen = []
    train(progress=lambda epoch, step, steps: seen.append(status()[1].split(", ")[0:2]))
    assert ["epoch 2/3", "minibatch 1/2"] in seen


def say_elsewhere(minutes: float, **changes) -> None:
    """Status file of a trainer on another machine some minutes ago, adapted from a real one."""
    words = json.loads((DIRECTORY / "status.json").read_text())
    then = datetime.now(UTC) - timedelta(minutes=minutes)
    words |= {"host": "node17", "updated": then.isoformat(timespec="seconds"), "failure": None, **changes}
    (DIRECTORY / "status.json").write_text(json.dumps(words))


def test_on_another_machine_a_recent_update_decides(empty_project):
    with pytest.raises(Killed):
        train(progress=kill_in_epoch(2))
    say_elsewhere(minutes=1)
    assert status()[0] == "running" and status()[1].endswith("on node17")
    say_elsewhere(minutes=10)
    assert status()[0] == "interrupted"
    assert "ended for an unknown reason in epoch 2/3, on node17; resumes after epoch 1" in status()[1]
    say_elsewhere(minutes=1, failure="the reason")
    assert status() == ("failed", "the reason; resumes after epoch 1")
    say_elsewhere(minutes=10, epoch=3)
    (shorter,) = look([CELL], "tiny", replace(SETTINGS, epochs=2))
    assert shorter.detail.endswith("; starts again") and shorter.epochs_left == 2  # its state has three behind it
    (DIRECTORY / "status.json").write_text("{}")  # no such words
    assert status() == ("interrupted", "without status.json; resumes from its state")


def test_a_file_system_without_locks(empty_project, monkeypatch):
    """Simulates a file system without locks. Training continues, and recent updates decide."""

    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    seen = []
    said = train(progress=lambda epoch, step, steps: seen.append(status()[0]))
    assert said[0] == f"{DIRECTORY}: cannot be locked (No locks available); no other process may train this cell"
    assert set(seen) == {"running"} and status()[0] == "done"
    longer = replace(SETTINGS, epochs=5)
    with pytest.raises(Killed):
        train(settings=longer, progress=kill_in_epoch(5))
    assert status(longer)[0] == "failed"
    say_elsewhere(minutes=10, host=socket.gethostname())
    assert status(longer)[0] == "interrupted"


def test_finished_cells(empty_project, monkeypatch):
    train()
    ended, detail = status()
    assert ended == "done" and re.fullmatch(r"3 epochs in \d+ s on CPU \(.*\)", detail)
    other = replace(SETTINGS, epochs=5, test_images=None)
    assert status(other) == ("stale", "made with epochs 3 instead of 5, test images 100 instead of None")
    with pytest.raises(Killed):
        train(settings=replace(SETTINGS, epochs=5), progress=kill_in_epoch(5))
    assert status(replace(SETTINGS, epochs=5))[0] == "failed"
    assert status()[0] == "done"  # what is current hides what was tried with other settings
    (DIRECTORY / "status.json").unlink()
    monkeypatch.setattr(identity, "TRAINING_VERSION", 0)
    assert status()[0] == "stale"
    (DIRECTORY / "metrics.csv").unlink()
    assert status() == (
        "damaged",
        f"{DIRECTORY}/metrics.csv is missing; 'leaf train' makes the outputs of {DIRECTORY} again",
    )


def test_outputs_that_changed_after_the_record_are_damaged(empty_project):
    """Those that did not are not read, which only those who use them do."""
    train()
    model, record = DIRECTORY / "model.safetensors", DIRECTORY / "run.json"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + b"x")
    os.utime(model, (0, 0))  # as copying programs set it
    assert status()[0] == "damaged"
    later = model.stat().st_ctime_ns + 10**9
    os.utime(record, ns=(later, later))
    assert status()[0] == "done"
    with pytest.raises(DamagedError, match=r"model\.safetensors is not the file that the run wrote"):
        read_run(DIRECTORY)
    model.write_bytes(content)
    assert status()[0] == "done"
    model.unlink()
    assert status()[0] == "damaged"


def test_a_longer_run_that_finds_a_shorter_ones_state(empty_project):
    train()
    (found,) = look([CELL], "longer", replace(SETTINGS, epochs=5), continues="tiny")
    assert (found.status, found.detail) == ("waiting", "resumes after epoch 3 of the scale tiny")
    assert found.epochs_left == 2
    (found,) = look([CELL], "longer", replace(SETTINGS, epochs=5, train_images=128), continues="tiny")
    assert (found.detail, found.epochs_left) == ("", 5)


def test_a_part_of_the_epochs(empty_project, monkeypatch):
    """Of a network that is patched after its first epoch, each of the two cells trains its own of the three."""
    patched = replace(CELL, procedure="patch1-p24sl")
    base = patched.parent

    def left(settings=SETTINGS, scale="tiny", **options):
        return [(one.detail, one.epochs_left) for one in look([base, patched], scale, settings, **options)]

    assert left() == [("", 1), ("", 2)]
    monkeypatch.setattr(job, "BEAT", 0)
    seen = []
    train(base, progress=lambda *_: seen.append(left()[0]))
    assert {epochs_left for _, epochs_left in seen} == {1, 0.5, 0}
    assert all(detail.startswith("epoch 1/1, ") for detail, _ in seen)
    with pytest.raises(Killed):
        train(patched, progress=kill_in_epoch(3))
    assert left()[1] == ("Killed; resumes after epoch 2", 1)
    train(patched)
    longer = left(replace(SETTINGS, epochs=5), "longer", continues="tiny")
    assert longer == [("resumes after epoch 1 of the scale tiny", 0), ("resumes after epoch 3 of the scale tiny", 2)]


def test_epochs_beyond_the_scale(empty_project):
    impossible = replace(CELL, procedure="patch3-p24sl")
    (found,) = look([impossible], "tiny", SETTINGS)
    assert found.status == "failed" and found.epochs_left == 0
    assert found.detail == f"cell {impossible.name}: procedure 'patch3-p24sl' needs more than 3 epochs"


def named(activation: str, network: str = "lenet5", procedure: str = "classic") -> Cell:
    return Cell(network, "cifar10", activation, procedure, "adam", 42)


def test_a_summary():
    """Synthetic statuses: the time left follows from cells of the same kind, or of the most similar kind."""
    found = [
        CellStatus(named("relu"), "done", "3 epochs", 0, 10),
        CellStatus(named("silu"), "done", "3 epochs", 0, 30),
        CellStatus(named("ahaf-relu"), "diverged", "at epoch 2", 0, 60),
        CellStatus(named("tanh"), "waiting", "", 100),  # as relu and silu: 20 s
        CellStatus(named("ahaf-silu"), "waiting", "", 10),  # as ahaf-relu: 60 s
        CellStatus(named("ahaf-silu", procedure="dspt"), "waiting", "", 3),  # as LeNet-5's: 100 / 3 s
        CellStatus(named("relu", "kerasnet"), "stale", "made with", 0),
        CellStatus(named("tanh", "kerasnet"), "failed", "the reason", 100, 17),
        CellStatus(named("silu", "kerasnet"), "running", "epoch 1", 50.5, 20),
        CellStatus(named("sigmoid", "kerasnet"), "running", "epoch 2", 50.5, 20),
    ]
    total = 100 * 20 + 10 * 60 + 3 * 100 / 3 + 100 * 19 + 2 * 50.5 * 19
    assert 1 < total / 3600 < 10
    assert list(summarize(found, "paper")) == [
        "paper: 10 cells, 2 done, 3 waiting, 1 diverged, 1 stale, 1 failed, 2 running",
        f"about {total / 3600:.1f} h of training left, {total / 2 / 60:.0f} min with 2 cells at a time, as now",
        "running     kerasnet/cifar10/silu/classic/adam/seed42: epoch 1",
        "running     kerasnet/cifar10/sigmoid/classic/adam/seed42: epoch 2",
        "failed      kerasnet/cifar10/tanh/classic/adam/seed42: the reason",
        "stale       kerasnet/cifar10/relu/classic/adam/seed42: made with",
        "diverged    lenet5/cifar10/ahaf-relu/classic/adam/seed42: at epoch 2",
    ]
    everything = list(summarize(found, "paper", everything=True))
    assert len(everything) == 12 and everything[-2] == "done        lenet5/cifar10/relu/classic/adam/seed42: 3 epochs"
    assert list(summarize(found[3:5], "paper"))[1] == "time left: unknown until a cell has trained"
    assert len(list(summarize(found[:2], "paper"))) == 1
    assert list(summarize([], "paper")) == ["paper: 0 cells"]


def test_by_command(empty_project, capsys):
    """Cells outside the target `all` count once they have begun, and the command writes nothing."""
    for name in ("config.yaml", "workflow"):
        os.symlink(PROJECT / name, name)
    scales = {"tiny": {"extends": "quick", **{key: asdict(SETTINGS)[key] for key in ("train_images", "test_images")}}}
    config = ["--config", json.dumps({"scale": "tiny", "scales": scales})]
    train()
    beyond = replace(CELL, seed=5)
    with pytest.raises(Killed):
        train(beyond, progress=kill_in_epoch(2))
    before = sorted(map(str, Path("results").rglob("*")))
    main(["status", *config])
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == "tiny: 69 cells, 1 done, 67 waiting, 1 failed"
    assert lines == [f"failed      {beyond.name}: Killed; resumes after epoch 1"]
    main(["status", *config, "--all", "--activation", "leaf-*", "--network", "lenet5", "--dataset", "fashion_mnist"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 9 and sum(line.startswith("waiting") for line in lines) == 7
    main(["status", *config, "--experiment", "relu_stability"])
    assert capsys.readouterr().out.splitlines() == [
        "tiny: 5 cells, 5 waiting", "time left: unknown until a cell has trained",
    ]  # fmt: skip
    assert sorted(map(str, Path("results").rglob("*"))) == before
    with pytest.raises(SystemExit, match="unknown activation 'laef-\\*'"):
        main(["status", *config, "--activation", "laef-*"])


def test_cells_that_others_start_from(empty_project, capsys):
    """Base cells take time too, in separate jobs."""
    for name in ("config.yaml", "workflow"):
        os.symlink(PROJECT / name, name)
    patched = replace(CELL, procedure="patch1-p24sl")
    experiment = {
        f"{field}s": [value] for field, value in asdict(patched).items() if field not in ("activation", "procedure")
    }
    experiment["cells"] = [{"activations": [patched.activation], "procedures": [patched.procedure]}]
    experiments = {"patched": {"title": "Patched", **experiment}}
    asked = ["--config", json.dumps({"experiments": experiments}), "--experiment", "patched"]
    main(["status", "--all", *asked])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quick: 2 cells, 2 waiting"
    assert lines[2:] == [f"waiting     {one.name}" for one in (patched.parent, patched)]
    main(["cells", *asked])
    assert capsys.readouterr().out.splitlines() == [patched.name]
