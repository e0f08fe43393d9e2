"""Interrupt real training repeatedly and count the epochs lost: `make faults`.

It trains on real images at a scale of a few seconds. Faults occur at random moments from a fixed seed, each kind a
fixed number of times. Results of finished cells are compared with those of an undisturbed run.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from project_copy import Copy, comparable_results
from waiting import wait_for_end, wait_until

CONFIG = """
scale: faulty
scales:
  faulty: {extends: quick, epochs: 4, train_images: 1280, test_images: 500}
experiments:
  mine:
    title: Mine
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
CELL = "lenet5/fashion_mnist/leaf-tanh/p24sl/adam/seed42"
CELLS = (CELL, "lenet5/fashion_mnist/tanh/classic/adam/seed42")
DATA = "resources/datasets/fashion_mnist.safetensors"

LEAF = "from leaf.cli import main; main()"

# Kills its own process at a given point of the n-th checkpoint.
SUICIDE = """
import os, signal, sys
from pathlib import Path
moment, countdown = sys.argv.pop(1), int(sys.argv.pop(1))
write_bytes, replace = Path.write_bytes, Path.replace
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def dying_write(self, content):
    global countdown
    if self.name.startswith(".state."):
        countdown -= 1
        if not countdown and moment == "half written":
            write_bytes(self, content[: len(content) // 2])
            die()
    return write_bytes(self, content)
def dying_replace(self, target):
    step = {"state.previous.pt": "old one renamed", "state.pt": "new one renamed"}.get(Path(target).name)
    if not countdown and step and moment == "before " + step:
        die()
    replace(self, target)
    if not countdown and step and moment == "after " + step:
        die()
Path.write_bytes, Path.replace = dying_write, dying_replace
from leaf.cli import main
main()
"""
MOMENTS = (
    "half written",
    *(f"{when} {what} renamed" for when in ("before", "after") for what in ("old one", "new one")),
)


@dataclass
class Tally:
    """Effects of one kind of fault."""

    injected: int = 0
    completions: int = 0
    wrong: list[str] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    """Epochs trained again after each interruption, including the interrupted one."""


