"""Compare run times on a machine of varying speed: alternate runs, use medians, detect load by other programs."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def busy_seconds() -> float:
    """Processor seconds used by all programs on this machine since its start, including time stolen by a hypervisor."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@contextmanager
def undisturbed(what: str, disturbances: list[str]) -> Iterator[None]:
    """Report if other programs use this machine's cores meanwhile."""
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
