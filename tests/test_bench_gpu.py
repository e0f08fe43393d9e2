"""The GPU benchmark's arithmetic, and all of it on a CPU with stand-ins for CUDA's graphs, profiler and processes."""

import csv
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from leaf.experiment.cells import Cell

WITHOUT = ("pandas", "scipy", "yaml", "safetensors", "matplotlib", "seaborn", "snakemake", "numba", "torchvision")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    import gpu

    yield gpu
    for name in ("gpu", "measuring", "sharing"):
        sys.modules.pop(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_or_packages_gets_one_line():
    hide = f"import sys; sys.modules |= dict.fromkeys({WITHOUT})\n"
    code = (
        hide
        + "import runpy; sys.path.insert(0, 'benchmarks'); runpy.run_path('benchmarks/gpu.py', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", code, "nowhere"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr == "make bench-gpu needs a GPU, and torch finds none on this machine\n"


def test_the_papers_time_is_worked_out_from_speeds(gpu):
    cells = gpu.paper_cells()
    assert len(cells) == 148
    assert Counter(map(gpu.variant_of, cells)) == {"ReLU": 32, "AHAF": 25, "LEAF P24Sl": 35, "LEAF DSPT": 56}
    key = {"network": "lenet5", "dataset": "cifar10"}
    steps = [key | {"variant": "ReLU", "images_per_second": 1e4}, key | {"variant": "AHAF", "images_per_second": 5e3}]
    sharing = [{"cells": cells, "images_per_second": speed} for cells, speed in ((16, 8.0), (8, 9.0), (1, 3.0))]
    two = [Cell("lenet5", "cifar10", activation, "classic", "adam", 42) for activation in ("tanh", "ahaf-silu")]
    # 5,000,000 images take 500 and 1,000 s, and concurrent cells are three times as fast
    assert gpu.paper_minutes(two, steps, sharing) == pytest.approx(1500 / 3 / 60)


def test_ratios_are_to_relu_in_the_same_place(gpu):
    rows = [
        {"network": network, "dataset": "cifar10", "precision": "tf32", "variant": variant,
         "gpu_milliseconds_per_step": milliseconds, "images_per_second": 100 / milliseconds}
        for network, variant, milliseconds in (("a", "SiLU", 3), ("a", "ReLU", 2), ("b", "SiLU", 5), ("b", "ReLU", 4))
    ]  # fmt: skip
    found = [(row["gpu_over_relu"], row["over_relu"]) for row in gpu.with_ratios(rows)]
    assert found == [(1.5, pytest.approx(1.5)), (1, 1), (1.25, pytest.approx(1.25)), (1, 1)]


def test_everything_on_a_cpu_with_stand_ins(gpu, monkeypatch, tmp_path, capsys):
    @contextmanager
    def profiler(**_):
        event = SimpleNamespace(key="kernel", count=3, self_device_time_total=12.0, device_type=gpu.DeviceType.CUDA)
        yield SimpleNamespace(key_averages=lambda: [event])

    stand_ins = {
        "BATCH": 4, "IMAGES": 8, "NETWORKS": ["lenet5"], "PROFILED": [("lenet5", "cifar10", "LEAF P24Sl", "tf32")],
        "gpu_seconds": gpu.seconds, "profile": profiler,
        "images_per_second": lambda network, cells, *_: 100.0 * cells**0.5,
        "paper_cells": lambda: [Cell("lenet5", "cifar10", "leaf-silu", "classic", "adam", 42)],
    }  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu.os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    gpu.report(torch.device("cpu"), tmp_path, gpu.bench_sharing())
    said = capsys.readouterr().out
    assert "not measured: cells with MPS, which did not start" in said and "the whole paper" in said.lower()
    tables = {}
    for file in tmp_path.glob("gpu_*.csv"):
        with file.open() as rows:
            tables[file.stem] = list(csv.DictReader(rows))
            assert all(row["device"] and row["torch"] and row["commit"] for row in tables[file.stem])
    assert {name: len(rows) for name, rows in tables.items()} == {
        "gpu_kernels": 1, "gpu_layers": 61, "gpu_steps": 10, "gpu_sharing": len(gpu.CELL_COUNTS),
    }  # fmt: skip
