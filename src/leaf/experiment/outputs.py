"""Write the outputs of a finished training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from leaf.experiment.cells import Cell
from leaf.experiment.files import write_whole
from leaf.experiment.identity import Identity
from leaf.experiment.observations import QUANTILES, activation_parameters, input_histograms, weighted_layers
from leaf.experiment.provenance import Execution, Session, peak_memory
from leaf.experiment.records import write_metrics
from leaf.experiment.runs import Run, write_run
from leaf.experiment.training import TEST_BATCH_SIZE, Training
from leaf.names import ACTIVATIONS


def write_outputs(
    directory: Path,
    cell: Cell,
    training: Training,
    identity: Identity,
    scale: str,
    execution: Execution,
    sessions: list[Session],
) -> None:
    """Write the output files of a finished cell; last ``run.json``, which marks them as complete."""
    write_metrics(directory / "metrics.csv", training.records)
    write_tensors(directory / "model.safetensors", training.network.state_dict())
    write_tensors(directory / "forms.safetensors", _forms(training), _about_forms(cell, training))
    run = Run(
        identity=identity,
        scale=scale,
        execution=execution,
        sessions=sessions,
        epochs=len(training.records),
        diverged_at=training.records[-1].epoch if training.diverged else None,
        nonfinite_layer=training.nonfinite_layer,
        network_parameters=sum(parameter.numel() for parameter in training.network.parameters()),
        train_seconds=round(sum(record.train_seconds for record in training.records), 3),
        peak_memory_bytes=peak_memory(),
    )
    write_run(directory, run)


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file. Tensors are made contiguous, as the format requires.

    ``about`` becomes one entry of the metadata, as JSON, since several entries would have a random order.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"about": json.dumps(about)} if about else None
    write_whole(file, lambda part: safetensors.torch.save_file(contiguous, part, metadata))


def _forms(training: Training) -> dict[str, torch.Tensor]:
    network = training.network
    test_batches = (training.images(pixels) for pixels in training.data.test_images.split(TEST_BATCH_SIZE))
    quantiles = {name: torch.stack([epoch[name] for epoch in training.quantiles]) for name in training.quantiles[0]}
    histograms = input_histograms(network, test_batches)
    return {
        **{f"parameters/{name}": values for name, values in activation_parameters(network).items()},
        **{f"quantiles/{name}": values for name, values in quantiles.items()},
        **{f"inputs/{name}": histogram.counts for name, histogram in histograms.items()},
        **{f"input_edges/{name}": histogram.edges for name, histogram in histograms.items()},
        "gradient_norms/start": training.initial_gradient_norms,
        "gradient_norms/end": training.gradient_norms(),
    }


def _about_forms(cell: Cell, training: Training) -> dict[str, Any]:
    return {
        "family": ACTIVATIONS[cell.activation].family,
        "form": cell.form,
        "quantile_levels": QUANTILES,
        "gradient_norm_layers": weighted_layers(training.network),
    }
