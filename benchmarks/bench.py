"""Training time of this package relative to the plain loop and to SiLU, of a converted ResNet-18 relative to the
original, and of every layer relative to a copy of its input.

The compared programs run alternately, in one process, on real data, so that changes of the machine's speed affect all
of them. Times are medians; ratios are medians of the rounds' ratios. Run as `make bench`; writes CSV files, a chart and
a description of the machine.
"""

import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import plain_loop
import torch
from measuring import TENSORS_MOVED, interleaved, layer_shapes, ratio, seconds, spread, undisturbed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from leaf import AHAF, LEAF, parameter_groups, replace_activations
from leaf.experiment.augmentation import to_unit_interval
from leaf.experiment.cells import Cell
from leaf.experiment.computing import keep_freed_memory, make_deterministic
from leaf.experiment.datasets import DATASETS, dataset_file
from leaf.experiment.devices import device_name
from leaf.experiment.loading import Data, load
from leaf.experiment.provenance import git, versions
from leaf.experiment.scales import SCALES, Settings
from leaf.experiment.tracking import TRACKERS, Run, Tracking, Watch
from leaf.experiment.training import Training
from leaf.kernels import kernel_for
from leaf.networks import NETWORKS, Network

THREADS, BATCH, ROUNDS = 2, 128, 3
VARIANTS = {
    "SiLU": ("silu", "classic"),
    "ReLU": ("relu", "classic"),
    "AHAF-SiLU": ("ahaf-silu", "classic"),
    "LEAF-SiLU": ("leaf-silu", "classic"),
    "LEAF-Tanh P24Sl": ("leaf-tanh", "p24sl"),
    "LEAF-SiLU DSPT P24Sl": ("leaf-silu", "dspt-p24sl"),
}
AGAINST_PLAIN_LOOP = ("ReLU", "AHAF-SiLU", "LEAF-Tanh P24Sl", "LEAF-SiLU DSPT P24Sl")
IN_BFLOAT16 = ("SiLU", "LEAF-Tanh P24Sl")
MINIBATCHES = {"lenet5": 32, "kerasnet": 16}
PREPARED = 8
"""Number of minibatches that the plain loop's workers prefetch; timing starts after them."""


# --- networks ---------------------------------------------------------------------------------------------------------


def our_epoch(cell: Cell, data: Data, precision: str = "float32") -> Callable[[], float]:
    """Seconds per 1,000 images of an epoch of this package, including loading and augmentation."""
    training = Training(cell, Settings(), data, precision=precision)

    def run() -> float:
        training.partial = None
        return seconds(training.train_epoch) / len(data.train_images) * 1000

    return run


def plain_epoch(cell: Cell, data: Data) -> Callable[[], float]:
    """Seconds per 1,000 images of the plain loop, once its workers are running."""
    epochs = plain_loop.train(cell, data, epochs=ROUNDS + 1)

    def run() -> float:
        ends = next(epochs).minibatch_ends
        return (ends[-1] - ends[PREPARED - 1]) / (len(ends) - PREPARED) / BATCH * 1000

    return run


