"""Copies of the project that tests can run and modify."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import NamedTemporaryFile
from typing import Any

import pandas as pd

from leaf.experiment.config import read_config
from leaf.experiment.runs import read_run

PROJECT = Path(__file__).parent.parent


class Copy:
    """A copy of the project with the data sets fetched and a configuration of its own, ``own.yaml``.

    The target ``all`` makes that configuration's experiments, and none of the paper's.
    """

    def __init__(self, directory: Path, config: str) -> None:
        self.directory = directory
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(PROJECT / name, directory)
        for name in ("workflow", "profiles", "examples", "src/leaf"):  # the package includes its compiled kernels
            shutil.copytree(PROJECT / name, directory / name, ignore=shutil.ignore_patterns("*.pyc"))
        (directory / "resources/datasets").mkdir(parents=True)
        for file in (PROJECT / "resources/datasets").iterdir():
            os.link(file, directory / "resources/datasets" / file.name)
        without = "".join(f"  {name}: {{in_all: false}}\n" for name in read_config().in_all)
        (directory / "own.yaml").write_text(config.replace("experiments:\n", f"experiments:\n{without}"))
        self.environment = os.environ | {"PYTHONPATH": str(directory / "src"), "LEAF_DATASETS": ""}

    def run(self, *command: str) -> CompletedProcess[str]:
        return run(command, self.directory, self.environment)

    def snakemake(self, *arguments: str) -> str:
        done = self.run("snakemake", "--configfile", "own.yaml", "--cores", "2", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Number of jobs of each rule in a dry run."""
        return job_counts(self.snakemake("-n", *arguments))

    def trained_at(self) -> dict[str, list[str]]:
        """When each cell's training sessions started."""
        return {
            str(file.parent): [session["started"] for session in json.loads(file.read_text())["sessions"]]
            for file in self.directory.glob("results/**/run.json")
        }

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.directory / file).read_text()
        assert old in text
        (self.directory / file).write_text(text.replace(old, new))


@cache
def snakemake_server() -> subprocess.Popen[str]:
    """Start the process that runs Snakemake for this one. It ends when its standard input is closed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, PROJECT / "tests/snakemake_server.py"], **pipes)


def run(command: Sequence[str], directory: Path, environment: Mapping[str, str] = os.environ) -> CompletedProcess[str]:
    """Run a command for at most 15 minutes; ``snakemake`` runs in a forked process that has imported it."""
    if command[0] != "snakemake":
        options = {"cwd": directory, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(command, **options, timeout=900)
    server = snakemake_server()
    with NamedTemporaryFile("r") as out, NamedTemporaryFile("r") as err:
        request = command, str(directory), {**environment}, [out.name, err.name]
        print(json.dumps(request), file=server.stdin, flush=True)
        return CompletedProcess(command, int(server.stdout.readline()), out.read(), err.read())


def job_counts(output: str) -> dict[str, int]:
    table = re.search(r"^job +count\n[- ]+\n(.*?)\n\n", output, re.S | re.M)
    rows = [line.split() for line in table.group(1).splitlines()] if table else []
    return {row[0]: int(row[1]) for row in rows}


def comparable_results(directory: Path) -> dict[str, Any]:
    """Contents of a cell's outputs, by file, that must be equal when it is trained again: all but host and times.

    Raises:
        FileNotFoundError: if there is no ``run.json``.
        DamagedError: if it cannot be read, or another output is missing or has another checksum.
    """
    if (run := read_run(directory)) is None:
        raise FileNotFoundError(f"{directory}/run.json is missing")
    metrics = pd.read_csv(directory / "metrics.csv").drop(columns="train_seconds").to_csv()
    where_and_when = ("scale", "sessions", "train_seconds", "peak_memory_bytes", "sha256")
    return {
        "metrics.csv": metrics,
        "model.safetensors": (directory / "model.safetensors").read_bytes(),
        "forms.safetensors": (directory / "forms.safetensors").read_bytes(),
        "run.json": {key: value for key, value in vars(run).items() if key not in where_and_when},
        "made by": (run.device, run.sessions[-1].versions),
    }
