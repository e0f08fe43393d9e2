"""What a cell is, how a configuration expands into cells, and where a cell's files lie: known here and nowhere else."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from leaf.activations import ACTIVATIONS
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.networks import NETWORKS, Network
from leaf.procedures import OPTIMIZERS, PROCEDURES

CHOICES: dict[str, tuple[str, ...]] = {
    "network": tuple(NETWORKS),
    "dataset": tuple(DATASETS),
    "activation": tuple(ACTIVATIONS),
    "procedure": tuple(PROCEDURES),
    "optimizer": tuple(OPTIMIZERS),
}
"""The known values of each of a cell's fields but the seed."""

CELL_PATTERN = "{network}/{dataset}/{activation}/{procedure}/{optimizer}/seed{seed}"
"""A cell's name, and its directory below ``results/{scale}``, with Snakemake's wildcards for its fields."""

RESULTS = Path("results")
OUTPUTS = ("metrics.csv", "model.safetensors", "forms.safetensors", "run.json")
"""The files that a finished cell leaves in its directory."""


def build_network(network: str, dataset: str, activation: str) -> Network:
    """A network for a data set's images, with PyTorch's default initialization.

    Args:
        network: ``"lenet5"`` or ``"kerasnet"``.
        dataset: ``"fashion_mnist"`` or ``"cifar10"``.
        activation: a name in ``leaf.activations.ACTIVATIONS``, such as ``"leaf-tanh"``.

    Raises:
        UserError: if a name is unknown.
    """
    for field, value in {"network": network, "dataset": dataset, "activation": activation}.items():
        _check_choice(field, value)
    data = DATASETS[dataset]
    return NETWORKS[network](data.image_shape, activation, data.classes)


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
        for field in CHOICES:
            _check_choice(field, getattr(self, field), f"cell {self.name}: ")
        activation, procedure = ACTIVATIONS[self.activation], PROCEDURES[self.procedure]
        if procedure.two_stage and not activation.adaptive:
            adaptive = ", ".join(name for name, kind in ACTIVATIONS.items() if kind.adaptive)
            raise UserError(
                f"cell {self.name}: procedure {self.procedure!r} trains activation parameters in a stage of their own"
                f" and {self.activation!r} has none; it goes with: {adaptive}"
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
        return CELL_PATTERN.format(**{field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def form(self) -> str:
        """The function that the cell's activation is or starts as."""
        return ACTIVATIONS[self.activation].form

    @property
    def order(self) -> tuple[int, ...]:
        """A sort key that puts cells in the paper's order: by form, within it base, AHAF, LEAF, and by procedure."""
        families = list(dict.fromkeys(kind.family for kind in ACTIVATIONS.values()))
        forms = list(dict.fromkeys(kind.form for kind in ACTIVATIONS.values()))
        kind = ACTIVATIONS[self.activation]
        place = {field: choices.index(getattr(self, field)) for field, choices in CHOICES.items()}
        return (
            place["network"], place["dataset"], forms.index(kind.form), place["optimizer"],
            families.index(kind.family), place["procedure"], self.seed,
        )  # fmt: skip

    def directory(self, scale: str) -> Path:
        """Where the cell's files lie, relative to the project's top level."""
        return RESULTS / scale / self.name

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """The cell of a name such as ``lenet5/cifar10/leaf-tanh/p24sl/adam/seed42``.

        Raises:
            UserError: if the name is no cell's.
        """
        *parts, seed = name.strip("/").split("/")
        if len(parts) != len(CHOICES) or not seed.removeprefix("seed").isdecimal() or not seed.startswith("seed"):
            raise UserError(f"{name!r} names no cell; a cell's name looks like {CELL_PATTERN}")
        return cls(**dict(zip(CHOICES, parts, strict=True)), seed=int(seed.removeprefix("seed")))


def existing_cells(scale: str, *files: str) -> list[Cell]:
    """The cells that have left one of some files at a scale, of the configuration or not, in the paper's order.

    Raises:
        UserError: if a directory with such a file is no cell's.
    """
    top = RESULTS / scale
    found = (Cell.parse(str(path.parent.relative_to(top))) for file in files for path in top.rglob(file))
    return sort_cells(found)


def check_result_path(path: str, scales: Iterable[str]) -> None:
    """Check a path that someone asks to be made, if it lies below ``results``.

    Raises:
        UserError: if it is no output of a cell at one of the scales.
    """
    parts = Path(path).parts
    if parts[:1] != RESULTS.parts:
        return
    if len(parts) < 3 or parts[1] not in scales:
        raise UserError(f"{path}: no results of a scale; below results/ there are the scales {', '.join(scales)}")
    Cell.parse("/".join(parts[2:-1]))
    if parts[-1] not in OUTPUTS:
        raise UserError(f"{path}: a cell has no such file; its files are {', '.join(OUTPUTS)}")


def _check_choice(field: str, value: str, where: str = "") -> None:
    if value not in CHOICES[field]:
        near = difflib.get_close_matches(value, CHOICES[field], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"{where}unknown {field} {value!r}{hint}; known: {', '.join(CHOICES[field])}")


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
    """The distinct ones among ``cells``, in the paper's order."""
    return sorted(set(cells), key=lambda cell: (cell.order, astuple(cell)))
