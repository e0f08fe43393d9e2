"""The paper's tables, as data frames."""

import numpy as np
import pandas as pd

from leaf.activations import ACTIVATIONS, BASE_FUNCTIONS, Activation
from leaf.analysis.collection import MISSING, Records, Variant
from leaf.analysis.forms import clamped_share, layers
from leaf.analysis.matching import FUNCTIONS
from leaf.analysis.pairs import are_mixed, computed_in
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import OPTIMIZERS, PROCEDURES
from leaf.experiment.status import DAMAGED, DIVERGED, DONE, STALE
from leaf.networks import NETWORKS

STATUSES = (DONE, DIVERGED, STALE, MISSING, DAMAGED)
FULLY_CONNECTED = "fully connected part"
MADE_WITH = ("device", "kernel", "precision", "threads", "torch", "commit")

NAMED_IN_NOTES = 3
"""Largest number of cells that a note names."""


def form_title(form: str) -> str:
    """Name of a base function in torch and in the paper, such as ReLU or Tanh."""
    return type(ACTIVATIONS[form].build((1,))).__name__


def kind_of(family: str, form: str) -> Activation:
    """Find the activation of a family with a form."""
    return next(kind for kind in ACTIVATIONS.values() if (kind.family, kind.form) == (family, form))


def activation_title(family: str, form: str) -> str:
    """Title of an activation, such as ``ReLU`` or ``LEAF as ReLU``."""
    kind = kind_of(family, form)
    part = f", {FULLY_CONNECTED}" if kind.fully_connected_only else ""
    return f"{kind.title} as {kind.start or form_title(form)}{part}" if kind.adaptive else form_title(form)


def variant_title(variant: Variant, with_optimizer: bool) -> str:
    """Title of a variant, such as ``LEAF as ReLU, DSPT, P24Sl``, with or without the optimizer."""
    parts = [activation_title(variant.family, variant.form)]
    if with_optimizer:
        parts.append(OPTIMIZERS[variant.optimizer].title)
    if variant.procedure != "classic" or with_optimizer:
        parts.append(PROCEDURES[variant.procedure].title)
    return ", ".join(parts)


def summary_table(records: Records) -> pd.DataFrame:
    """Make a table with one row per cell: variant, accuracies in %, epochs counted from 1, mean seconds per epoch.

    Optional columns: the test accuracy at the epoch selected on validation images, if there are any; precision and
    device, if the cells differ in them.
    """
    cells = records.cells
    kinds = [kind_of(family, form) for family, form in zip(cells["family"], cells["form"], strict=True)]
    learned = [activation_title(kind.family, kind.form).removesuffix(f", {FULLY_CONNECTED}") for kind in kinds]
    convolutional = [
        form_title(kind.form) if kind.fully_connected_only else title
        for kind, title in zip(kinds, learned, strict=True)
    ]
    has_chosen = cells["chosen_accuracy"].notna().any()
    chosen = {"chosen test accuracy, %": _percent(cells["chosen_accuracy"]), "chosen epoch": cells["chosen_epoch"]}
    mixed = are_mixed(cells)
    made_in = {"precision": cells["precision"], "device": cells["device"]}
    return pd.DataFrame(
        {
            "type": [kind.title for kind in kinds],
            "activation, convolutional part": convolutional,
            "activation, fully connected part": learned,
            "procedure": cells["procedure"].map(lambda name: PROCEDURES[name].title),
            "optimizer": cells["optimizer"].map(lambda name: OPTIMIZERS[name].title),
            "seed": cells["seed"],
            "best test accuracy, %": _percent(cells["best_accuracy"]),
            "best epoch": cells["best_epoch"],
            **(chosen if has_chosen else {}),
            "final test accuracy, %": _percent(cells["final_accuracy"]),
            "mean of last 10 epochs, %": _percent(cells["last_epochs_accuracy"]),
            "seconds per epoch": cells["seconds_per_epoch"].round(3),
            **(made_in if mixed else {}),
            "status": cells["status"].where(
                cells["status"] != DIVERGED, "diverged at epoch " + cells["diverged_at"].astype(str)
            ),
        }
    )


