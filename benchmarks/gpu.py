"""Benchmark training on a GPU: kernels of a step, layers, steps, concurrent cells, and the estimated time of the paper.

Needs a GPU, torch with Triton and a C compiler, but no data set, network or installation: images are random. Run as
``make bench-gpu``, which is designed for three minutes; this has not been measured. Prints one page; writes
gpu_kernels.csv, gpu_layers.csv, gpu_steps.csv and gpu_sharing.csv. Layers and steps are timed as captured graphs,
without Python.
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measuring import NETWORKS, TENSORS_MOVED, in_words, layer_shapes, seconds, write_rows
from sharing import images_per_second
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from leaf import AHAF, LEAF
from leaf.experiment.cells import Cell, expand
from leaf.experiment.computing import make_deterministic
from leaf.experiment.datasets import DATASETS
from leaf.experiment.devices import device_name, mps_runs
from leaf.experiment.loading import Data
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.provenance import git
from leaf.experiment.scales import SCALES, Settings
from leaf.experiment.training import Training
from leaf.kernels import kernel_for

Rows = list[dict[str, Any]]

BATCH, REPEATS, TOP = 128, 20, 15
IMAGES = 50 * BATCH
"""Training images of a timed epoch; there are a fifth as many test images."""

CELL_COUNTS = (16, 8, 4, 1)
SHARING_SECONDS = 100.0
"""Concurrent cells are not measured further after so many seconds."""

VARIANTS = {
    "ReLU": ("relu", "classic"),
    "SiLU": ("silu", "classic"),
    "AHAF": ("ahaf-silu", "classic"),
    "LEAF P24Sl": ("leaf-tanh", "p24sl"),
    "LEAF DSPT": ("leaf-silu", "dspt-p24sl"),
}
PROFILED = [("kerasnet", "cifar10", variant, precision) for precision in ("tf32", "float32") for variant in VARIANTS]


def random_data(dataset: str, train_images: int) -> Data:
    """Images of a data set's size. Their pixels do not affect speed."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        return torch.randint(256, (count, *DATASETS[dataset].image_shape), dtype=torch.uint8, generator=generator)

    def labels(count: int) -> Tensor:
        return torch.randint(10, (count,), generator=generator)

    test_images = train_images // 5
    return Data(images(train_images), labels(train_images), images(test_images), labels(test_images))


# --- layers -----------------------------------------------------------------------------------------------------------


def gpu_seconds(run: Callable[[], object]) -> float:
    """Seconds of a call's kernels: the shortest of three replays of a graph with many calls."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(REPEATS):
            run()
    times = []
    for _ in range(4):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000 / REPEATS)
    return min(times[1:])


def forward_and_backward(layer: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], u: Tensor) -> float:
    """Seconds of a layer's forward and backward pass on the GPU."""
    u = u.clone().requires_grad_()
    grad = torch.randn_like(layer(u))

    def run() -> None:
        for leaf in (u, *parameters):
            leaf.grad = None
        layer(u).backward(grad)

    return gpu_seconds(run)


def bench_layers(device: torch.device) -> Rows:
    """One row per shape and activation, channels last; images also with the max-pooling that follows."""
    rows = []
    for where, shape in layer_shapes():
        u = torch.randn(BATCH, *shape, device=device)
        if len(shape) == 3:
            u = u.contiguous(memory_format=torch.channels_last)
        copy = torch.empty_like(u)
        copying = gpu_seconds(lambda copy=copy, u=u: copy.copy_(u))
        learnable = {
            name: kind(shape, "silu").to(device, memory_format=torch.channels_last)
            for name, kind in (("AHAF", AHAF), ("LEAF", LEAF))
        }
        layers: dict[str, Callable[[Tensor], Tensor]] = {"SiLU": nn.SiLU(), **learnable}
        if len(shape) == 3:
            layers["SiLU pooled"] = lambda u: nn.functional.max_pool2d(nn.functional.silu(u), 2)
            layers["LEAF pooled"] = lambda u, layer=learnable["LEAF"]: layer(u, pooled=True)
        found: dict[str, float] = {}
        for name, layer in layers.items():
            kind, _, pooled = name.partition(" ")
            parameters = list(learnable[kind].parameters()) if kind in learnable else []
            found[name] = forward_and_backward(layer, parameters, u)
            moved = TENSORS_MOVED - (1.5 if pooled else 0)  # output and its gradient have a quarter of the size
            rows.append({
                "first_in": where, "shape": "×".join(map(str, shape)), "activation": name,
                "microseconds": found[name] * 1e6, "over_silu": found[name] / found[f"SiLU {pooled}".strip()],
                "megabytes": moved * u.nbytes / 1e6, "share_of_copy_bandwidth": copying / found[name] * moved / 2,
            })  # fmt: skip
    return rows


