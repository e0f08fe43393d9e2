"""What makes a cell's results: the one place that decides whether results or a state can still be used."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.guests import guests_of
from leaf.experiment.records import TRAINING_VERSION
from leaf.experiment.scales import Settings


@dataclass(frozen=True)
class Identity:
    """What makes a cell's results. Threads, kernel and precision do not belong to it: they only change rounding.

    A field that is ``None`` is unknown or irrelevant and equals everything.

    Attributes:
        cell: the cell's name.
        settings: the fields of ``Settings``; results of an older training version may lack some.
        training_version: see ``TRAINING_VERSION``.
        data: SHA-256 of each array of the data set.
        device: ``"cpu"`` or ``"cuda"``. A state is resumed on the same kind of device; outputs are valid on any.
        guests: SHA-256 of each guest file that the cell uses. Only the digests count, not the paths.
        parent: SHA-256 of the weights that the cell starts from; ``None`` without a parent.
    """

    cell: str | None
    settings: Mapping[str, Any]
    training_version: int | None
    data: Mapping[str, str] | None = None
    device: str | None = None
    guests: Mapping[str, str] | None = None
    parent: str | None = None

    @classmethod
    def of(cls, cell: Cell, scale: str, settings: Settings, device: torch.device | str | None = None) -> "Identity":
        """The identity of results that a cell would get now.

        Args:
            device: where the cell would train; ``None`` or ``"auto"`` if any device will do.
        """
        kind = None if device in (None, "auto") else torch.device(device).type
        weights = cell.parent.directory(scale) / "model.safetensors" if cell.parent else None
        return cls(
            cell.name, asdict(settings), TRAINING_VERSION, DATASETS[cell.dataset].sha256, kind, guests_of(cell),
            sha256(weights) if weights and weights.exists() else None,
        )  # fmt: skip

    def differences(self, made: "Identity") -> list[str]:
        """How results that were made earlier differ from these, in words that follow "made with"; empty if current."""
        return list(self._differences(made))

    def obstacles(self, made: "Identity", epochs: int) -> list[str]:
        """Why training cannot go on after some epochs that were trained earlier, in words that follow "made with".

        Args:
            made: the identity of the state, or of the finished cell, to go on from. The settings may have other epochs.
            epochs: the number of epochs trained.
        """
        settings = {**made.settings, "epochs": self.settings["epochs"]}
        words = self.differences(replace(made, settings=settings))
        wanted = len(Cell.parse(self.cell or "").epochs(self.settings["epochs"]))
        return [*words, f"{epochs} epochs instead of at most {wanted}"] if epochs > wanted else words

    def to_json(self) -> str:
        """The settings and guests as canonical JSON: what a job is given, and what Snakemake compares.

        The training version is left out on purpose: a change of the code must not retrain a whole grid.
        """
        return _json(self.settings, self.guests or {})

    def _differences(self, made: "Identity") -> Iterator[str]:
        for name in ("cell", "training_version", "device"):
            ours, theirs = getattr(self, name), getattr(made, name)
            if None not in (ours, theirs) and ours != theirs:
                yield f"{name.replace('_', ' ')} {theirs} instead of {ours}"
        for name in {**self.settings, **made.settings}:
            ours, theirs = self.settings.get(name), made.settings.get(name)
            if ours != theirs:
                yield f"{name.replace('_', ' ')} {theirs} instead of {ours}"
        if None not in (self.data, made.data) and self.data != made.data:
            yield "another version of the data set"
        if self.guests is not None and made.guests is not None:
            yield from _guest_differences(self.guests, made.guests)
        if None not in (self.parent, made.parent) and self.parent != made.parent:
            yield "other weights of the cell that it starts from"


def _guest_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[str]:
    for file, digest in theirs.items():
        if digest not in ours.values():
            yield f"another version of {file}"
    for file, digest in ours.items():
        if digest not in theirs.values() and file not in theirs:
            yield f"no guest {file}"


def settings_json(settings: Settings, cells: Iterable[Cell]) -> str:
    """``Identity.to_json`` for several cells of one scale; ``guests.read_settings`` reads it."""
    return _json(asdict(settings), {file: digest for cell in cells for file, digest in guests_of(cell).items()})


def _json(settings: Mapping[str, Any], guests: Mapping[str, str]) -> str:
    return json.dumps({**settings, **({"guests": guests} if guests else {})}, sort_keys=True, separators=(",", ":"))


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
