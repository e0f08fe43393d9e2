"""Time of the set-up commands in a fresh clone, and disk space of the files that they write.

The clone has the last commit, and is removed at the end. Run on idle cores, for about an hour:
python benchmarks/commands.py reports/benchmark
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from measuring import undisturbed

from leaf.experiment.devices import device_name

PROJECT = Path(__file__).parent.parent
COMMANDS = ("environment", "quick", "quick", "test")
"""Targets of make, in this order; the second ``quick`` finds everything done."""

LEFT = (".venv", "resources", "results", "reports/quick")


def gigabytes(directory: Path) -> float:
    """Disk space of all files below a directory; a file with several names counts once."""
    sizes = {(s.st_dev, s.st_ino): 512 * s.st_blocks for s in (file.lstat() for file in directory.rglob("*"))}
    return sum(sizes.values()) / 1e9


def main() -> None:
    """Run the commands one after another, and write commands.csv and space.csv."""
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    device, cores, disturbances = device_name(torch.device("cpu")), len(os.sched_getaffinity(0)), list[str]()
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=PROJECT, text=True).strip()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    measured = []
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "leaf")
        subprocess.run(["git", "clone", "--quiet", PROJECT, clone], check=True)
        for target in COMMANDS:
            before, started = len(disturbances), time.perf_counter()
            with undisturbed(f"make {target}", disturbances):
                subprocess.run(["make", target], cwd=clone, env=environment, check=True)
            measured.append({
                "command": f"make {target}", "minutes": (time.perf_counter() - started) / 60, "cores": cores,
                "device": device, "commit": commit, "disturbed": len(disturbances) > before,
            })  # fmt: skip
            pd.DataFrame(measured).to_csv(directory / "commands.csv", index=False, float_format="%.2f")
        space = pd.DataFrame([{"directory": name, "gigabytes": gigabytes(clone / name)} for name in LEFT])
        space.to_csv(directory / "space.csv", index=False, float_format="%.2f")
    print(pd.DataFrame(measured).to_string(index=False), space.to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