class Site(Copy):
    """A copy of the project, with the results of an undisturbed run."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        super().__init__(directory, CONFIG)
        self.rng = rng
        self.data = (self.directory / DATA).read_bytes()
        started = time.monotonic()
        self.train()
        self.seconds = time.monotonic() - started
        self.train(CELLS[1])
        self.expected = {cell: comparable_results(self.cell(cell)) for cell in CELLS}
        self.wipe()

    def cell(self, cell: str = CELL) -> Path:
        return self.directory / "results/faulty" / cell

    def wipe(self) -> None:
        for name in ("results", "reports", ".snakemake"):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def start(self, *before: str, code: str = LEAF, cell: str = CELL, **options) -> subprocess.Popen[str]:
        """Start a trainer in the background."""
        command = [sys.executable, "-c", code, *before, "train", cell, "--configfile", "own.yaml", "--threads", "1"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.directory, env=self.environment, **pipes, **options)

    def train(self, cell: str = CELL) -> str:
        """Run a trainer until it ends."""
        process = self.start(cell=cell)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    def moment(self) -> None:
        """Wait until a trainer has reached a certain point."""
        time.sleep(self.rng.uniform(0.2, 1.0) * self.seconds)

    def epochs_done(self) -> int:
        """Number of epochs that a trainer has reported as finished."""
        found = re.search(r'"epoch": (\d+)', self.read("status.json"))
        return int(found[1]) if found else 0

    def read(self, name: str) -> str:
        file = self.cell() / name
        return file.read_text() if file.exists() else ""

    def compare(self, tally: Tally, cells: tuple[str, ...] = (CELL,)) -> None:
        """Compare finished cells with the undisturbed ones, and remove them."""
        tally.completions += 1
        for cell in cells:
            leftovers = list(self.cell(cell).glob(".*.part*"))
            if (
                not (self.cell(cell) / "run.json").exists()
                or comparable_results(self.cell(cell)) != self.expected[cell]
            ):
                tally.wrong.append(f"{cell}: other results")
            elif leftovers or (self.cell(cell) / "state.previous.pt").exists():
                tally.wrong.append(f"{cell}: left {leftovers or 'state.previous.pt'}")
        self.wipe()

    def go_on(self, tally: Tally, done: int, under_way: int) -> None:
        """Train to the end after an interruption, count the repeated epochs, and compare."""
        output = self.train()
        resumed = re.search(r"resumes after epoch (\d+)", output)
        tally.repeated.append(max(0, done - (int(resumed[1]) if resumed else 0)) + under_way)
        self.compare(tally)


def signal_to_trainer(number: signal.Signals) -> Callable[[Site, Tally], None]:
    def inject(site: Site, tally: Tally) -> None:
        process = site.start()
        site.moment()
        process.send_signal(number)
        process.communicate(timeout=60)
        if process.returncode == 0:  # it had finished
            return site.compare(tally)
        tally.injected += 1
        site.go_on(tally, site.epochs_done(), under_way=int(number == signal.SIGKILL))

    return inject


def kill_while_writing(site: Site, tally: Tally) -> None:
    process = site.start(MOMENTS[tally.injected % len(MOMENTS)], str(site.rng.randint(1, 4)), code=SUICIDE)
    process.communicate(timeout=60)
    if process.returncode == 0:  # there was no checkpoint to rename yet
        return site.compare(tally)
    assert process.returncode == -signal.SIGKILL
    tally.injected += 1
    site.go_on(tally, site.epochs_done(), under_way=1)


def corrupt_state(site: Site, tally: Tally) -> None:
    process = site.start()
    wait_until(lambda: site.epochs_done() >= 2 or process.poll() is not None, "the second epoch's end", seconds=120)
    process.kill()
    process.communicate(timeout=60)
    file = site.cell() / "state.pt"
    if process.returncode == 0 or not file.exists():
        return site.compare(tally)
    content = bytearray(file.read_bytes())
    damage = tally.injected % 4
    if damage == 0:
        content[site.rng.randrange(len(content) // 4, len(content) // 2)] ^= 1 << site.rng.randrange(8)
    file.write_bytes([content, content[: site.rng.randrange(len(content))], b"", b"\x80\x05rubbish"][damage])
    tally.injected += 1
    site.go_on(tally, site.epochs_done(), under_way=1)


def corrupt_data(site: Site, tally: Tally) -> None:
    file = site.directory / DATA
    content = bytearray(site.data)
    content[site.rng.randrange(len(content))] ^= 1 << site.rng.randrange(8)
    file.unlink()
    file.write_bytes(content)
    process = site.start()
    output, _ = process.communicate(timeout=60)
    tally.injected += 1
    if process.returncode != 1 or "data set fashion_mnist" not in output or site.read("run.json"):
        tally.wrong.append(f"a changed data set gave: {output}")
    file.write_bytes(site.data)
    site.go_on(tally, 0, under_way=0)


def full_disk(site: Site, tally: Tally) -> None:
    """Limit the size of files, so that writes fail as on a full disk."""
    limit = int(10 ** site.rng.uniform(2.5, 6.7))
    process = site.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, _ = process.communicate(timeout=60)
    if process.returncode == 0:
        return site.compare(tally)
    tally.injected += 1
    if process.returncode != 1 or "cannot be written" not in output or "Traceback" in output:
        tally.wrong.append(f"a full disk gave: {output}")
    site.go_on(tally, site.epochs_done(), under_way=1)


def read_only_directory(site: Site, tally: Tally) -> None:
    site.cell().mkdir(parents=True)
    process = site.start(preexec_fn=without_overriding_permissions)
    if tally.injected % 2:
        site.moment()
    site.cell().chmod(0o555)
    output, _ = process.communicate(timeout=60)
    site.cell().chmod(0o755)
    if process.returncode == 0:
        return site.compare(tally)
    tally.injected += 1
    if process.returncode != 1 or not re.search("cannot (be written|write)", output) or "Traceback" in output:
        tally.wrong.append(f"a read-only directory gave: {output}")
    site.go_on(tally, site.epochs_done(), under_way=1)


def without_overriding_permissions() -> None:
    """Drop the two capabilities that let root write anywhere, permanently, also for trainers started later."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def snakemake(site: Site) -> subprocess.Popen[bytes]:
    command = ["snakemake", "--configfile", "own.yaml", "--cores", "2"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=site.directory, env=site.environment, start_new_session=True, **silent)


