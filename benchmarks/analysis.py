"""What it takes to make all tables, figures, statistics and claims of a finished grid of 148 cells × 100 epochs.

The records are made up, for this timing alone: real networks of every cell with noise on their activation parameters,
and invented losses, written as a trained cell's are. Run as `make bench-analysis`.
"""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import psutil
import torch

from leaf.activations import Adaptive
from leaf.experiment.cells import Cell
from leaf.experiment.config import read_config
from leaf.experiment.datasets import DATASETS, Data, dataset_file, load
from leaf.experiment.observations import parameter_quantiles
from leaf.experiment.outputs import write_outputs
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import SCALES, Settings
from leaf.experiment.training import Training

SCALE, PROJECT, IMAGES = "paper", Path(__file__).parent.parent, 250


def make_up(cell: Cell, settings: Settings, data: Data, directory: Path) -> None:
    """The outputs of a cell that nobody trained."""
    generator = torch.Generator().manual_seed(cell.seed)
    training = Training(cell, settings, data, kernel="plain")
    with torch.no_grad():
        for layer in training.network.activations:
            if isinstance(layer, Adaptive):
                for parameter in layer.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    (start,), end = training.quantiles, parameter_quantiles(training.network)
    for epoch in range(1, settings.epochs + 1):
        training.quantiles.append({name: start[name].lerp(end[name], epoch / settings.epochs) for name in start})
        accuracy = float(0.9 - 0.5 / epoch + 0.01 * torch.randn((), generator=generator))
        training.records.append(EpochRecord(epoch, 1 / epoch, 0.1, 1.0, accuracy, None, 1e-3, None, 10.0))
    about = {
        "cell": {**asdict(cell), "name": cell.name}, "scale": SCALE, "settings": asdict(settings), "sessions": [],
        "device": "none", "threads": 1, "kernel": "plain", "precision": "float32",
        "data_sha256": DATASETS[cell.dataset].sha256,
    }  # fmt: skip
    write_outputs(directory / cell.directory(SCALE), cell, training, about)


def measured(directory: Path, target: str) -> dict[str, object]:
    """How long Snakemake takes for a target, and the most memory that it and all its processes hold at a time."""
    started, most = time.perf_counter(), 0
    command = ["snakemake", "--quiet", "all", "--cores", "2", "--config", f"scale={SCALE}", "--", target]
    run = psutil.Popen(command, cwd=directory, env=os.environ | {"PYTHONPATH": str(directory / "src")})
    while run.poll() is None:
        most = max(most, sum(map(proportional_set, [run, *run.children(recursive=True)])))
        time.sleep(0.5)
    seconds = time.perf_counter() - started
    if run.returncode:
        sys.exit(run.returncode)
    return {"target": target, "minutes": round(seconds / 60, 2), "peak_gib": round(most / 1024**3, 2)}


def proportional_set(process: psutil.Process) -> int:
    """A process's memory in bytes, what it shares divided among those that share it."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has ended
        return 0


def main() -> None:
    """Make the grid up, time both targets; ``analysis.csv`` goes into the directory that the first argument names."""
    cells, settings = read_config(overrides={"scale": SCALE}).cells(), SCALES[SCALE].settings
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(PROJECT / name, directory)
        for name in ("workflow", "profiles", "src", "docs/benchmark"):
            shutil.copytree(PROJECT / name, directory / name)
        (directory / "resources").symlink_to(PROJECT / "resources")
        data = {name: load(name, dataset_file(name), IMAGES, IMAGES) for name in ("fashion_mnist", "cifar10")}
        for cell in cells:
            make_up(cell, settings, data[cell.dataset], directory)
        print(f"{len(cells)} cells made up", flush=True)
        rows = [measured(directory, target) for target in ("partial", "all")]
    print(table := pd.DataFrame(rows))
    table.to_csv(Path(sys.argv[1]) / "analysis.csv", index=False)


if __name__ == "__main__":
    main()
