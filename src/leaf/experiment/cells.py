"""What a cell is, how a configuration expands into cells, and where a cell's files lie: known here and nowhere else."""

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
"""The known values of each of a cell's fields but the seed: what is there now, guests included."""

CELL_PATTERN = "{network}/{dataset}/{activation}/{procedure}/{optimizer}/seed{seed}"
"""A cell's name, and its directory below ``results/{scale}``, with Snakemake's wildcards for its fields."""

RESULTS = Path("results")
OUTPUTS = ("metrics.csv", "model.safetensors", "forms.safetensors", "run.json")
"""The files that a finished cell leaves in its directory."""
STATE, PREVIOUS = "state.pt", "state.previous.pt"
"""The states that a cell in training leaves there: the newest, and the one before it."""
SHOWN = "shown.safetensors"
"""What the analysis has derived from ``forms.safetensors`` and keeps there: a cache, see ``leaf.analysis.forms``."""


@dataclass(frozen=True)
class Cell:
    """One training run of the grid: the unit of work, of naming and of rerunning.

    Raises:
        UserError: if a field has no such value or the fields don't go together; the message names the cell.
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
                    f" it goes with: {adaptive}"
                )
        if procedure.slow and not activation.slow_parameters:
            slow = ", ".join(name for name, kind in ACTIVATIONS.items() if kind.slow_parameters)
            raise UserError(
                f"cell {self.name}: procedure {self.procedure!r} slows down p2 and p4"
                f" and {self.activation!r} has neither; it goes with: {slow}"
            )
        if not 0 <= self.seed < 2**31:
            raise UserError(f"cell {self.name}: seed {self.seed} is not between 0 and {2**31 - 1}")

    @property
    def name(self) -> str:
        """The cell's name, and its path below ``results/{scale}``."""
        return CELL_PATTERN.format(**vars(self))

    @property
    def form(self) -> str:
        """The function that the cell's activation is or starts as."""
        return ACTIVATIONS[self.activation].form

    @property
    def parent(self) -> "Cell | None":
        """The cell that this one starts from: of a patched network, the base network's first epochs."""
        start = PROCEDURES[self.procedure].start
        return replace(self, activation=self.form, procedure=f"first{start}-classic") if start else None

    def epochs(self, epochs: int) -> range:
        """The epochs that it trains where others train so many, counted from 0.

        Raises:
            UserError: if it would start or stop beyond them.
        """
        procedure = PROCEDURES[self.procedure]
        if procedure.start >= epochs or (procedure.stop or 0) > epochs:
            raise UserError(f"cell {self.name}: procedure {self.procedure!r} at a scale of only {epochs} epochs")
        return range(procedure.start, procedure.stop or epochs)

    def directory(self, scale: str) -> Path:
        """Where the cell's files lie, relative to the working directory."""
        return Path(f"{RESULTS}/{scale}/{self.name}")

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """The cell of a name such as ``lenet5/cifar10/leaf-tanh/p24sl/adam/seed42``.

        Raises:
            UserError: if the name is no cell's.
        """
        *parts, seed = name.strip("/").split("/")
        if len(parts) != len(CHOICES) or not seed.removeprefix("seed").isdecimal() or not seed.startswith("seed"):
            raise UserError(f"{name!r} names no cell; a cell's name looks like {CELL_PATTERN}")
        number = int(seed.removeprefix("seed"))
        if seed != f"seed{number}":
            raise UserError(f"{name!r} names no cell; its seed is written seed{number}")
        return cls(**dict(zip(CHOICES, parts, strict=True)), seed=number)


def field_pattern(field: str) -> str:
    """A regular expression of all values that one of a cell's fields but the seed can have."""
    return f"{getattr(CHOICES[field], 'PREFIX', '')}(?:{'|'.join(CHOICES[field])})"


def existing_cells(scale: str, *files: str) -> list[Cell]:
    """The cells that have left one of some files at a scale, of the configuration or not, in the paper's order.

    What is no cell here, such as one with a guest that the configuration doesn't name, is told of and passed over.
    """
    top, found = str(RESULTS / scale), []
    for directory in sorted(place for place, _, names in os.walk(top) if not set(files).isdisjoint(names)):
        try:
            found.append(Cell.parse(os.path.relpath(directory, top)))
        except UserError as error:
            print(f"{directory}: passed over: {error}", file=sys.stderr)
    return sort_cells(found)


def has_state(directory: Path) -> bool:
    """Whether a cell has left a state; only ``checkpoint.load_state`` decides whether it can be used."""
    return any((directory / name).exists() for name in (STATE, PREVIOUS))


def check_result_path(path: str, scales: Mapping[str, Scale]) -> None:
    """Check a path that someone asks to be made, if it lies below ``results``.

    Raises:
        UserError: if it is no output of a cell at one of the scales, or the scale has too few epochs for the cell.
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
    """See that a cell's field can have a value.

    Raises:
        UserError: if not; the message starts with ``where`` and tells what there is.
    """
    if value not in CHOICES[field]:
        near = difflib.get_close_matches(value, CHOICES[field], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        note = getattr(CHOICES[field], "NOTE", "")
        raise UserError(f"{where}unknown {field} {value!r}{hint}; known: {', '.join(CHOICES[field])}{note}")


def expand(experiment: Mapping[str, Any], seeds: int | None = None) -> list[Cell]:
    """The cells of one experiment of the configuration, in the paper's order, each once.

    Args:
        experiment: an entry of the configuration's ``experiments``. Each item of its ``cells`` stands for the product
            of its lists; a list that an item lacks is the experiment's own.
        seeds: use only the first so many of the seeds.

    Raises:
        UserError: if one of them cannot be.
    """
    return sort_cells(cell for block in experiment["cells"] for cell in _product({**experiment, **block}, seeds))


def _product(block: Mapping[str, Any], seeds: int | None) -> Iterator[Cell]:
    lists = [block[f"{field}s"] for field in CHOICES]
    return (Cell(*values) for values in product(*lists, block["seeds"][:seeds]))


def sort_cells(cells: Iterable[Cell]) -> list[Cell]:
    """The distinct ones among ``cells``, in the paper's order: by form, in it base, AHAF, LEAF, and by procedure."""
    kinds = ACTIVATIONS.values()
    families, forms = (_places(getattr(kind, name) for kind in kinds) for name in ("family", "form"))
    places = {field: _places(choices) for field, choices in CHOICES.items()}

    def order(cell: Cell) -> tuple[object, ...]:
        kind, procedure = ACTIVATIONS[cell.activation], PROCEDURES[cell.procedure]
        return (
            places["network"][cell.network], places["dataset"][cell.dataset], forms[kind.form],
            places["optimizer"][cell.optimizer], families[kind.family], procedure.start, procedure.stop or 0,
            places["procedure"][PROCEDURES.plain_name(cell.procedure)], cell.seed, *vars(cell).values(),
        )  # fmt: skip

    return sorted(set(cells), key=order)


def _places(names: Iterable[str]) -> dict[str, int]:
    """The place of each name among the distinct ones."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
