"""Compare run times on a machine of varying speed: alternate runs, use medians, detect load by other programs."""

import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bare  # noqa: F401

from leaf.experiment.building import build_network
from leaf.experiment.datasets import DATASETS

TENSORS_MOVED = 5
"""Tensors of the input's size that forward (2) and backward (3) must read or write; a copy moves 2."""


NETWORKS = ("lenet5", "kerasnet")
"""The paper's networks."""


def layer_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """All input shapes of the experiment's activations, each with the layer where it first occurs."""
    seen = set()
    for network in NETWORKS:
        for name, dataset in DATASETS.items():
            for layer in build_network(network, name, "leaf-silu").activations:
                if layer.shape not in seen:
                    seen.add(layer.shape)
                    yield f"{network} {dataset.title}", layer.shape


def busy_seconds() -> float:
    """Processor seconds used by all programs on this machine since its start, including time stolen by a hypervisor."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@contextmanager
def undisturbed(what: str, disturbances: list[str]) -> Iterator[None]:
    """Report a disturbance if other programs use this machine's cores during the block."""
    started, busy, own = time.perf_counter(), busy_seconds(), sum(os.times()[:4])
    yield
    others = (busy_seconds() - busy - (sum(os.times()[:4]) - own)) / (time.perf_counter() - started)
    if others > 0.1:
        disturbances.append(
            f"{what}: other programs used {others:.1f} cores meanwhile; its figures are not to be trusted"
        )
        print(disturbances[-1], file=sys.stderr)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of a call, in seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleaved(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Results of several functions called alternately, in forward and reverse order; the first round is discarded."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name in list(runs)[:: 1 if index % 2 else -1]:
            result = runs[name]()
            if index:
                found[name].append(result)
    return found


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(values: list[float]) -> float:
    """Half the range over the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def in_words(row: dict[str, Any]) -> str:
    """The values of a row, for the terminal."""
    return " ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with equal keys as CSV, without pandas, which may not be installed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
