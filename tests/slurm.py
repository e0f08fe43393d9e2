"""Train LeNet-5 on Fashion-MNIST with `profiles/slurm` and interrupt it in every way: `make test-slurm`.

It uses a real SLURM on this machine (slurm_cluster.py), real images, and the 16 cells of the quick grid. A fixed seed
determines the order of the interruptions. All results must equal those of an undisturbed run without SLURM.
"""

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from project_copy import PROJECT, Copy, comparable_results
from slurm_cluster import Cluster, missing
from waiting import wait_for_end, wait_until

from leaf.experiment.config import read_config
from leaf.experiment.errors import DamagedError

CONFIG = """
scale: clustered
scales:
  clustered: {extends: quick, epochs: 6, train_images: 2560}
experiments:
  mine:
    title: Mine
    in_all: true
    networks: [lenet5]
    datasets: [fashion_mnist]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [relu, silu, tanh, sigmoid], procedures: [classic]}
      - {activations: [ahaf-relu, ahaf-silu], procedures: [classic, dspt]}
      - {activations: [leaf-relu, leaf-silu, leaf-tanh, leaf-sigmoid], procedures: [p24sl, dspt-p24sl]}
device: cpu
"""

IMPATIENT = (
    "--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2",
    "--max-status-checks-per-second", "1", "--latency-wait", "10",
)  # fmt: skip
"""Replacements for the profile's times, which are meant for jobs of several hours."""

TO_A_JOB = {
    "scancel": "scancel {}",
    "SIGKILL to all of a job": "scancel --signal=KILL --full {}",
    "early warning (USR1)": "scancel --signal=USR1 {}",
    "scontrol requeue": "scontrol requeue {}",
    # SLURM's limits are whole minutes; a stopped job reaches them.
    "time limit": "scancel --signal=STOP {0} && scontrol update JobId={0} EndTime=now",
}
"""Commands; {} stands for the job's id."""

PREEMPTION = "sbatch --parsable --partition=urgent --exclusive --output=/dev/null --wrap='sleep 2'"

FIRST = (
    *["scancel"] * 4, *["SIGKILL to all of a job"] * 3, *["early warning (USR1)"] * 3, *["scontrol requeue"] * 3,
    *["preemption, REQUEUE"] * 2, "time limit", "controller away for 15 s", "Snakemake killed, its jobs alive",
)  # fmt: skip
LIMIT = 900
"""Time limit of a disturbed run, in seconds; the whole test takes about nine minutes on two free cores."""

SECOND = (*["preemption, CANCEL"] * 3, "preemption, CANCEL, GraceTime")


