"""One training job: a cell's outputs are kept if they are current, else its state is resumed, else training starts."""

import fcntl
import json
import os
import platform
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from leaf.activations import ACTIVATIONS
from leaf.experiment.cells import OUTPUTS, Cell
from leaf.experiment.checkpoint import drop_previous, load_state, save_state
from leaf.experiment.datasets import DATASETS, dataset_file, load
from leaf.experiment.errors import UserError
from leaf.experiment.files import write_text
from leaf.experiment.observations import (
    INPUT_EDGES,
    QUANTILES,
    activation_parameters,
    input_histograms,
    weighted_layers,
)
from leaf.experiment.records import read_run, write_metrics, write_run, write_tensors
from leaf.experiment.scales import Settings
from leaf.experiment.training import TEST_BATCH_SIZE, TRAINING_VERSION, Training

KERNEL, PRECISION = "plain", "float32"
"""How activations are computed and in what precision: one way each so far."""

Progress = Callable[[int, int, int], None]
"""Called with the epoch, the minibatches done in it, and their number in all."""


def is_current(run: dict[str, Any], settings: Settings) -> bool:
    """Whether a finished cell's ``run.json`` tells of these settings and of the present training version."""
    return run["settings"] == asdict(settings) and run["training_version"] == TRAINING_VERSION


def train_cell(
    cell: Cell,
    scale: str,
    settings: Settings,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = lambda epoch, step, steps: None,
    say: Callable[[str], None] = print,
) -> None:
    """Make the outputs of one cell, with as little training as that takes.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: threads of a new training; one that is resumed keeps its own number.
        progress: told of every minibatch.
        say: told in a line what is done and why.

    Raises:
        UserError: if the data set or the device cannot be had.
    """
    directory = cell.directory(scale)
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory, say):
        run = read_run(directory)
        if run and is_current(run, settings):
            for name in OUTPUTS:
                os.utime(directory / name)
            say(f"{cell.name}: outputs are current, kept")
            return
        _train(cell, scale, settings, choose_device(device), threads, progress, say)


def choose_device(name: str) -> torch.device:
    """The device of a configuration's ``device``.

    Raises:
        UserError: if a GPU is demanded and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is demanded, but torch finds no GPU here; choose auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _train(
    cell: Cell,
    scale: str,
    settings: Settings,
    device: torch.device,
    threads: int | None,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    directory, started = cell.directory(scale), time.time()
    identity = {
        "cell": cell.name,
        "settings": {key: value for key, value in asdict(settings).items() if key != "epochs"},
        "training_version": TRAINING_VERSION,
        "data": DATASETS[cell.dataset].sha256,
        "device": device.type,
    }
    state, refused = load_state(directory, identity, settings.epochs)
    for line in refused:
        say(line)
    threads = state["threads"] if state else threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    data = load(cell.dataset, dataset_file(cell.dataset), settings.train_images, settings.test_images)
    training = Training(cell, settings, data, device)
    if state:
        training.load_state_dict(state["training"])
        say(f"{cell.name}: goes on after epoch {len(training.records)}, with {threads} threads as before")
    sessions = [*(state["sessions"] if state else []), {"started": _timestamp(started), "host": socket.gethostname()}]

    while not training.finished:
        epoch = len(training.records) + 1
        record = training.run_epoch(lambda step, steps, epoch=epoch: progress(epoch, step, steps))  # type: ignore[misc]
        sessions[-1]["seconds"] = round(time.time() - started, 3)
        training_state = training.state_dict()
        save_state(
            directory, {"identity": identity, "threads": threads, "sessions": sessions, "training": training_state}
        )
        seconds_left = (settings.epochs - epoch) * sum(r.train_seconds for r in training.records) / epoch
        status = {
            "epoch": epoch,
            "epochs": settings.epochs,
            "test_accuracy": record.test_accuracy,
            "seconds_left": round(seconds_left, 1),
            "updated": _timestamp(time.time()),
        }
        write_text(directory / "status.json", json.dumps(status) + "\n")

    _write_outputs(cell, scale, settings, training, threads, sessions)
    drop_previous(directory)
    (directory / "status.json").unlink(missing_ok=True)
    last = training.records[-1]
    end = f"diverged at epoch {last.epoch}" if training.diverged else f"{last.epoch} epochs"
    say(f"{cell.name}: {end}, test accuracy {last.test_accuracy:.2%}")


def _write_outputs(
    cell: Cell, scale: str, settings: Settings, training: Training, threads: int, sessions: list[dict[str, Any]]
) -> None:
    directory, network, last = cell.directory(scale), training.network, training.records[-1]
    write_metrics(directory / "metrics.csv", training.records)
    write_tensors(directory / "model.safetensors", network.state_dict())
    test_batches = (training.images(pixels) for pixels in training.data.test_images.split(TEST_BATCH_SIZE))
    quantiles = {name: torch.stack([epoch[name] for epoch in training.quantiles]) for name in training.quantiles[0]}
    forms = {
        **{f"parameters/{name}": values for name, values in activation_parameters(network).items()},
        **{f"quantiles/{name}": values for name, values in quantiles.items()},
        **{f"inputs/{name}": counts for name, counts in input_histograms(network, test_batches).items()},
        "gradient_norms/start": training.initial_gradient_norms,
        "gradient_norms/end": training.gradient_norms(),
    }
    about = {
        "family": ACTIVATIONS[cell.activation].family,
        "form": cell.form,
        "quantile_levels": QUANTILES,
        "input_range": [INPUT_EDGES[0].item(), INPUT_EDGES[-1].item()],
        "gradient_norm_layers": weighted_layers(network),
    }
    write_tensors(directory / "forms.safetensors", forms, about)
    run = {
        "cell": {**asdict(cell), "name": cell.name},
        "scale": scale,
        "settings": asdict(settings),
        "training_version": TRAINING_VERSION,
        "epochs": last.epoch,
        "diverged_at": last.epoch if training.diverged else None,
        "network_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": _device_name(training.data.train_images.device),
        "threads": threads,
        "kernel": KERNEL,
        "precision": PRECISION,
        "sessions": sessions,
        "train_seconds": round(sum(record.train_seconds for record in training.records), 3),
        "peak_memory_bytes": _peak_memory(),
        "data_sha256": DATASETS[cell.dataset].sha256,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("leaf-activations", "torch", "numpy")},
        },
        "git": _git(),
    }
    write_run(directory, run)


@contextmanager
def _lock(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a cell's lock. The kernel gives it back when its holder dies, so a stale one never blocks."""
    with (directory / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"{directory}: held by {lock.read().strip() or 'another process'}, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return f"CPU ({models[0] if models else platform.machine()})"


def _peak_memory() -> int:
    # Not getrusage where this is known: its figure includes the process that started this one.
    peaks = [int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if line.startswith("VmHWM")]
    return 1024 * (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def _git() -> dict[str, Any]:
    """The commit that the code stands at and whether nothing was changed since; empty outside a git checkout."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.CalledProcessError):
        return {}
