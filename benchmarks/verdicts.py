"""Error rates of the rules for the paper's claims, on synthetic grids of records with a known truth.

The noise between seeds, and between epochs of one cell, is that of the shipped records. Every grid has all cells of the
paper and of ``bounded_initialization``. For every rule and scenario the table has a row with the percentage of grids
with each verdict, and the correct verdict.

Writes verdicts.csv into the directory given: python benchmarks/verdicts.py reports/benchmark
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from leaf.activations import ACTIVATIONS
from leaf.analysis.claims import HERE, QUANTITIES
from leaf.analysis.collection import COLUMNS, LAST_EPOCHS, Records, read_records
from leaf.experiment.config import read_config
from leaf.experiment.provenance import git

SHIPPED = Path(__file__).parent.parent / "reports/shipped"
EXPERIMENTS = ["linear_units", "bounded_functions", "weight_initialization", "bounded_initialization"]
CELLS = read_config().cells(EXPERIMENTS, "paper")
GRIDS = {"better": 4000, "lower_loss": 4000, "seven_percent": 4000, "initialization": 500}
"""Number of grids per scenario, for each rule that depends on chance; the others compare one number with a threshold.

``initialization`` simulates tables itself for each grid, and takes most of the time.
"""
RULES = tuple(GRIDS)

SEED = 0
"""Seed of the random numbers of the grids, which all scenarios share."""

EPOCHS = 40
"""Number of epochs on the plateau of the accuracy, of which the best is chosen."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of one cell: between seeds, and between epochs around the cell's own level."""

    seeds: float
    epochs: float


@dataclass(frozen=True)
class Scenario:
    """A known truth about a grid.

    Attributes:
        gain: gain of LEAF and AHAF in test accuracy, in points; each point reduces the training loss by 0.02.
        in_one_place: the gain of LEAF as Tanh with KerasNet on CIFAR-10 instead, in points.
        noisier: factor on all noise of LEAF and AHAF.
        forms: standard deviation between the levels of the forms, in points.
        turned: how much the gain of each variant varies between seeds beyond noise, in points: the standard deviation
            of an effect that only one seed has.
        right: the correct verdict, by rule.
    """

    gain: float = 0.0
    in_one_place: float | None = None
    noisier: float = 1.0
    forms: float = 0.0
    turned: float = 0.0
    right: dict[str, str] = field(default_factory=dict)


YES, NO = "holds", "does not hold"
WORDS = {True: YES, False: NO, None: "undecided"}
ALL_NO, MEAN = dict.fromkeys(RULES, NO), dict.fromkeys(("better", "lower_loss"), YES)
SCENARIOS = {
    "no effect": Scenario(right=ALL_NO),
    "no effect, LEAF noisier by a third": Scenario(noisier=4 / 3, right=ALL_NO),
    "-0.8 everywhere": Scenario(gain=-0.8, right=dict.fromkeys(RULES[:3], NO)),
    "+0.3 everywhere": Scenario(gain=0.3, right=MEAN | {"seven_percent": NO}),
    "+0.8 everywhere": Scenario(gain=0.8, right=MEAN | {"seven_percent": NO}),
    "+0.8, +7.5 in one place": Scenario(gain=0.8, in_one_place=7.5, right=MEAN | {"seven_percent": YES}),
    "+0.8, +15 in one place": Scenario(gain=0.8, in_one_place=15, right=MEAN | {"seven_percent": YES}),
    "forms differ by 2, +0.3": Scenario(gain=0.3, forms=2, right=MEAN | {"seven_percent": NO, "initialization": YES}),
    "forms differ by 2, one seed reverses the order": Scenario(forms=2, turned=8, right={"initialization": NO}),
}


def noise_of(records: Records, column: str) -> dict[str, Noise]:
    """Noise by network, from cells with five seeds, pooled over activations; between epochs, from their differences."""
    cells = records.cells[records.cells["status"] == "done"]
    epochs = records.epochs[records.epochs["cell"].isin(cells["cell"])]
    last = epochs.groupby("cell", sort=False).tail(LAST_EPOCHS).groupby("cell")[column]
    level = cells["cell"].map(last.mean()).astype(float)
    between = last.agg(lambda values: values.diff().std() / np.sqrt(2))
    found = {}
    for network, rows in cells.assign(level=level).groupby("network"):
        of_variant = rows.groupby(["dataset", "activation", "procedure"])["level"]
        variances = of_variant.var()[of_variant.size() >= 5]
        found[str(network)] = Noise(float(np.sqrt(variances.mean())), float(between[rows["cell"]].mean()))
    return found