class Site(Copy):
    """A copy of the project with the results of an undisturbed run, and a running cluster."""

    def __init__(self, directory: Path, cluster: Cluster, rng: random.Random) -> None:
        super().__init__(directory, CONFIG)
        self.environment |= cluster.environment
        self.cluster, self.rng, self.injected = cluster, rng, Counter[str]()
        cells = read_config([directory / "own.yaml"]).cells()
        self.cells = {cell.name: cell.directory("clustered") for cell in cells}
        self.interrupted_at = dict.fromkeys(self.cells, 0.0)
        self.log = directory / "snakemake.log"
        self.snakemake(*self.targets(self.cells))
        (directory / "results").rename(directory / "undisturbed")

    def targets(self, cells: Iterable[str]) -> list[str]:
        return [f"{self.cells[cell]}/run.json" for cell in cells]

    def shell(self, command: str) -> str:
        """Output of a SLURM command."""
        pipes = {"capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(command, shell=True, cwd=self.directory, env=self.environment, **pipes).stdout.strip()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake on the cluster, in the background."""
        command = ["snakemake", "--configfile", "own.yaml", "--workflow-profile", "profiles/slurm", *IMPATIENT]
        with self.log.open("a") as log:
            silent = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            return subprocess.Popen([*command, *arguments], cwd=self.directory, env=self.environment, **silent)

    def in_training(self) -> dict[str, str]:
        """Ids of the running jobs whose cell has ended an epoch since it was last interrupted, by the cell's name."""
        found = {}
        for line in self.shell("squeue --noheader --states=RUNNING --format='%i %k'").splitlines():
            job, _, comment = line.partition(" ")
            for cell, directory in self.cells.items():
                status = self.directory / directory / "status.json"
                is_its = comment.endswith(re.sub("/(seed)?", "_", cell))
                if is_its and status.exists() and status.stat().st_mtime > self.interrupted_at[cell]:
                    found[cell] = job
        return found

    def interrupt(self, kind: str, jobs: dict[str, str]) -> bool:
        """Interrupt one or all of the cells in training; return whether any was interrupted before it ended."""
        hit = [self.rng.choice(list(jobs))]
        if kind.startswith("preemption"):
            grace = 20 if kind.endswith("GraceTime") else 0
            urgent = self.shell(f"scontrol update PartitionName=cancelling GraceTime={grace} && {PREEMPTION}")
            # It starts once the preempted jobs have ended.
            is_waiting = ("PENDING", "CONFIGURING")
            wait_until(lambda: self.state(urgent) not in is_waiting, "the urgent job to start", seconds=120, every=0.2)
            hit = [cell for cell, job in jobs.items() if self.state(job) not in ("RUNNING", "COMPLETED")]
        elif kind.startswith("controller"):
            self.cluster.end("slurmctld")
            time.sleep(15)
            self.cluster.run("slurmctld")
        else:
            self.shell(TO_A_JOB[kind].format(jobs[hit[0]]))
        self.injected[kind] += len(hit)
        self.interrupted_at.update(dict.fromkeys(hit, time.time()))
        return bool(hit)

    def state(self, job: str) -> str:
        return self.shell(f"squeue --noheader --states=all --format=%T --jobs={job}")

    def disturbed_run(self, kinds: Sequence[str], *arguments: str) -> None:
        """Run Snakemake until it ends, with each interruption as soon as a cell is in training."""
        waiting = self.rng.sample(kinds, len(kinds))
        process, deadline = self.start(*arguments), time.monotonic() + LIMIT
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    sys.exit(f"{self.log.read_text()}\nwaited {LIMIT} s for Snakemake to end; not injected: {waiting}")
                jobs = self.in_training() if waiting else {}
                if jobs and waiting[-1].startswith("Snakemake"):
                    self.injected[waiting.pop()] += 1
                    process.kill()
                    wait_for_end(process, "a killed Snakemake")
                    self.run("snakemake", "--configfile", "own.yaml", "--cores", "1", "--unlock")
                    process = self.start(*arguments)
                elif jobs and self.interrupt(waiting[-1], jobs):
                    waiting.pop()
                time.sleep(self.rng.uniform(0.1, 0.5))
        finally:
            process.kill()
        if process.returncode or waiting:
            sys.exit(f"{self.log.read_text()}\nSnakemake ended with {process.returncode}; not injected: {waiting}")


def differences(tree: Path, expected: Path, cells: Iterable[str]) -> list[str]:
    """One line for each cell of a tree whose results differ from the expected ones or were not requested.

    Args:
        tree, expected: directories with the cells' directories.
        cells: the names of the cells that both must have.
    """
    found = {str(file.parent.relative_to(top)) for top in (tree, expected) for file in top.rglob("run.json")}
    lines = [f"{cell}: was not requested" for cell in sorted(found.difference(cells))]
    for cell in cells:
        try:
            here, there = (comparable_results(top / cell) for top in (tree, expected))
        except (FileNotFoundError, DamagedError) as error:
            lines.append(f"{cell}: {error}")
        else:
            others = [file for file in here if here[file] != there[file]]
            lines += [f"{cell}: other {', '.join(others)}"] * bool(others)
    return lines


def submit_the_grid(site: Site) -> int:
    """Count the paper's cells that Snakemake submits to a cluster that starts none of them."""
    site.shell("scontrol update PartitionName=main State=DOWN")
    cells = read_config().cells(scale="paper")
    targets = [f"{cell.directory('paper')}/run.json" for cell in cells]
    process = site.start("--jobs", "200", "--", *targets)
    deadline, queued = time.monotonic() + 120, 0
    while queued < len(cells) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(1)
        queued = len(site.shell("squeue --noheader --states=PENDING").splitlines())
    # A background process of a script ignores SIGINT. On SIGTERM Snakemake submits no more jobs and waits for the
    # submitted ones.
    process.send_signal(signal.SIGTERM)
    site.shell("scancel --user=root")
    wait_for_end(process, "Snakemake, after SIGTERM and without jobs,", seconds=180)
    site.shell("scontrol update PartitionName=main State=UP")
    return queued


def preempted_jobs_are_queued_again(site: Site) -> subprocess.Popen[bytes]:
    """Run the loop from docs/cluster.md for clusters that cancel preempted jobs, with shorter waits."""
    (loop,) = re.findall(r"^```sh\n(while .*?^done)\n```$", (PROJECT / "docs/cluster.md").read_text(), re.M | re.S)
    command = loop.replace("sleep 60", "sleep 2")
    assert command != loop
    return subprocess.Popen(command, shell=True, env=site.environment, start_new_session=True)


def main() -> None:
    if reason := missing():
        print(f"skipped: {reason}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as cluster_directory, tempfile.TemporaryDirectory() as directory:
        with Cluster(Path(cluster_directory)) as cluster:
            site = Site(Path(directory), cluster, random.Random(1))
            queued = submit_the_grid(site)
            print(f"{queued} of the paper's 148 cells submitted", flush=True)
            site.disturbed_run(FIRST, "--", *site.targets(list(site.cells)[::2]))
            loop = preempted_jobs_are_queued_again(site)
            try:
                site.disturbed_run(SECOND, "--set-resources", "train:slurm_partition=cancelling", "--", "mine")
            finally:
                loop.kill()
        for kind, times in site.injected.items():
            print(f"{kind:34} {times:3}")
        submitted = len(re.findall("has been submitted", site.log.read_text()))
        print(f"{site.injected.total()} interruptions, {submitted} jobs, {time.monotonic() - started:.0f} s")
        failed = differences(*(site.directory / name / "clustered" for name in ("results", "undisturbed")), site.cells)
        failed += [f"{kind}: hit no job" for kind in {*FIRST, *SECOND} if not site.injected[kind]]
        failed += [f"only {site.injected.total()} interruptions"] * (site.injected.total() < 20)
        failed += [f"only {queued} cells submitted"] * (queued < 148)
        sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