def bare_convolutions(network: Network, images: Tensor) -> Callable[[], float]:
    """Seconds per 1,000 images of the forward and backward passes of a network's convolutions alone."""
    inputs: list[Tensor] = []
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach())) for layer in convolutions]
    network(images)
    for hook in hooks:
        hook.remove()
    for later in inputs[1:]:
        later.requires_grad_()
    grads = [torch.randn_like(layer(x)) for layer, x in zip(convolutions, inputs, strict=True)]

    def step() -> None:
        for layer, x, grad in zip(convolutions, inputs, grads, strict=True):
            x.grad = None
            layer.zero_grad()
            layer(x).backward(grad)

    return lambda: seconds(lambda: [step() for _ in range(8)]) / 8 / len(images) * 1000


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for matrix products in bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def bench_networks(disturbances: list[str]) -> pd.DataFrame:
    """Benchmark training: one row per network, data set and variant."""
    rows = []
    for network in MINIBATCHES:
        for dataset in DATASETS:
            data = load(dataset, dataset_file(dataset), MINIBATCHES[network] * BATCH, 10)
            cells = {name: Cell(network, dataset, *kind, "adam", 42) for name, kind in VARIANTS.items()}
            runs = {f"ours {name}": our_epoch(cell, data) for name, cell in cells.items()}
            runs |= {f"plain {name}": plain_epoch(cells[name], data) for name in AGAINST_PLAIN_LOOP}
            if computes_bfloat16():
                runs |= {f"bfloat16 {name}": our_epoch(cells[name], data, "bfloat16") for name in IN_BFLOAT16}
            training = Training(cells["SiLU"], Settings(), data)
            runs["convolutions"] = bare_convolutions(training.network, training.images(data.train_images[:BATCH]))
            with undisturbed(f"{network} on {dataset}", disturbances):
                found = interleaved(runs, ROUNDS)
            for name in VARIANTS:
                ours, plain, bfloat16 = (found.get(f"{kind} {name}", []) for kind in ("ours", "plain", "bfloat16"))
                row = {
                    "network": network, "dataset": dataset, "variant": name,
                    "seconds_per_1000_images": statistics.median(ours), "spread": spread(ours),
                    "plain_loop": statistics.median(plain) if plain else None,
                    "plain_loop_over_ours": ratio(plain, ours) if plain else None,
                    "over_silu": ratio(ours, found["ours SiLU"]),
                    "over_convolutions": ratio(ours, found["convolutions"]),
                    "bfloat16_over_float32": ratio(bfloat16, ours) if bfloat16 else None,
                }  # fmt: skip
                rows.append(row)
                print(" ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    return pd.DataFrame(rows)


# --- layers -----------------------------------------------------------------------------------------------------------


def forward_and_backward(layer: nn.Module, u: Tensor, grad: Tensor, repeats: int) -> Callable[[], float]:
    """Seconds of a layer's forward and backward pass."""

    leaves = [u, *layer.parameters()]

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        layer(u).backward(grad)

    return lambda: seconds(lambda: [step() for _ in range(repeats)]) / repeats


def plain_copy(u: Tensor, repeats: int) -> Callable[[], float]:
    """Seconds to copy a tensor."""
    y = torch.empty_like(u)
    return lambda: seconds(lambda: [y.copy_(u) for _ in range(repeats)]) / repeats


def bench_layers(disturbances: list[str]) -> pd.DataFrame:
    """Benchmark layers: one row per shape, memory layout and activation."""
    rows = []
    for where, shape in layer_shapes():
        layouts = {"contiguous": torch.contiguous_format}
        if len(shape) == 3:
            layouts["channels last"] = torch.channels_last
        for layout, memory_format in layouts.items():
            u, grad = (torch.randn(BATCH, *shape).contiguous(memory_format=memory_format) for _ in range(2))
            repeats = max(3, 2**24 // u.numel())
            layers = {name: build(shape) for name, build in LAYERS.items()}
            runs = {
                name: forward_and_backward(
                    layer.to(memory_format=memory_format), u.clone().requires_grad_(), grad, repeats
                )
                for name, layer in layers.items()
            }
            runs["copy"] = plain_copy(u, repeats)
            with undisturbed(f"layers of {shape}, {layout}", disturbances):
                found = interleaved(runs, 9)
            for name in layers:
                rows.append({
                    "first_in": where, "shape": "×".join(map(str, shape)), "layout": layout, "activation": name,
                    "microseconds": statistics.median(found[name]) * 1e6, "spread": spread(found[name]),
                    "over_silu": ratio(found[name], found["SiLU"]),
                    "megabytes": TENSORS_MOVED * u.nbytes / 1e6,
                    "share_of_copy_bandwidth": ratio(found["copy"], found[name]) * TENSORS_MOVED / 2,
                })  # fmt: skip
            print(where, shape, layout, {n: round(ratio(found[n], found["SiLU"]), 2) for n in layers}, flush=True)
    return pd.DataFrame(rows)


LAYERS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "SiLU": lambda shape: nn.SiLU(),
    "ReLU": lambda shape: nn.ReLU(),
    "PReLU": lambda shape: nn.PReLU(shape[0]),
    "AHAF": lambda shape: AHAF(shape, "silu"),
    "LEAF": lambda shape: LEAF(shape, "silu"),
}


# --- a network that was converted -------------------------------------------------------------------------------------


def bench_conversion(disturbances: list[str]) -> pd.DataFrame:
    """Benchmark torchvision's ResNet-18 on CIFAR-10: one row for the original and one for each conversion."""
    data = load("cifar10", dataset_file("cifar10"), BATCH, 10)
    images = to_unit_interval(data.train_images, torch.float32).contiguous(memory_format=torch.channels_last)
    rows, runs = [], {}
    for name, options in CONVERSIONS.items():
        torch.manual_seed(42)
        model = resnet18(num_classes=10).to(memory_format=torch.channels_last)
        row = {"network": "ResNet-18", "activations": name, "added_parameters": 0, "conversion_seconds": 0.0}
        if options:
            started = time.perf_counter()
            conversion = replace_activations(model, **options, example_input=images[:1])
            row |= {"conversion_seconds": time.perf_counter() - started, "added_parameters": conversion.parameters}
        runs[name] = training_step(model, images, data.train_labels)
        rows.append(row)
    with undisturbed("conversion of ResNet-18", disturbances):
        found = interleaved(runs, 15)
    for row, took in zip(rows, found.values(), strict=True):
        row["seconds_per_1000_images"] = statistics.median(took) / BATCH * 1000
        row |= {"spread": spread(took), "over_relu": ratio(took, found["ReLU"])}
        print(" ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    return pd.DataFrame(rows)


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """Seconds of a training step on one minibatch."""
    optimizer = torch.optim.Adam(parameter_groups(model, learning_rate=1e-3))

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    return lambda: seconds(step)


CONVERSIONS: dict[str, dict[str, str]] = {
    "ReLU": {},
    "LEAF per channel": {"with_": "leaf", "sharing": "channel"},
    "AHAF per channel": {"with_": "ahaf", "sharing": "channel"},
    "LEAF per element": {"with_": "leaf", "sharing": "element"},
    "LEAF per layer": {"with_": "leaf", "sharing": "layer"},
}


# --- whole cells ------------------------------------------------------------------------------------------------------


def bench_cells(disturbances: list[str]) -> pd.DataFrame:
    """Benchmark whole processes of a cell: at the quick scale, and with one minibatch, which measures the start."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "resources").symlink_to(Path("resources").resolve())

        def train(cell: Cell, settings: Settings) -> tuple[float, int]:
            command = ["leaf", "train", cell.name, "--scale", "bench", "--settings", settings.to_json()]
            command += ["--device", "cpu", "--precision", "float32", "--threads", str(THREADS)]
            took = seconds(lambda: subprocess.run(command, cwd=directory, check=True, capture_output=True))
            peak = json.loads((directory / cell.directory("bench") / "run.json").read_text())["peak_memory_bytes"]
            shutil.rmtree(directory / cell.directory("bench"))
            return took, peak

        train(Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42), START)  # warms the caches
        with undisturbed("whole cells", disturbances):
            for network in MINIBATCHES:
                for dataset in DATASETS:
                    for variant in AGAINST_PLAIN_LOOP:
                        cell = Cell(network, dataset, *VARIANTS[variant], "adam", 42)
                        start, _ = train(cell, START)
                        whole, peak = train(cell, SCALES["quick"].settings)
                        row = {"cell": cell.name, "start_seconds": start, "seconds": whole, "peak_gib": peak / 2**30}
                        rows.append(row)
                        print(
                            " ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True
                        )
    return pd.DataFrame(rows)


START = Settings(epochs=1, train_images=BATCH, test_images=10)


# --- tracking ---------------------------------------------------------------------------------------------------------


def bench_tracking(disturbances: list[str]) -> pd.DataFrame:
    """Overhead of each tracker on whole epochs: LeNet-5 with LEAF on all of Fashion-MNIST, one thread."""
    cell = Cell("lenet5", "fashion_mnist", *VARIANTS["LEAF-Tanh P24Sl"], "adam", 42)
    data = load("fashion_mnist", dataset_file("fashion_mnist"))
    torch.set_num_threads(1)
    training, shares = Training(cell, Settings(), data), {name: list[float]() for name in TRACKERS}
    watches = {name: Watch(print) for name in TRACKERS}

    def log(watch: Watch) -> None:
        watch.observe(training.records[-1], training.network)
        watch.flush()

    with tempfile.TemporaryDirectory() as directory, undisturbed("tracking", disturbances):
        for name, watch in watches.items():
            watch.start(Tracking((name,), directory), Run(cell, "bench", {}, 1))
        for _ in range(ROUNDS):
            epoch = seconds(training.run_epoch)
            for name, watch in watches.items():
                shares[name].append(seconds(functools.partial(log, watch)) / epoch)
        for watch in watches.values():
            watch.close()
    torch.set_num_threads(THREADS)
    rows = [{"tracker": name, "share_of_epoch": statistics.median(s), "most": max(s)} for name, s in shares.items()]
    print(*rows, sep="\n", flush=True)
    return pd.DataFrame(rows)


# --- the report -------------------------------------------------------------------------------------------------------


def draw(networks: pd.DataFrame, file: Path) -> None:
    """Draw seconds per 1,000 images of this package, of the plain loop and of the convolutions alone."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
    groups = networks.dropna(subset=["plain_loop"]).groupby(["network", "dataset"], sort=False)
    for axis, ((network, dataset), group) in zip(axes, groups, strict=True):
        place = range(len(group))
        axis.barh([p - 0.2 for p in place], group["plain_loop"], 0.4, color="0.75", label="plain loop")
        axis.barh([p + 0.2 for p in place], group["seconds_per_1000_images"], 0.4, color="#1f5fa8", label="leaf")
        for p, (_, row) in zip(place, group.iterrows(), strict=True):
            axis.annotate(
                f" ×{row['plain_loop_over_ours']:.1f}", (row["seconds_per_1000_images"], p + 0.2), va="center"
            )
        axis.set_yticks(list(place), group["variant"])
        convolutions = (group["seconds_per_1000_images"] / group["over_convolutions"]).median()
        axis.axvline(convolutions, color="black", linestyle="--", linewidth=1, label="bare convolutions")
        axis.set_title(f"{NETWORKS[network].title}, {DATASETS[dataset].title}", fontsize=9)
        axis.set_xlabel("seconds per 1,000 images", fontsize=8)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(file)


def main() -> None:
    """Run all benchmarks and write the results to the directory in the first argument."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    make_deterministic()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    started, disturbances = time.perf_counter(), list[str]()
    bench_layers(disturbances).to_csv(directory / "layers.csv", index=False, float_format="%.4g")
    bench_conversion(disturbances).to_csv(directory / "conversion.csv", index=False, float_format="%.4g")
    networks = bench_networks(disturbances)
    networks.to_csv(directory / "networks.csv", index=False, float_format="%.4g")
    draw(networks, directory / "networks.svg")
    bench_cells(disturbances).to_csv(directory / "cells.csv", index=False, float_format="%.4g")
    bench_tracking(disturbances).to_csv(directory / "tracking.csv", index=False, float_format="%.4g")
    machine = {
        "device": device_name(torch.device("cpu")), "cores": os.cpu_count(), "threads": THREADS,
        "system": platform.platform(terse=True), "kernel": kernel_for(torch.device("cpu")), "versions": versions(),
        "git": git(), "minutes": round((time.perf_counter() - started) / 60, 1), "disturbances": disturbances,
    }  # fmt: skip
    (directory / "machine.json").write_text(json.dumps(machine, indent=2) + "\n")


if __name__ == "__main__":
    main()
