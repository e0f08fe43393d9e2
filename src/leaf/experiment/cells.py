"""Cells: their names and files, and the expansion of a configuration into cells."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
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
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                check_choice(field, getattr(self, field), f"cell {self.name}: ")
        activation, procedure = ACTIVATIONS[self.activation], PROCEDURES[self.procedure]
        about_parameters = {
            "trains activation parameters in a stage of their own": procedure.two_stage,
            "trains activation parameters alone": procedure.weights_rest,
            "gives a base network activation parameters": procedure.start > 0,
        }
        for what, applies in about_parameters.items():
            if applies and not activation.adaptive:
                adaptive = ", ".join(name for name, kind in ACTIVATIONS.items() if kind.adaptive)
                raise UserError(
                    f"cell {self.name}: procedure {self.procedure!r} {what} and {self.activation!r} has none;"
                    f" it applies to: {adaptive}"
                )
        if procedure.two_stage and NETWORKS[self.network].batch_norm:
            others = ", ".join(name for name, kind in NETWORKS.items() if not kind.batch_norm)
            raise UserError(
                f"cell {self.name}: procedure {self.procedure!r} computes each minibatch twice, and the batch"
                f" normalization of {self.network!r} would update its statistics twice; it applies to: {others}"
            )
        if procedure.slow and not activation.slow_parameters:
            slow = ", ".join(name for name, kind in ACTIVATIONS.items() if kind.slow_parameters)
            raise UserError(
                f"cell {self.name}: procedure {self.procedure!r} slows down p2 and p4"
                f" and {self.activation!r} has neither; it applies to: {slow}"
            )
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
        """The cell whose weights this one starts from: for a patched network, the base network's first epochs."""
        start = PROCEDURES[self.procedure].start
        return replace(self, activation=self.form, procedure=f"first{start}-classic") if start else None

    def epochs(self, epochs: int) -> range:
        """The epochs that this cell trains at a scale of ``epochs`` epochs, counted from 0.

        Raises:
            UserError: if its first or last epoch is beyond them.
        """
        procedure = PROCEDURES[self.procedure]
        if procedure.start >= epochs or (procedure.stop or 0) > epochs:
            raise UserError(f"cell {self.name}: procedure {self.procedure!r} at a scale of only {epochs} epochs")
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
        if len(parts) != len(CHOICES) or not seed.removeprefix("seed").isdecimal() or not seed.startswith("seed"):
            raise UserError(f"{name!r} names no cell; a cell's name looks like {CELL_PATTERN}")
        number = int(seed.removeprefix("seed"))
        if seed != f"seed{number}":
            raise UserError(f"{name!r} names no cell; its seed is written seed{number}")
        return cls(**dict(zip(CHOICES, parts, strict=True)), seed=number)


def field_pattern(field: str) -> str:
    """A regular expression for the known values of a field."""
    return f"{getattr(CHOICES[field], 'PREFIX', '')}(?:{'|'.join(CHOICES[field])})"


def existing_cells(scale: str, *files: str) -> list[Cell]:
    """Find the cells with at least one of the given files at a scale, in the paper's order, in any configuration.

    Directories whose names are not valid, for example because a plugin is missing, are reported and skipped.
    """
    top, found = str(RESULTS / scale), []
    for directory in sorted(place for place, _, names in os.walk(top) if not set(files).isdisjoint(names)):
        try:
            found.append(Cell.parse(os.path.relpath(directory, top)))
        except UserError as error:
            print(f"{directory}: skipped: {error}", file=sys.stderr)
    return sort_cells(found)


def has_state(directory: Path) -> bool:
    """Whether a directory has a state. ``checkpoint.load_state`` decides whether it can be used."""
    return any((directory / name).exists() for name in (STATE, PREVIOUS))


def check_result_path(path: str, scales: Mapping[str, Scale]) -> None:
    """Check a target path if it is below ``results``.

    Raises:
        UserError: if it is not an output of a cell at one of the scales, or the scale has too few epochs for it.
    """
    parts = Path(path).parts
    if parts[:1] != RESULTS.parts:
        return
    if len(parts) < 3 or parts[1] not in scales:
        raise UserError(f"{path}: no results of a scale; below results/ there are the scales {', '.join(scales)}")
    is_directory = len(parts) == 2 + len(CELL_PATTERN.split("/"))
    Cell.parse("/".join(parts[2:] if is_directory else parts[2:-1])).epochs(scales[parts[1]].settings.epochs)
    if is_directory:
        raise UserError(f"{path}: a cell's directory; ask for one of its files, {', '.join(OUTPUTS)}")
    if parts[-1] not in OUTPUTS:
        raise UserError(f"{path}: a cell has no such file; its files are {', '.join(OUTPUTS)}")


def check_choice(field: str, value: str, where: str = "") -> None:
    """Check the value of a field.

    Raises:
        UserError: if it is unknown; the message starts with ``where`` and lists the known values.
    """
    if value not in CHOICES[field]:
        near = difflib.get_close_matches(value, CHOICES[field], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        note = getattr(CHOICES[field], "NOTE", "")
        raise UserError(f"{where}unknown {field} {value!r}{hint}; known: {', '.join(CHOICES[field])}{note}")


def expand(experiment: Mapping[str, Any], seeds: int | None = None) -> list[Cell]:
    """Expand an experiment of the configuration into its distinct cells, in the paper's order.

    Args:
        experiment: an entry of the configuration's ``experiments``. Each item of its ``cells`` is the product of its
            lists; a list that an item lacks is taken from the experiment.
        seeds: number of seeds to use, from the first; ``None`` for all.

    Raises:
        UserError: if a cell is invalid.
    """
    return sort_cells(cell for block in experiment["cells"] for cell in _product({**experiment, **block}, seeds))


def _product(block: Mapping[str, Any], seeds: int | None) -> Iterator[Cell]:
    lists = [block[f"{field}s"] for field in CHOICES]
    return (Cell(*values) for values in product(*lists, block["seeds"][:seeds]))


def sort_cells(cells: Iterable[Cell]) -> list[Cell]:
    """Sort the distinct cells in the paper's order: by form, then family (base, AHAF, LEAF), then procedure."""
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
