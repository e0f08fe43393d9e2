"""Benchmark the analysis of a trained grid of 148 cells × 100 epochs, and the workflow with 10,000 cells.

The records are synthetic and serve only for timing: networks of every cell with noise on their activation parameters,
and invented losses, in the files of a trained cell. Run as `make bench-analysis`.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import torch

from leaf.activations import Adaptive
from leaf.analysis.forms import read_forms
from leaf.experiment.cells import OUTPUTS, SHOWN, Cell
from leaf.experiment.config import read_config
from leaf.experiment.datasets import dataset_file
from leaf.experiment.identity import Identity
from leaf.experiment.loading import Data, load
from leaf.experiment.observations import parameter_quantiles
from leaf.experiment.outputs import write_outputs
from leaf.experiment.provenance import Execution, Session, cpu_name
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import SCALES, Settings
from leaf.experiment.training import Training
from leaf.names import ACTIVATIONS

SCALE, PROJECT, IMAGES = "paper", Path(__file__).parent.parent, 250

MINIMAL = f"""
rule all:
    input: expand("results/{{cell}}/run.json", cell=range(CELLS)), expand("forms/{{cell}}.svg", cell=range(CHARTS))
rule train:
    output: {", ".join(f"'results/{{cell}}/{name}'" for name in OUTPUTS)}
rule charts:
    input: "results/{{cell}}/run.json"
    output: "forms/{{cell}}.svg", "evolution/{{cell}}.svg"
"""
"""A Snakefile with only the jobs of single cells, to measure Snakemake's own cost for as many jobs."""

DRY_RUNS = {"dry run": ("snakemake", "-n"), "dry run, counts alone": ("snakemake", "-n", "--quiet")}
"""``--quiet all`` is no third one: in a dry run, Snakemake prints every job with it."""


def make_up(cell: Cell, settings: Settings, data: Data, directory: Path) -> None:
    """Write synthetic outputs of a cell that was not trained."""
    generator = torch.Generator().manual_seed(cell.seed)
    training = Training(cell, settings, data, kernel="reference")
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
    identity = Identity.of(cell, SCALE, settings, torch.device("cpu"))
    execution, sessions = Execution(1, "reference", "float32"), [Session.start(cpu_name())]
    write_outputs(directory / cell.directory(SCALE), cell, training, identity, SCALE, execution, sessions)
    read_forms(cell, directory / cell.directory(SCALE))  # fills the cache, as a cell's job does


def measured(directory: Path, what: str, *command: str) -> dict[str, object]:
    """Measure a command: wall time, CPU time of all its processes, and their peak memory together."""
    started, used, most = time.perf_counter(), processor_time(), 0
    environment = os.environ | {"PYTHONPATH": str(directory / "src")}
    run = psutil.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL)
    while run.poll() is None:
        most = max(most, sum(map(proportional_set, [run, *run.children(recursive=True)])))
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    if run.returncode:
        sys.exit(run.returncode)
    cpu = round(processor_time() - used, 1)
    return {"what": what, "seconds": round(seconds, 1), "cpu_seconds": cpu, "peak_gib": round(most / 1024**3, 2)}


def processor_time() -> float:
    """CPU time of all child processes that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def proportional_set(process: psutil.Process) -> int:
    """Proportional set size of a process, in bytes: shared memory is divided among the processes that share it."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has ended
        return 0


def copy_project(directory: Path) -> None:
    """Copy the project with the data sets and without results."""
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(PROJECT / name, directory)
    for name in ("workflow", "profiles", "src", "docs/benchmark"):
        shutil.copytree(PROJECT / name, directory / name)
    (directory / "resources").symlink_to(PROJECT / "resources")


def untrained(directory: Path, *config: str) -> list[dict[str, object]]:
    """Measure a dry run and ``leaf status`` of an untrained grid."""
    return [
        *(measured(directory, what, *command, *config) for what, command in DRY_RUNS.items()),
        measured(directory, "leaf status, nothing trained", "leaf", "status", *config),
    ]


