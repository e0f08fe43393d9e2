"""Identity of results, which alone decides whether results or a state are current."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.plugins import plugins_of
from leaf.experiment.records import TRAINING_VERSION
from leaf.experiment.scales import Settings


@dataclass(frozen=True)
class Identity:
    """Everything that a cell's results depend on, except for rounding: it excludes threads, kernel and precision.

    A field that is ``None`` is unknown or irrelevant, and equals any value.

    Attributes:
        cell: the cell's name.
        settings: the fields of ``Settings``; results of an older training version may lack some.
        training_version: see ``TRAINING_VERSION``.
        data: SHA-256 of each array of the data set.
        device: ``"cpu"`` or ``"cuda"``. A state is resumed on the same kind of device; outputs are valid on any.
        plugins: SHA-256 of each plugin file that the cell uses, by path. Only the digests are compared.
        parent: SHA-256 of the parent's weights; ``None`` without a parent.
    """

    cell: str
    settings: dict[str, Any]
    training_version: int
    data: dict[str, str] | None = None
    device: str | None = None
    plugins: dict[str, str] | None = None
    parent: str | None = None

    @classmethod
    def of(cls, cell: Cell, scale: str, settings: Settings, device: object = None) -> "Identity":
        """Return the identity that a cell's results have with the present code and configuration.

        Args:
            device: a ``torch.device`` or its name; ``None`` or ``"auto"`` for any.
        """
        kind = None if device in (None, "auto") else str(device).partition(":")[0]
        weights = cell.parent.directory(scale) / "model.safetensors" if cell.parent else None
        return cls(
            cell.name, dict(vars(settings)), TRAINING_VERSION, DATASETS[cell.dataset].sha256, kind, plugins_of(cell),
            sha256(weights) if weights and weights.exists() else None,
        )  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Identity":
        """Convert the JSON of an identity. ``guests`` is the former name of ``plugins``."""
        return cls(**{{"guests": "plugins"}.get(key, key): value for key, value in values.items()})

    def differences(self, made: "Identity") -> list[str]:
        """Describe what earlier results were made with, as phrases after "made with"; empty if they are current."""
        values = [(name, getattr(made, name), getattr(self, name)) for name in ("cell", "training_version")]
        if None not in (self.device, made.device):
            values.append(("device", made.device, self.device))
        values += [(name, made.settings.get(name), self.settings.get(name)) for name in self.settings | made.settings]
        words = [
            f"{name.replace('_', ' ')} {theirs} instead of {ours}" for name, theirs, ours in values if theirs != ours
        ]
        if None not in (self.data, made.data) and self.data != made.data:
            words.append("another version of the data set")
        if self.plugins is not None and made.plugins is not None:
            ours, theirs = self.plugins.values(), made.plugins.values()
            words += [f"another version of {file}" for file, digest in made.plugins.items() if digest not in ours]
            added = {file for file, digest in self.plugins.items() if digest not in theirs} - made.plugins.keys()
            words += [f"no plugin {file}" for file in sorted(added)]
        if None not in (self.parent, made.parent) and self.parent != made.parent:
            words.append("other weights of its parent")
        return words

    def obstacles(self, made: "Identity", epochs: int) -> list[str]:
        """Describe why training cannot resume from an earlier one, as phrases after "made with"; empty if it can.

        Args:
            made: the identity of the state or finished cell to resume from. Its number of epochs may differ.
            epochs: the number of epochs trained.
        """
        settings = {**made.settings, "epochs": self.settings["epochs"]}
        words = self.differences(replace(made, settings=settings))
        wanted = len(Cell.parse(self.cell).epochs(self.settings["epochs"]))
        return [*words, f"{epochs} epochs instead of at most {wanted}"] if epochs > wanted else words


def settings_json(settings: Settings, cells: Iterable[Cell]) -> str:
    """Convert settings and the plugins of cells to canonical JSON, for ``plugins.read_settings``.

    Snakemake compares it with its records. It lacks the training version on purpose: a change of the code must not
    retrain a whole grid.
    """
    plugins = {file: digest for cell in cells for file, digest in plugins_of(cell).items()}
    values = {**vars(settings), **({"plugins": plugins} if plugins else {})}
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