def interrupt_snakemake(number: signal.Signals) -> Callable[[Site, Tally], None]:
    def inject(site: Site, tally: Tally) -> None:
        process = snakemake(site)
        time.sleep(site.rng.uniform(2.5, 3.5 + site.seconds))
        if process.poll() is not None:
            return site.compare(tally, CELLS)
        to_all = (
            number == signal.SIGINT and tally.injected % 2
        )  # Ctrl-C interrupts the process group, kill -INT does not
        (os.killpg if to_all else os.kill)(process.pid, number)
        tally.injected += 1
        if number == signal.SIGINT:
            wait_for_end(process, "Snakemake, after SIGINT,", seconds=120)
        site.run("snakemake", "--configfile", "own.yaml", "--cores", "1", "--unlock")
        site.snakemake()  # trainers of the first Snakemake may still run
        wait_for_end(process, "a killed Snakemake")
        site.compare(tally, CELLS)

    return inject


def two_at_once(site: Site, tally: Tally) -> None:
    tally.injected += 1
    if tally.injected % 2:
        trainers = [site.start() for _ in range(2)]
        for trainer in trainers:
            output, _ = trainer.communicate(timeout=120)
            if trainer.returncode != 0:
                tally.wrong.append(f"one of two trainers gave: {output}")
        return site.compare(tally)
    runs = [snakemake(site) for _ in range(2)]
    codes = [wait_for_end(run, "one of two runs of Snakemake", seconds=240) for run in runs]
    if 0 not in codes:
        site.snakemake()
    site.compare(tally, CELLS)


KINDS: dict[str, Callable[[Site, Tally], None]] = {
    "SIGTERM to a trainer": signal_to_trainer(signal.SIGTERM),
    "SIGKILL to a trainer": signal_to_trainer(signal.SIGKILL),
    "SIGKILL while the state is written": kill_while_writing,
    "newest state damaged": corrupt_state,
    "data set changed": corrupt_data,
    "disk full": full_disk,
    "directory read-only": read_only_directory,
    "SIGINT to Snakemake": interrupt_snakemake(signal.SIGINT),
    "SIGKILL to Snakemake, orphans alive": interrupt_snakemake(signal.SIGKILL),
    "two runs at once": two_at_once,
}


def inject(site: Site, kind: str, times: int) -> Tally:
    """Inject one kind of fault a number of times."""
    tally = Tally()
    while tally.injected < times:
        KINDS[kind](site, tally)
    return tally


def main() -> None:
    """Inject every kind of fault and print a table; fail if a result differs or too many epochs were repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=12, help="how often each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # A script's background processes ignore SIGINT, and all processes started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = []
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory), random.Random(options.seed))
        print(f"{'fault':38} {'injected':>8} {'completions':>11} {'equal':>6} {'epochs repeated, at most':>24}")
        for kind in KINDS:
            tally = inject(site, kind, options.times)
            most = max(tally.repeated, default=0)
            equal = tally.completions - len(tally.wrong)
            repeated = most if tally.repeated else "-"
            print(f"{kind:38} {tally.injected:8} {tally.completions:11} {equal:6} {repeated:>24}", flush=True)
            failed += tally.wrong
            if most > (2 if kind == "newest state damaged" else 1):
                failed.append(f"{kind}: {most} epochs trained again")
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
