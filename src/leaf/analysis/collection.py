"""Records of cells: collect them from the cells' directories, write them to three files, and read these files.

Tables and figures are made from records only. They are therefore the same for results and for collected records.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from leaf.analysis.forms import Forms, read_forms
from leaf.analysis.matching import FUNCTIONS
from leaf.experiment.cells import CHOICES, Cell, sort_cells
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.files import write_whole
from leaf.experiment.identity import Identity
from leaf.experiment.records import TRAINING_VERSION, EpochRecord
from leaf.experiment.runs import Run, read_run
from leaf.experiment.scales import Settings
from leaf.experiment.status import DAMAGED, DIVERGED, DONE, STALE, outcome
from leaf.names import ACTIVATIONS

MISSING = "missing"
"""Status of a cell without outputs. The other statuses are those of ``leaf.experiment.status``."""

LAST_EPOCHS = 10
"""Number of epochs in the mean ``last_epochs_accuracy``."""

COLUMNS = (
    "cell", "scale", "network", "dataset", "activation", "family", "form", "procedure", "optimizer", "seed",
    "experiments", "status", "best_accuracy", "best_epoch", "final_accuracy", "last_epochs_accuracy",
    "chosen_accuracy", "chosen_epoch", "final_train_loss", "seconds_per_epoch", "epochs", "diverged_at",
    "training_version", "device", "threads", "kernel", "precision", "torch", "commit", "clean", "with_model",
)  # fmt: skip
"""Columns of ``Records.cells``. Accuracies are shares in [0, 1]; ``chosen_accuracy`` is the test accuracy of the epoch
selected on validation images, if there are any; ``with_model`` is true if ``model.safetensors`` existed when the record
was collected."""

MODEL = "model.safetensors"
"""The output that records do not need."""

METRICS = [field.name for field in fields(EpochRecord)]
"""The columns of ``metrics.csv``."""


class Variant(NamedTuple):
    """Fields that distinguish the rows of a table and the lines of a chart."""

    family: str
    form: str
    procedure: str
    optimizer: str


@dataclass(frozen=True)
class Records:
    """Results of cells.

    Attributes:
        cells: one row per cell, including missing ones, in the paper's order, with the columns ``COLUMNS``.
        epochs: one row per cell and epoch: the cell's name and the columns of ``metrics.csv``.
        forms: results of ``forms.read_forms`` by the cell's name.
    """

    cells: pd.DataFrame
    epochs: pd.DataFrame
    forms: dict[str, Forms]

    def select(self, experiment: str | None = None, **fields: Any) -> "Records":
        """Select the records of an experiment's cells whose fields have the given values."""
        keep = pd.Series(True, index=self.cells.index)
        if experiment is not None:
            keep &= self.cells["experiments"].str.split().map(lambda names: experiment in names)
        for field, value in fields.items():
            keep &= self.cells[field] == value
        cells = self.cells[keep].reset_index(drop=True)
        epochs = self.epochs[self.epochs["cell"].isin(cells["cell"])].reset_index(drop=True)
        return Records(cells, epochs, {name: self.forms[name] for name in cells["cell"] if name in self.forms})

    def experiments(self) -> list[str]:
        """Names of the cells' experiments, in order of appearance."""
        return list(dict.fromkeys(name for names in self.cells["experiments"] for name in names.split()))

    def variants(self) -> Iterator[tuple[Variant, pd.DataFrame]]:
        """Yield the rows of ``cells`` of each variant; they differ in network, data set and seed."""
        for key, rows in self.cells.groupby(list(Variant._fields), sort=False):
            yield Variant(*map(str, key)), rows

    def unique(self, field: str) -> list[Any]:
        """Distinct values of a column of ``cells``, in order of appearance."""
        return list(self.cells[field].unique())


