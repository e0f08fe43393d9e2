"""The files of a finished cell: written, read back, and told whole from broken.

- ``metrics.csv``: a row per epoch, the columns of ``EpochRecord``.
- ``model.safetensors``: the final weights, activation parameters included.
- ``forms.safetensors``: what the learned curves are drawn from: ``parameters/L.P`` (the final activation parameters),
  ``quantiles/L.P`` (per epoch from 0, over the layer's elements), ``inputs/L`` (a histogram of the inputs that a layer
  sees on the test images), ``gradient_norms/start`` and ``gradient_norms/end`` (per layer with weights).
- ``run.json``: what made them, with the SHA-256 of the other three.
"""

import csv
import hashlib
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from leaf.experiment.cells import OUTPUTS
from leaf.experiment.errors import DamagedError
from leaf.experiment.files import write_text, write_whole
from leaf.experiment.training import EpochRecord


def write_metrics(file: Path, records: Iterable[EpochRecord]) -> None:
    """Write ``metrics.csv``; numbers as the shortest decimals that read back exactly."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    write_text(file, text.getvalue())


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file; tensors are made contiguous, as the format demands.

    What ``about`` tells goes into the file's metadata as one JSON text: of several entries the order would be random.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"about": json.dumps(about)} if about else None
    write_whole(file, lambda part: safetensors.torch.save_file(contiguous, part, metadata))


def write_run(directory: Path, run: Mapping[str, Any]) -> None:
    """Write ``run.json`` over the other outputs, which must lie in ``directory`` already: it seals them."""
    sealed = {**run, "sha256": {name: _sha256(directory / name) for name in OUTPUTS if name != "run.json"}}
    write_text(directory / "run.json", json.dumps(sealed, indent=2) + "\n")


def read_run(directory: Path, optional: Collection[str] = ()) -> dict[str, Any] | None:
    """The ``run.json`` of a finished cell, or ``None`` if there is none.

    Args:
        optional: names of outputs that may be missing. Those that are there are checked like all others.

    Raises:
        DamagedError: if it cannot be read, or another output isn't as it was sealed.
    """
    advice = f"'leaf train' makes the outputs of {directory} again"
    try:
        run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        sealed = dict(run["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{directory / 'run.json'} is no record of a run ({error!r}); {advice}") from None
    for name, digest in sealed.items():
        if not (directory / name).is_file():
            if name in optional:
                continue
            raise DamagedError(f"{directory / name} is missing; {advice}")
        if _sha256(directory / name) != digest:
            raise DamagedError(f"{directory / name} is not the file that the run wrote; {advice}")
    return run


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