def paper_table(records: Records) -> pd.DataFrame:
    """Make the paper's table of one network: best test accuracy in % and its epoch, data sets side by side.

    One row per variant. Several seeds give mean ± standard deviation (number of seeds), and the range of epochs.
    Missing, diverged and stale results are marked. Columns that the paper does not have: the accuracy of the last
    epoch; its mean over the last ten epochs; the accuracy at the epoch selected on validation images, if there are any;
    and precision and kind of device, if cells differ in them.
    """
    several_optimizers = len(records.unique("optimizer")) > 1
    has_chosen = records.cells["chosen_accuracy"].notna().any()
    rows: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for dataset in records.unique("dataset"):
        for variant, cells in records.select(dataset=dataset).variants():
            key = list(_paper_words(variant))
            if several_optimizers:
                key.append(OPTIMIZERS[variant.optimizer].title)
            row = rows.setdefault((*key, PROCEDURES[variant.procedure].title), {})
            results = _results_in_words(cells)
            if has_chosen:
                results["chosen"] = _mean_in_words(cells["chosen_accuracy"].dropna())
            if are_mixed(records.cells):
                results["computed in"] = ", ".join(filter(None, computed_in(cells).unique()))
            row |= {(DATASETS[dataset].title, column): words for column, words in results.items()}
    keys = ["activation", "initial form", *(["optimizer"] if several_optimizers else []), "procedure"]
    columns = pd.MultiIndex.from_tuples(dict.fromkeys(column for row in rows.values() for column in row))
    index = pd.MultiIndex.from_tuples(rows, names=keys)
    return pd.DataFrame([[row.get(column, "") for column in columns] for row in rows.values()], index, columns)