def finished(cells: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of the cells with current results: those that are done or diverged."""
    return cells[cells["status"].isin([DONE, DIVERGED])]


def collect(
    cells: Mapping[Cell, Sequence[str]],
    scale: str,
    settings: Settings,
    with_forms: bool = False,
    tolerant: bool = False,
    without_models: bool = False,
) -> Records:
    """Collect the records of cells from their directories.

    Args:
        cells: names of the experiments of each cell.
        scale: name of the scale.
        settings: settings of the scale; cells made with other settings are marked stale.
        with_forms: whether to include ``forms``.
        tolerant: whether to mark damaged cells instead of raising an error.
        without_models: whether to accept cells without ``model.safetensors``, which are otherwise damaged.

    Raises:
        DamagedError: if a cell is damaged, unless ``tolerant``.
    """
    rows, epochs, forms = [], [], {}
    for cell in sort_cells(cells):
        directory = cell.directory(scale)
        row = {
            **asdict(cell),
            "cell": cell.name,
            "scale": scale,
            "family": ACTIVATIONS[cell.activation].family,
            "form": cell.form,
            "experiments": " ".join(cells[cell]),
            "status": MISSING,
        }
        try:
            run = read_run(directory, [MODEL] if without_models else [], by_time=True)
        except DamagedError:
            if not tolerant:
                raise
            run, row["status"] = None, DAMAGED
        if run:
            metrics = _read_csv(directory / "metrics.csv").reindex(columns=METRICS)  # a stale cell may lack some
            row |= _results(metrics, run, outcome(run, Identity.of(cell, scale, settings)))
            row["with_model"] = (directory / MODEL).is_file()
            epochs.append(metrics.assign(cell=cell.name))
            if with_forms:
                forms[cell.name] = read_forms(cell, directory)
        rows.append(row)
    columns = ["cell", *METRICS]
    table = pd.concat(epochs, ignore_index=True) if epochs else pd.DataFrame(columns=columns)
    return Records(_typed(pd.DataFrame(rows)), table[columns], forms)


def merge(old: Records, new: Records) -> Records:
    """Merge records. A cell's record is that of ``new`` if it is current, otherwise that of ``old`` if it has one.

    Raises:
        UserError: if their scales differ.
    """
    here, there = (", ".join(sorted(set(records.cells["scale"]))) for records in (old, new))
    if here and there and here != there:
        raise UserError(
            f"the existing records are of the scale {here}, the new ones of {there}: pass --scale {here}, or collect"
            " into another directory"
        )
    by_rank = [finished(new.cells), old.cells[old.cells["status"] != MISSING], new.cells, old.cells]
    cells = pd.concat(by_rank, keys=range(4)).drop_duplicates("cell")
    experiments = new.cells.set_index("cell")["experiments"]
    cells["experiments"] = cells["cell"].map(experiments).fillna(cells["experiments"])
    order = {cell.name: place for place, cell in enumerate(sort_cells(map(Cell.parse, cells["cell"])))}
    is_new = cells.index.get_level_values(0) % 2 == 0
    parts = [(new, cells["cell"][is_new]), (old, cells["cell"][~is_new])]
    epochs = pd.concat([records.epochs[records.epochs["cell"].isin(names)] for records, names in parts])
    forms = {name: records.forms[name] for records, names in parts for name in names if name in records.forms}
    return Records(
        cells.sort_values("cell", key=lambda names: names.map(order)).reset_index(drop=True),
        epochs.sort_values(["cell", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c, ignore_index=True),
        {name: forms[name] for name in order if name in forms},
    )


def _in_order(matches: np.ndarray, functions: Sequence[str]) -> np.ndarray:
    """Reorder the rows of matches as in ``FUNCTIONS``. Functions that were not matched have NaN."""
    rows = dict(zip(functions, matches, strict=True))
    return np.stack([rows.get(name, np.full(2, np.nan, np.float32)) for name in FUNCTIONS])


def _results(metrics: pd.DataFrame, run: Run, status: str) -> dict[str, Any]:
    accuracy, validation = metrics["test_accuracy"], metrics["validation_accuracy"]
    chosen = validation.argmax() if validation.notna().all() else None  # the earliest maximum
    return {
        "status": status,
        "best_accuracy": accuracy.max(),
        "best_epoch": metrics["epoch"].iloc[accuracy.argmax()],  # the earliest maximum
        "final_accuracy": accuracy.iloc[-1],
        "last_epochs_accuracy": accuracy.iloc[-LAST_EPOCHS:].mean(),
        "chosen_accuracy": None if chosen is None else accuracy.iloc[chosen],
        "chosen_epoch": None if chosen is None else metrics["epoch"].iloc[chosen],
        "final_train_loss": metrics["train_loss"].iloc[-1],
        "seconds_per_epoch": metrics["train_seconds"].mean(),
        "training_version": run.identity.training_version,
        **{key: getattr(run, key) for key in ("epochs", "diverged_at", "device", "torch", "commit", "clean")},
        **asdict(run.execution),
    }


def _read_csv(file: Path) -> pd.DataFrame:
    """Read a CSV file. Only empty fields are missing values."""
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def _typed(cells: pd.DataFrame) -> pd.DataFrame:
    """Give ``cells`` all columns, and integer columns a type that permits missing values."""
    cells = cells.reindex(columns=COLUMNS)
    whole = ("seed", "best_epoch", "chosen_epoch", "epochs", "diverged_at", "training_version", "threads")
    return cells.astype(dict.fromkeys(whole, "Int64"))


def write_records(records: Records, directory: Path) -> None:
    """Write ``cells.csv``, ``epochs.csv`` and ``forms.safetensors`` into a directory."""
    forms = {f"{cell}/{name}": values for cell, forms in records.forms.items() for name, values in forms.items()}
    write_whole(directory / "cells.csv", lambda part: records.cells.to_csv(part, index=False))
    write_whole(directory / "epochs.csv", lambda part: records.epochs.to_csv(part, index=False))
    functions = {"functions": " ".join(FUNCTIONS)}
    write_whole(directory / "forms.safetensors", lambda part: safetensors.numpy.save_file(forms, part, functions))


def read_records(directory: Path) -> Records:
    """Read the files of ``write_records``. Cells with another training version become stale.

    Raises:
        UserError: if one of the files is missing or invalid.
    """
    try:
        cells = _typed(_read_csv(directory / "cells.csv"))
        epochs = _read_csv(directory / "epochs.csv")
        with safetensors.safe_open(directory / "forms.safetensors", framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            functions = (file.metadata() or {})["functions"].split()
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{directory}: no collected records ({error}); make them with 'leaf collect'") from None
    for field, known in CHOICES.items():
        if unknown := [name for name in cells[field].unique() if name not in known]:
            raise UserError(
                f"{directory}: has records of the {field} {unknown[0]!r}, which is not known here; if a plugin"
                " registers it, name the plugin's file in the configuration (plugins)"
            )
    if unknown := [name for name in functions if name not in FUNCTIONS]:
        raise UserError(f"{directory}: curves are matched with {', '.join(unknown)}, which this version does not know")
    forms: dict[str, Forms] = {}
    for name, values in tensors.items():
        cell, kind, key = name.rsplit("/", 2)
        if kind == "matches":
            values = _in_order(values, functions)
        forms.setdefault(cell, {})[f"{kind}/{key}"] = values
    cells["experiments"] = cells["experiments"].fillna("")
    current = finished(cells)
    cells.loc[current.index[current["training_version"] != TRAINING_VERSION], "status"] = STALE
    return Records(cells, epochs, forms)