# --- steps ------------------------------------------------------------------------------------------------------------


def bench_step(network: str, dataset: str, variant: str, precision: str, device: torch.device) -> tuple[Rows, Rows]:
    """Benchmark a training step: its row, and the rows of its slowest kernels."""
    cell = Cell(network, dataset, *VARIANTS[variant], "adam", 42)
    data = random_data(dataset, IMAGES)
    training = Training(cell, Settings(epochs=100, batch_size=BATCH), data, device, precision=precision)
    training.run_epoch()  # captures the step
    epoch = min(seconds(training.run_epoch) for _ in range(2))
    images, labels = training.data.train_images[:BATCH], training.data.train_labels[:BATCH]
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        training.take_step(images, labels)
        torch.cuda.synchronize()
    kernels = [
        (event.key, event.count, event.self_device_time_total)
        for event in found.key_averages()
        if event.device_type == DeviceType.CUDA
    ]
    name = {"network": network, "dataset": dataset, "variant": variant, "precision": precision}
    row = name | {
        "kernels_per_step": sum(count for _, count, _ in kernels),
        "gpu_milliseconds_per_step": sum(time for _, _, time in kernels) / 1e3,
        "images_per_second": IMAGES / epoch,
    }
    return [row], [name | kernel for kernel in largest(kernels)]


def largest(kernels: list[tuple[str, int, float]]) -> Rows:
    """Rows of the kernels with the largest total times, from names, counts and total microseconds."""
    whole = sum(time for *_, time in kernels)
    return [
        {"kernel": name[:80], "launches": count, "microseconds": time, "share": time / whole}
        for name, count, time in sorted(kernels, key=lambda kernel: -kernel[2])[:TOP]
    ]


def bench_steps(device: torch.device) -> tuple[Rows, Rows]:
    """Benchmark steps of all variants in tf32, and of KerasNet on CIFAR-10 in float32, relative to ReLU."""
    every = itertools.product(NETWORKS, DATASETS, VARIANTS, ["tf32"])
    rows, kernels = Rows(), Rows()
    for step in dict.fromkeys([*every, *PROFILED]):
        row, largest_kernels = bench_step(*step, device)
        rows += row
        kernels += largest_kernels if step[2] in ("SiLU", "LEAF P24Sl") and step in PROFILED else []
    return with_ratios(rows), kernels


def with_ratios(rows: Rows) -> Rows:
    """Add GPU time and total time relative to ReLU in the same network, data set and precision."""
    key = ("network", "dataset", "precision")
    relu = {tuple(row[name] for name in key): row for row in rows if row["variant"] == "ReLU"}
    return [
        row
        | {
            "gpu_over_relu": row["gpu_milliseconds_per_step"] / base["gpu_milliseconds_per_step"],
            "over_relu": base["images_per_second"] / row["images_per_second"],
        }
        for row in rows
        for base in [relu[tuple(row[name] for name in key)]]
    ]


# --- concurrent cells, and the paper ----------------------------------------------------------------------------------


