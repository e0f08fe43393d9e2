"""Cells: their names and files, and the expansion of a configuration into cells."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError, unknown
from leaf.experiment.procedures import OPTIMIZERS, PROCEDURES
from leaf.experiment.scales import Scale
from leaf.names import ACTIVATIONS, NETWORKS

CHOICES: dict[str, Mapping[str, Any]] = {
    "network": NETWORKS,
    "dataset": DATASETS,
    "activation": ACTIVATIONS,
    "procedure": PROCEDURES,
    "optimizer": OPTIMIZERS,
}
"""Known values of each field of a cell except the seed, including those that plugins registered."""

CELL_PATTERN = "{network}/{dataset}/{activation}/{procedure}/{optimizer}/seed{seed}"
"""Name of a cell and its directory below ``results/{scale}``, with a Snakemake wildcard for each field."""

RESULTS = Path("results")
OUTPUTS = ("metrics.csv", "model.safetensors", "forms.safetensors", "run.json")
"""Files of a finished cell in its directory."""
STATE, PREVIOUS = "state.pt", "state.previous.pt"
"""The newest and the previous state of a cell in training, in the same directory."""
SHOWN = "shown.safetensors"
"""Cache of the data that the analysis derives from ``forms.safetensors``; see ``leaf.analysis.forms``."""


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Raises:
        UserError: if a field has an unknown value or the fields are incompatible; the message names the cell.
    """

    network: str
    dataset: str
    activation: str
    procedure: str
    optimizer: str
    seed: int

    def __post_init__(self) -> None:
        for field in CHOICES:
            check_choice(field, getattr(self, field), f"cell {self.name}: ")

        def require(field: str, fits: Callable[[Any], Any], reason: str) -> None:
            if not fits(CHOICES[field][getattr(self, field)]):
                others = ", ".join(name for name, known in CHOICES[field].items() if fits(known))
                raise UserError(f"cell {self.name}: procedure {self.procedure!r} {reason}; it applies to: {others}")

        procedure, adaptive, none = PROCEDURES[self.procedure], attrgetter("adaptive"), f"{self.activation!r} has none"
        if procedure.two_stage:
            require("activation", adaptive, f"trains activation parameters in a stage of their own and {none}")
            reason = f"and the batch normalization of {self.network!r} would update its statistics twice"
            require("network", lambda network: not network.batch_norm, f"computes each minibatch twice, {reason}")
        if procedure.weights_rest:
            require("activation", adaptive, f"trains activation parameters alone and {none}")
        if procedure.start:
            require("activation", adaptive, f"gives a base network activation parameters and {none}")
        if procedure.slow:
            slow = attrgetter("slow_parameters")
            require("activation", slow, f"slows down p2 and p4 and {self.activation!r} has neither")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"cell {self.name}: seed {self.seed} is not between 0 and {2**31 - 1}")

    @property
    def name(self) -> str:
        """The cell's name, and its path below ``results/{scale}``."""
        return CELL_PATTERN.format(**vars(self))

    @property
    def form(self) -> str:
        """The base function, or the initial function of the learnable activation."""
        return ACTIVATIONS[self.activation].form

    @property
    def parent(self) -> "Cell | None":
        """The cell whose final weights are the initial weights of this one; only a patched network has a parent."""
        start = PROCEDURES[self.procedure].start
        return replace(self, activation=self.form, procedure=f"first{start}-classic") if start else None

    def epochs(self, epochs: int) -> range:
        """The epochs, counted from 0, that this cell trains at a scale of ``epochs`` epochs.

        Raises:
            UserError: if the scale has too few epochs for the procedure.
        """
        procedure = PROCEDURES[self.procedure]
        if procedure.start >= epochs or (procedure.stop or 0) > epochs:
            raise UserError(f"cell {self.name}: procedure {self.procedure!r} needs more than {epochs} epochs")
        return range(procedure.start, procedure.stop or epochs)

    def directory(self, scale: str) -> Path:
        """Directory of the cell's files, relative to the working directory."""
        return Path(f"{RESULTS}/{scale}/{self.name}")

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Parse a name such as ``lenet5/cifar10/leaf-tanh/p24sl/adam/seed42``.

        Raises:
            UserError: if it is not the name of a cell.
        """
        *parts, seed = name.strip("/").split("/")
        if len(parts) != len(CHOICES) or not re.fullmatch(r"seed\d+", seed):
            raise UserError(f"{name!r} names no cell; a cell's name looks like {CELL_PATTERN}")
        number = int(seed.removeprefix("seed"))
        if seed != f"seed{number}":
            raise UserError(f"{name!r} names no cell; its seed is written seed{number}")
        return cls(**dict(zip(CHOICES, parts, strict=True)), seed=number)


def field_pattern(field: str) -> str:
    """Regular expression for the known values of a field."""
    return f"{getattr(CHOICES[field], 'PREFIX', '')}(?:{'|'.join(CHOICES[field])})"


def existing_cells(scale: str, *files: str) -> list[Cell]:
    """Find the cells that have at least one of the given files at a scale, in the paper's order.

    They need not be in the configuration. A directory whose name is invalid, for example because a plugin is missing,
    is reported and skipped.
    """
    top, found = str(RESULTS / scale), []
    for directory in sorted(place for place, _, names in os.walk(top) if not set(files).isdisjoint(names)):
        try:
            found.append(Cell.parse(os.path.relpath(directory, top)))
        except UserError as error:
            print(f"{directory}: skipped: {error}", file=sys.stderr)
    return sort_cells(found)


def has_state(directory: Path) -> bool:
    """Return whether a directory has a state. ``checkpoint.load_state`` decides whether training can resume from it."""
    return any((directory / name).exists() for name in (STATE, PREVIOUS))


def check_result_path(path: str, scales: Mapping[str, Scale]) -> None:
    """Check a path below ``results`` that is a target of Snakemake.

    Raises:
        UserError: if it is not an output of a cell at one of the scales, or the scale has too few epochs for the cell.
    """
    parts = Path(path).parts
    if parts[:1] != RESULTS.parts:
        return
    if len(parts) < 3 or parts[1] not in scales:
        raise UserError(f"{path}: no file of a cell at one of the scales {', '.join(scales)}")
    is_directory = len(parts) == 2 + len(CELL_PATTERN.split("/"))
    Cell.parse("/".join(parts[2:] if is_directory else parts[2:-1])).epochs(scales[parts[1]].settings.epochs)
    if is_directory:
        raise UserError(f"{path}: a cell's directory; ask for one of its files, {', '.join(OUTPUTS)}")
    if parts[-1] not in OUTPUTS:
        raise UserError(f"{path}: a cell has no such file; its files are {', '.join(OUTPUTS)}")


def check_choice(field: str, value: str, where: str = "") -> None:
    """Check the value of a field.

    Raises:
        UserError: if it is unknown. The message starts with ``where``.
    """
    known = CHOICES[field]
    if value not in known:
        raise UserError(where + unknown(field, value, known) + getattr(known, "NOTE", ""))


def expand(experiment: Mapping[str, Any], seeds: int | None = None) -> list[Cell]:
    """Expand an experiment of the configuration into its distinct cells, in the paper's order.

    Args:
        experiment: an entry of the configuration's ``experiments``. Each item of its ``cells`` is the product of its
            lists. The experiment's lists are the defaults.
        seeds: number of seeds to use, from the first; ``None`` for all.

    Raises:
        UserError: if a cell is invalid.
    """
    cells: list[Cell] = []
    for item in experiment["cells"]:
        block = {**experiment, **item}
        lists = [block[f"{field}s"] for field in CHOICES]
        cells += (Cell(*values) for values in product(*lists, block["seeds"][:seeds]))
    return sort_cells(cells)


def sort_cells(cells: Iterable[Cell]) -> list[Cell]:
    """Sort the distinct cells in the paper's order: by network, data set, form, optimizer, family and procedure."""
    kinds = ACTIVATIONS.values()
    families, forms = (_places(getattr(kind, name) for kind in kinds) for name in ("family", "form"))
    places = {field: _places(choices) for field, choices in CHOICES.items()}

    def order(cell: Cell) -> tuple[object, ...]:
        kind, procedure = ACTIVATIONS[cell.activation], PROCEDURES[cell.procedure]
        return (
            places["network"][cell.network], places["dataset"][cell.dataset], forms[kind.form],
            places["optimizer"][cell.optimizer], families[kind.family], procedure.start, procedure.stop or 0,
            places["procedure"][PROCEDURES.base_name(cell.procedure)], cell.seed, *vars(cell).values(),
        )  # fmt: skip

    return sorted(set(cells), key=order)


def _places(names: Iterable[str]) -> dict[str, int]:
    """Index of each distinct name."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