def large_grid(directory: Path, seeds: int) -> list[dict[str, object]]:
    """Make a grid of the linear units with many seeds, 40 cells per seed. All files are those of the first seed."""
    copy_project(directory)
    values = read_config().values["experiments"]["linear_units"]
    large = {**values, "title": "Large", "in_all": True, "seeds": list(range(seeds))}
    others = {name: {"in_all": False} for name in read_config().in_all}
    (directory / "large.yaml").write_text(json.dumps({"scale": SCALE, "experiments": {**others, "large": large}}))
    config = ("--configfile", "large.yaml")
    cells, settings = read_config([directory / "large.yaml"]).cells(), SCALES[SCALE].settings
    charts = sum(ACTIVATIONS[cell.activation].adaptive for cell in cells)
    minimal = MINIMAL.replace("CELLS", str(len(cells))).replace("CHARTS", str(charts))
    (directory / "Minimal").write_text(minimal)
    rows = [
        measured(directory, f"{what}, as many jobs in a minimal Snakefile", *command, "-s", "Minimal")
        for what, command in DRY_RUNS.items()
    ]
    rows += untrained(directory, *config)
    data = {name: load(name, dataset_file(name), IMAGES, IMAGES) for name in ("fashion_mnist", "cifar10")}
    for cell in cells:
        first, own = (directory / replace(cell, seed=seed).directory(SCALE) for seed in (0, cell.seed))
        if cell.seed == 0:
            make_up(cell, settings, data[cell.dataset], directory)
            continue
        own.mkdir(parents=True)
        for name in (*OUTPUTS[:-1], SHOWN):
            os.link(first / name, own / name)
    for cell in cells:  # last, as in a job: a link changes the time of its file
        first, own = (directory / replace(cell, seed=seed).directory(SCALE) for seed in (0, cell.seed))
        run = json.loads((first / OUTPUTS[-1]).read_text())
        run["identity"]["cell"] = cell.name
        (own / OUTPUTS[-1]).write_text(json.dumps(run))
    print(f"{len(cells)} cells made up", flush=True)
    collect = ("leaf", "collect", *config, "--output", "collected")
    rows += [
        measured(directory, "leaf status, everything trained", "leaf", "status", *config),
        measured(directory, "leaf collect", *collect),
    ]
    return [{"cells": len(cells), **row} for row in rows]


def main() -> None:
    """Make the synthetic grids, time everything, and write ``analysis.csv`` to the directory in the first argument."""
    cells, settings = read_config(overrides={"scale": SCALE}).cells(), SCALES[SCALE].settings
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        copy_project(directory)
        (directory / "paper.yaml").write_text(f"scale: {SCALE}\n")
        (directory / "Empty").write_text("rule all:\n    input: []\n")
        rows = [measured(directory, "dry run of an empty Snakefile", *DRY_RUNS["dry run"], "-s", "Empty")]
        rows += [{"cells": len(cells), **row} for row in untrained(directory, "--configfile", "paper.yaml")]
        data = {name: load(name, dataset_file(name), IMAGES, IMAGES) for name in ("fashion_mnist", "cifar10")}
        for cell in cells:
            make_up(cell, settings, data[cell.dataset], directory)
        print(f"{len(cells)} cells made up", flush=True)
        command = ("snakemake", "--quiet", "all", "--cores", "2", "--config", f"scale={SCALE}", "--")
        rows += [{"cells": len(cells), **measured(directory, name, *command, name)} for name in ("partial", "all")]
    with tempfile.TemporaryDirectory() as temporary:
        rows += large_grid(Path(temporary), seeds=250)
    print(table := pd.DataFrame(rows)[["cells", "what", "seconds", "cpu_seconds", "peak_gib"]])
    table.to_csv(Path(sys.argv[1]) / "analysis.csv", index=False)


if __name__ == "__main__":
    main()