@contextmanager
def mps() -> Iterator[None]:
    """Start NVIDIA's multi-process service, unless it runs already."""
    if mps_runs():
        yield
        return
    subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", check=False, capture_output=True)


def bench_sharing() -> Rows:
    """Images per second of concurrent cells of KerasNet with LEAF on CIFAR-10 in tf32, with and without MPS."""
    data, rows, until = random_data("cifar10", 2048), Rows(), time.monotonic() + SHARING_SECONDS
    counts = [count for count in CELL_COUNTS if count <= len(os.sched_getaffinity(0))]

    def measure(with_mps: bool) -> None:
        for cells in counts:
            if time.monotonic() < until:
                found = images_per_second("kerasnet", cells, 1, data, "tf32")
                rows.append({"cells": cells, "mps": with_mps, "images_per_second": found})
            else:
                print(f"not measured for want of time: {cells} cells {'with' if with_mps else 'without'} MPS")

    started_by_others = mps_runs()
    try:
        with mps():
            measure(True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not measured: cells with MPS, which did not start ({error})")
    if not started_by_others:
        measure(False)
    return rows


def variant_of(cell: Cell) -> str:
    """The measured variant with the same cost per step as a cell."""
    if PROCEDURES[cell.procedure].two_stage:
        return "LEAF DSPT"
    family = cell.activation.partition("-")[0]
    return {"leaf": "LEAF P24Sl", "ahaf": "AHAF"}.get(family, "ReLU")


def paper_minutes(cells: list[Cell], steps: Rows, sharing: Rows) -> float:
    """Estimate the minutes to train cells: the serial time over the largest speedup of concurrent KerasNet cells."""
    speed = {(row["network"], row["dataset"], row["variant"]): row["images_per_second"] for row in steps}
    one_after_another = sum(
        SCALES["paper"].settings.epochs
        * DATASETS[cell.dataset].images["train"]
        / speed[cell.network, cell.dataset, variant_of(cell)]
        for cell in cells
    )
    alone = max(row["images_per_second"] for row in sharing if row["cells"] == 1)
    return one_after_another / (max(row["images_per_second"] for row in sharing) / alone) / 60


def paper_cells() -> list[Cell]:
    """The cells of the paper, as the project's configuration has them."""
    import yaml

    experiments: Mapping[str, Any] = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["experiments"]
    return list(dict.fromkeys(cell for one in experiments.values() if one.get("in_all") for cell in expand(one)))


def report(device: torch.device, directory: Path, sharing: Rows) -> None:
    """Measure, print, and write the tables."""
    make_deterministic()
    layers = bench_layers(device)
    steps, kernels = bench_steps(device)
    where = {
        "device": device_name(device), "torch": torch.__version__, "cuda": torch.version.cuda,
        **{"commit": None, "clean": None, **git()},
    }  # fmt: skip
    print(in_words(where))
    for name, rows in {"kernels": kernels, "layers": layers, "steps": steps, "sharing": sharing}.items():
        write_rows(directory / f"gpu_{name}.csv", [row | where for row in rows])
        print(f"\n{name}: {', '.join(rows[0])}", *map(in_words, rows), sep="\n")
    try:
        minutes = paper_minutes(paper_cells(), [row for row in steps if row["precision"] == "tf32"], sharing)
        print(f"\nThe whole paper in tf32, worked out from these: {minutes:.0f} minutes")
    except (ImportError, ValueError) as error:
        print(f"\nThe time of the whole paper is left out: {error}")


def main() -> None:
    """Measure on this machine's first GPU, and write to the directory in the first argument."""
    if not torch.cuda.is_available():
        sys.exit("make bench-gpu needs a GPU, and torch finds none on this machine")
    sharing = bench_sharing()  # before this process takes memory on the GPU
    device = torch.device("cuda", 0)
    if kernel_for(device) != "triton":
        sys.exit("make bench-gpu measures the Triton kernel, which needs Triton and a C compiler")
    report(device, Path(sys.argv[1]), sharing)


if __name__ == "__main__":
    main()