def overview_table(records: Records) -> pd.DataFrame:
    """Make a table with one row per network and data set: cells by status, diverged cells, hours, and provenance.

    Hours are those of training, without testing, summed over all finished cells.
    """
    rows = []
    for (network, dataset), cells in records.cells.groupby(["network", "dataset"], sort=False):
        status = cells["status"].value_counts()
        diverged = cells[cells["status"] == DIVERGED]
        names = [
            f"{row['activation']}/{row['procedure']}/{row['optimizer']}/seed{row['seed']} at epoch {row['diverged_at']}"
            for row in diverged.to_dict("records")
        ]
        hours = (cells["seconds_per_epoch"] * cells["epochs"]).sum() / 3600
        made_with = {column: ", ".join(map(str, cells[column].dropna().unique())) for column in MADE_WITH}
        rows.append({
            "network": NETWORKS[str(network)].title, "data set": DATASETS[str(dataset)].title, "cells": len(cells),
            **{name: status.get(name, 0) for name in STATUSES}, "which diverged": ", ".join(names),
            "hours of training": round(hours, 2), **made_with,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    of_training = ["which diverged", "hours of training", "device"]
    table.attrs["in_short"] = ["network", "data set", "cells", *STATUSES, *of_training]
    return table


def matches_table(records: Records) -> pd.DataFrame:
    """Make a table of the known functions nearest to the learned curves: one row per layer of each cell with curves.

    Columns: for each function the share of the layer's units, in %, that are nearest to it, up to input and output
    scaling and weighted by the layer's inputs; and the mean over functions, weighted by share, of their median
    residuals.
    """
    rows = []
    several_optimizers = len(records.unique("optimizer")) > 1
    for variant, cells in records.variants():
        for cell in cells.to_dict("records"):
            forms = records.forms.get(cell["cell"], {})
            for layer in layers(forms):
                share, left = forms[f"matches/{layer}"].astype(float).T
                shares = {
                    form_title(name) if name in BASE_FUNCTIONS else name: 100 * part
                    for name, part in zip(FUNCTIONS, share, strict=True)
                }
                residual = np.nansum(share * left) if np.isfinite(left).any() else np.nan
                rows.append({
                    "data set": DATASETS[cell["dataset"]].title,
                    "activation": variant_title(variant, several_optimizers),
                    "seed": cell["seed"], "layer": layer, **shares, "residual, %": residual * 100,
                })  # fmt: skip
    return pd.DataFrame(rows).round(1)


def range_notes(records: Records) -> list[str]:
    """Note, for the table of matches, on cells whose histograms do not cover all inputs."""
    largest = {
        cell: max((clamped_share(forms, layer), layer) for layer in layers(forms))
        for cell, forms in records.forms.items()
        if layers(forms)
    }
    clamped = [(share, layer, cell) for cell, (share, layer) in largest.items() if share > 0]
    if not clamped:
        return []
    share, layer, cell = max(clamped)
    return [
        f"{len(clamped)} of {len(largest)} cells were recorded with histograms that end at ±16: larger inputs count as"
        f" ±16 in their matches, at most {100 * share:.1f}% of a layer's ({layer} of {cell})."
    ]


def _paper_words(variant: Variant) -> tuple[str, str]:
    """Titles of the activation and of its initial form, as in the paper's tables."""
    kind, form = kind_of(variant.family, variant.form), form_title(variant.form)
    part = f", {FULLY_CONNECTED}" if kind.fully_connected_only else ""
    return (f"{kind.title}{part}", kind.start or form) if kind.adaptive else (form, "N/A")


def _percent(accuracies: pd.Series) -> pd.Series:
    return (accuracies.astype("float64") * 100).round(2)


def _results_in_words(cells: pd.DataFrame) -> dict[str, str]:
    """Format the paper's columns and two additional ones for the cells of one variant, one per seed."""
    present = cells[cells["best_accuracy"].notna()]
    epochs = present["best_epoch"]
    epoch = "" if epochs.empty else str(epochs.iloc[0]) if len(epochs) == 1 else f"{epochs.min()}–{epochs.max()}"
    return {
        "best accuracy, %": " ".join([_mean_in_words(present["best_accuracy"]), *marks(cells)]).strip(),
        "epoch": epoch,
        "final": _mean_in_words(present["final_accuracy"]),
        "last 10": _mean_in_words(present["last_epochs_accuracy"]),
    }


def _mean_in_words(accuracies: pd.Series) -> str:
    percent = accuracies.astype("float64") * 100
    if len(percent) > 1:
        return f"{percent.mean():.2f} ± {percent.std():.2f} ({len(percent)})"
    return f"{percent.iloc[0]:.2f}" if len(percent) else ""


def marks(cells: pd.DataFrame) -> list[str]:
    """Marks of a variant's result: the number of missing cells, and statuses of stale, diverged or damaged ones."""
    number = cells["status"].value_counts()
    found = []
    if MISSING in number:
        found.append(MISSING if len(cells) == 1 else f"{number[MISSING]} of {len(cells)} {MISSING}")
    return found + [f"({status})" for status in (STALE, DIVERGED, DAMAGED) if status in number]


def rounding_notes(records: Records) -> list[str]:
    """Notes on cells whose rounding differs: one sentence each for device, kernel and precision."""
    made = records.cells[records.cells["device"].notna()]
    fused = made["activation"].map(lambda name: ACTIVATIONS[name].fused).astype(bool)  # the others have only one kernel
    ways = {"device": ("on", made), "kernel": ("with kernel", made[fused]), "precision": ("in", made)}
    notes = []
    for column, (preposition, cells) in ways.items():
        groups = sorted(cells.groupby(column)["cell"], key=lambda group: -len(group[1]))
        if len(groups) > 1:
            words = [f"{len(names)} {preposition} {value}{_few(names)}" for value, names in groups]
            notes.append(
                f"Of these cells, {', '.join(words)}: their results differ by rounding, which training amplifies."
            )
    return notes


def stale_notes(records: Records) -> list[str]:
    """Note on stale cells whose learned curves a table includes."""
    learns = records.cells["activation"].map(lambda name: ACTIVATIONS[name].adaptive).astype(bool)
    names = records.cells["cell"][learns & (records.cells["status"] == STALE)]
    made = "made with other settings or another training version"
    return [f"Cells with learned curves that are stale, {made}: {len(names)}{_few(names)}."] if len(names) else []


def _few(names: pd.Series) -> str:
    return f" ({', '.join(names)})" if len(names) <= NAMED_IN_NOTES else ""