def grid(scenario: Scenario, accuracy: dict[str, Noise], loss: dict[str, Noise], rng: np.random.Generator) -> Records:
    """Draw the records of one grid, with all cells finished."""
    level = dict(
        zip(("relu", "silu", "tanh", "sigmoid"), scenario.forms * np.array([1.2, 0.4, -0.4, -1.2]), strict=True)
    )
    seeds = {seed: rng.normal() for seed in sorted({cell.seed for cell in CELLS})}
    rows, epochs = [], []
    for cell in CELLS:
        kind = ACTIVATIONS[cell.activation]
        place = (cell.network, cell.dataset, cell.activation) == ("kerasnet", "cifar10", "leaf-tanh")
        gain = scenario.in_one_place if place and scenario.in_one_place is not None else scenario.gain
        gain = gain * kind.adaptive
        wider = scenario.noisier if kind.adaptive else 1.0
        turn = scenario.turned * rng.normal() if cell.seed == 42 else 0.0
        center = 0.77 + (level[cell.form] + gain + turn) / 100
        noise = accuracy[cell.network]
        # all activations of a seed share half of the variance between seeds; it cancels in pairs
        own = noise.seeds * np.sqrt(0.5) * (seeds[cell.seed] + wider * rng.normal())
        accuracies = center + own + noise.epochs * wider * rng.normal(size=EPOCHS)
        noise = loss[cell.network]
        losses = 0.5 - 0.02 * gain + wider * (noise.seeds * rng.normal() + noise.epochs * rng.normal(size=EPOCHS))
        rows.append({
            **vars(cell), "cell": cell.name, "scale": "paper", "family": kind.family, "form": cell.form,
            "status": "done", "best_accuracy": accuracies.max(), "final_accuracy": accuracies[-1],
            "last_epochs_accuracy": accuracies[-LAST_EPOCHS:].mean(), "final_train_loss": losses[-1],
        })  # fmt: skip
        epochs.append((cell.name, accuracies[-LAST_EPOCHS:], losses[-LAST_EPOCHS:]))
    names, accuracies, losses = zip(*epochs, strict=True)
    table = pd.DataFrame({
        "cell": np.repeat(names, LAST_EPOCHS), "epoch": np.tile(np.arange(91, 101), len(names)),
        "train_loss": np.concatenate(losses), "test_accuracy": np.concatenate(accuracies),
    })  # fmt: skip
    return Records(pd.DataFrame(rows).reindex(columns=COLUMNS), table, {})


def verdicts(scenario: Scenario, grids: dict[str, int]) -> dict[str, Counter[str]]:
    """Count the verdicts of each rule over its number of grids, with the noise of the shipped records."""
    shipped = read_records(SHIPPED)
    accuracy, loss = noise_of(shipped, "test_accuracy"), noise_of(shipped, "train_loss")
    rng = np.random.default_rng(SEED)
    claims = yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))
    limits = {claim["id"]: claim["limits"] for claim in claims}
    found: dict[str, Counter[str]] = {rule: Counter() for rule in RULES}
    for drawn in range(max(grids.values())):
        records = grid(scenario, accuracy, loss, rng)
        for rule in (rule for rule in RULES if drawn < grids[rule]):
            found[rule][WORDS[QUANTITIES[rule](records, limits[rule]).holds]] += 1
    return found


def table(grids: dict[str, int], names: Iterable[str] = SCENARIOS) -> pd.DataFrame:
    """Verdicts in percent of a rule's grids: one row per rule and scenario with a known correct verdict."""
    rows, made_by = [], git()
    for name in names:
        scenario = SCENARIOS[name]
        for rule, counts in verdicts(scenario, grids).items():
            if right := scenario.right.get(rule):
                shares = {word: round(100 * counts[word] / grids[rule], 1) for word in WORDS.values()}
                rows.append({"rule": rule, "truth": name, "right": right, **shares, "grids": grids[rule], "seed": SEED})
    found = pd.DataFrame(rows).assign(**made_by)
    return found.sort_values("rule", key=lambda rules: rules.map(RULES.index), kind="stable")


def main() -> None:
    """Simulate all scenarios and write the table."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    found = table(GRIDS)
    found.to_csv(directory / "verdicts.csv", index=False)
    print(found.to_markdown(index=False))


if __name__ == "__main__":
    main()
