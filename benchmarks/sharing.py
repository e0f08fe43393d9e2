"""Throughput of concurrent cells: images per second on a machine's cores or GPUs, by the number of cells.

Each cell is a separate process, as under Snakemake, and all train at the same time, on real data. The numbers of cells
are measured alternately, so that changes of the machine's speed affect all of them. Run as `make bench-sharing`.
"""

import functools
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier

import torch
from measuring import NETWORKS, in_words, interleaved, ratio, spread, undisturbed, write_rows

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import dataset_file
from leaf.experiment.devices import device_name, training_device
from leaf.experiment.loading import Data, load
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

SETTINGS = Settings(train_images=2048, test_images=10)
ROUNDS = 3
SECONDS = 4.0
"""Duration of one round, in seconds."""

PATIENCE = 300.0
"""Maximum seconds that a cell waits for the others."""


def ways_to_share(on_gpu: bool) -> list[tuple[int, int]]:
    """Numbers of concurrent cells (1, 2, 4, … up to one per core), each with the number of threads per cell."""
    cores = len(os.sched_getaffinity(0))
    counts = [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    return [(cells, 1 if on_gpu else cores // cells) for cells in counts]


def train(
    network: str, seed: int, threads: int, data: Data, precision: str, ready: Barrier
) -> tuple[int, float, float]:
    """Train a cell once all are ready; return the number of images, and the start and end in monotonic seconds."""
    torch.set_num_threads(threads)
    cell = Cell(network, "cifar10", "leaf-tanh", "p24sl", "adam", seed)
    with training_device("auto") as device:
        training = Training(cell, SETTINGS, data, device, precision=precision)
        training.train_epoch()
        ready.wait(PATIENCE)
        images, began = 0, time.monotonic()
        while time.monotonic() - began < SECONDS:
            training.partial = None
            training.train_epoch()
            images += len(data.train_images)
        return images, began, time.monotonic()


def images_per_second(network: str, cells: int, threads: int, data: Data, precision: str = "float32") -> float:
    """Measure the throughput of concurrent cells."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(cells, spawn) as processes:
        ready = manager.Barrier(cells)
        trained = [processes.submit(train, network, seed, threads, data, precision, ready) for seed in range(cells)]
        images, began, ended = zip(*(future.result() for future in trained), strict=True)
    return sum(images) / (max(ended) - min(began))


def main() -> None:
    """Measure, print, and write ``sharing.csv`` to the directory in the first argument."""
    with training_device("auto") as device:
        name, on_gpu = device_name(device), device.type == "cuda"
    data = load("cifar10", dataset_file("cifar10"), SETTINGS.train_images, SETTINGS.test_images)
    rows = []
    for network in NETWORKS:
        disturbances: list[str] = []
        ways = {f"{cells} × {threads}": (cells, threads) for cells, threads in ways_to_share(on_gpu)}
        with undisturbed(f"sharing by {network}", disturbances):
            runs = {way: functools.partial(images_per_second, network, *how, data) for way, how in ways.items()}
            found = interleaved(runs, ROUNDS)
        for way, (cells, threads) in ways.items():
            rows.append({
                "device": name, "network": network, "cells": cells, "threads_each": threads,
                "images_per_second": statistics.median(found[way]), "spread": spread(found[way]),
                "over_one_cell": ratio(found[way], found[next(iter(ways))]), "disturbed": bool(disturbances),
            })  # fmt: skip
            print(in_words(rows[-1]), flush=True)
    write_rows(Path(sys.argv[1]) / "sharing.csv", rows)


if __name__ == "__main__":
    main()
