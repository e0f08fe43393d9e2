"""A verdict on each of the paper's claims, from records: holds, does not hold, or undecided and what is missing.

The claims, their quantities and rules stand in ``claims.yaml``, the paper's own figures in ``published.csv``: one row
is known, and whoever holds the paper can add others. A claim about one scale is undecided at any other.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from leaf.analysis.collection import Records
from leaf.analysis.forms import natural
from leaf.analysis.layout import BENCHMARK
from leaf.analysis.matching import FUNCTIONS
from leaf.analysis.pairs import COMPARISON, are_mixed, computed_in, pairs
from leaf.analysis.statistics import judged_by, paired_interval
from leaf.analysis.tables import form_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.project import PROJECT
from leaf.experiment.status import DIVERGED, DONE
from leaf.networks import NETWORKS

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
HERE = Path(__file__).parent

CONFIDENCE = 0.95
"""Of the claims' intervals; part of their rules."""

UNSTABLE = 10.0
"""Points of test accuracy below the best so far from which training counts as unstable."""

VANISHING = 0.01
"""First layer's gradient norm over the last layer's below which the gradient counts as vanishing."""

PAPERS_NETWORKS, PAPERS_DATASETS = ("lenet5", "kerasnet"), ("fashion_mnist", "cifar10")
"""What the paper's claims are about; the grid may hold more."""

RECURRENT = ("gru", "fashion_mnist")
"""The recurrent network of examples/gru.py, and what it reads."""

MARGIN = 1.0
"""Points of test accuracy that LEAF may cost where it only stands in for another function."""

CLAIMED = 7.0
"""What LEAF as Tanh is claimed to gain on CIFAR-10, in points or per cent."""

SEEDS = 5
"""The paper's, and the fewest that a verdict over seeds takes: of fewer an interval reaches almost anything."""


@dataclass(frozen=True)
class Finding:
    """What the records say of a claim: the figures in words, whether it holds, and what is missing to tell."""

    measured: str
    holds: bool | None = None
    missing: str = ""


def evaluate(records: Records) -> pd.DataFrame:
    """A row for every claim: its wording, quantity and rule, the measured and the published figures, the verdict.

    Raises:
        UserError: if a row of ``published.csv`` is about no claim.
    """
    claims = yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))
    published = _published({claim["id"] for claim in claims})
    scales = [str(scale) for scale in records.cells["scale"].unique()]
    rows = []
    for claim in claims:
        finding = QUANTITIES[claim["id"]](records)
        missing, holds = finding.missing, finding.holds
        if claim["about"] != "any" and scales != [claim["about"]]:
            holds, missing = None, f"the claim is about the scale {claim['about']}, this is {', '.join(scales)}"
        verdict = UNDECIDED if holds is None else HOLDS if holds else FAILS
        where = claim["where"] + ("; direction inferred from it" if claim.get("inferred") else "")
        rows.append({
            "claim": claim["claim"], "where": where,
            "verdict": verdict,
            "reading": claim["reading"][verdict].format(missing=missing),
            "measured": finding.measured, "published": published.get(claim["id"], ""), "undecided because": missing,
            "quantity": claim["quantity"], "rule": claim["rule"],
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table.attrs["in_short"] = ["claim", "verdict", "measured"]
    return table


def _published(claims: set[str]) -> dict[str, str]:
    """The paper's own figures by claim, in words."""
    file = HERE / "published.csv"
    found: dict[str, list[str]] = {}
    for row in pd.read_csv(file, keep_default_na=False).to_dict("records"):
        if row["claim"] not in claims:
            raise UserError(f"{file}: no claim {row['claim']!r}; known: {', '.join(sorted(claims))}")
        place = " ".join(part for part in (row["network"], row["dataset"]) if part)
        found.setdefault(row["claim"], []).append(f"{row['value']} {row['unit']} ({place}; {row['source']})")
    return {claim: ", ".join(figures) for claim, figures in found.items()}


# --- quantities -------------------------------------------------------------------------------------------------------


def _comparisons(records: Records, column: str) -> dict[tuple[str, ...], pd.DataFrame]:
    """The pairs of Adam cells that were computed alike, by (network, data set, family, form, procedure)."""
    table = pairs(records, column)
    table = table[table["alike"] & (table["optimizer"] == "adam")]
    return {tuple(map(str, key)): rows for key, rows in table.groupby(COMPARISON[:-1], sort=False)}


def _against_base(
    records: Records, column: str, places: Iterable[tuple[str, str]], variants: Iterable[tuple[str, str, str]]
) -> dict[tuple[str, ...], np.ndarray]:
    """Differences from the base function, seed by seed, by (network, data set) and (family, form, procedure)."""
    there = _comparisons(records, column)
    wanted = [(*place, *variant) for place, variant in product(places, variants)]
    return {key: (there[key]["value"] - there[key]["base_value"]).to_numpy() for key in wanted if key in there}


def _mean_over_comparisons(records: Records, column: str, scale: float, unit: str, wanted: int) -> Finding:
    """The mean difference of LEAF with P24Sl over networks, data sets and forms; ``wanted`` is the claimed sign."""
    places = [(network, dataset) for network in PAPERS_NETWORKS for dataset in PAPERS_DATASETS]
    variants = [("leaf", form, "p24sl") for form in ("relu", "silu", "tanh", "sigmoid")]
    found = _against_base(records, column, places, variants)
    means = [scale * values.mean() for values in found.values()]
    expected = len(places) * len(variants)
    missing = f"{expected - len(means)} of {expected} comparisons" if len(means) < expected else ""
    if len(means) < 2:
        return Finding("", missing=missing)
    low, high, *_ = paired_interval(means, CONFIDENCE)
    right = sum(np.sign(mean) == wanted for mean in means)
    interval = f"{np.mean(means):+.3g}{unit} [{low:+.3g}, {high:+.3g}]"
    measured = f"{interval}, as claimed in {right} of {len(means)} comparisons"
    if missing or not (low > 0 or high < 0):
        why = "the interval includes 0" if np.isfinite(means).all() else "a loss is infinite"
        return Finding(measured, missing=missing or why)
    return Finding(measured, bool(low > 0) == (wanted > 0))


def better(records: Records) -> Finding:
    """Test accuracy against the base function's."""
    return _mean_over_comparisons(records, judged_by(records), 100, " points", wanted=1)


def lower_loss(records: Records) -> Finding:
    """Final training loss against the base function's."""
    return _mean_over_comparisons(records, "final_train_loss", 1, "", wanted=-1)


def seven_percent(records: Records) -> Finding:
    """LEAF as Tanh against tanh on CIFAR-10, both networks, in points and relative."""
    words, intervals, missing = [], [], []
    there = _comparisons(records, judged_by(records))
    for network in PAPERS_NETWORKS:
        title = NETWORKS[network].title
        found = there.get((network, "cifar10", "leaf", "tanh", "p24sl"), pd.DataFrame(columns=["value", "base_value"]))
        learnable, base = found["value"].astype(float), found["base_value"].astype(float)
        ratios, points = (learnable / base - 1) * 100, (learnable - base) * 100
        if len(points) < SEEDS:
            missing.append(f"{title}: {len(points)} of {SEEDS} seeds")
        if len(points) < 2:
            words += [f"{title} {points.iloc[0]:+.2f} points, one seed"] if len(points) else []
            continue
        for values, unit in ((points, "points"), (ratios, "% relative")):
            low, high, *_ = paired_interval(list(values), CONFIDENCE)
            intervals += [(low, values.mean(), high)] if len(values) >= SEEDS else []
            words.append(f"{title} {values.mean():+.2f} {unit} [{low:+.2f}, {high:+.2f}], {len(values)} seeds")
    measured = "; ".join(words)
    if any(low > 0 and mean >= CLAIMED for low, mean, _ in intervals):
        return Finding(measured, True)
    if missing or any(high >= CLAIMED for *_, high in intervals):
        return Finding(measured, missing="; ".join(missing) or f"an interval includes {CLAIMED:g} or more")
    return Finding(measured, False)


def _papers_cells(records: Records) -> pd.DataFrame:
    """The cells of the networks and data sets that the paper has."""
    cells = records.cells
    return cells[cells["network"].isin(PAPERS_NETWORKS) & cells["dataset"].isin(PAPERS_DATASETS)]


def silu_like(records: Records) -> Finding:
    """Shares of convolutional units nearest to SiLU, of LEAF as SiLU and as Sigmoid."""
    words, means, lacking = [], [], 0
    for form in ("silu", "sigmoid"):
        cells = _papers_cells(records).query(f"family == 'leaf' and form == '{form}' and procedure == 'p24sl'")
        shares: dict[str, list[float]] = {}
        for cell in cells.query(f"optimizer == 'adam' and status == '{DONE}'").to_dict("records"):
            place = f"{NETWORKS[cell['network']].title} on {DATASETS[cell['dataset']].title}"
            shares.setdefault(place, []).extend(_convolutional_shares(records, cell["cell"]))
        of_place = {place: float(np.mean(values)) for place, values in shares.items() if values}
        lacking += 4 - len(of_place)
        if of_place:
            means.append(np.mean(list(of_place.values())))
            each = ", ".join(f"{place} {share:.0%}" for place, share in of_place.items())
            words.append(f"as {form_title(form)} {means[-1]:.0%} ({each})")
    missing = f"{lacking} of 8 networks" if lacking else ""
    return Finding("; ".join(words), None if missing else all(mean > 0.5 for mean in means), missing)


def _convolutional_shares(records: Records, cell: str) -> list[float]:
    """The share of units nearest to SiLU in each convolutional layer of a cell."""
    matches = {name: values for name, values in records.forms.get(cell, {}).items() if name.startswith("matches/")}
    silu = FUNCTIONS.index("silu")
    convolutional = sorted(matches, key=natural)[:-1]  # the last one is fully connected
    return [float(matches[name][silu, 0]) for name in convolutional]


def relu_stability(records: Records) -> Finding:
    """The largest falls of accuracy of LEAF as ReLU, KerasNet, CIFAR-10: at a common learning rate, with P24Sl."""
    falls, rows = {}, []
    for procedure in ("classic", "p24sl"):
        name = f"kerasnet/cifar10/leaf-relu/{procedure}/adam/seed42"
        row = records.cells[(records.cells["cell"] == name) & records.cells["status"].isin([DONE, DIVERGED])]
        if row.empty:
            return Finding("", missing=f"{name}")
        rows.append(row)
        accuracy = records.epochs[records.epochs["cell"] == name]["test_accuracy"] * 100
        falls[procedure] = np.inf if row["status"].iloc[0] == DIVERGED else (accuracy.cummax() - accuracy).max()
    words = {p: "diverged" if fall == np.inf else f"{fall:.1f} points" for p, fall in falls.items()}
    measured = f"common learning rate: {words['classic']}; P24Sl: {words['p24sl']}"
    both = pd.concat(rows)
    if are_mixed(both):
        return Finding(measured, missing=f"the two cells were computed in {' and '.join(computed_in(both))}")
    return Finding(measured, bool(falls["classic"] >= UNSTABLE > falls["p24sl"]))


def initialization(records: Records) -> Finding:
    """Whether each of five seeds alone would have led to the five seeds' conclusion."""
    variants = [
        (family, form, procedure)
        for form in ("relu", "silu")
        for family, procedure in (("ahaf", "classic"), ("ahaf", "dspt"), ("leaf", "p24sl"), ("leaf", "dspt-p24sl"))
    ]
    places = [(network, "cifar10") for network in PAPERS_NETWORKS]
    found = _against_base(records, judged_by(records), places, variants)
    complete = [values for values in found.values() if len(values) >= SEEDS]
    told = [values for values in complete if np.prod(paired_interval(list(values), CONFIDENCE)[:2]) > 0]
    agreeing = sum(bool((np.sign(values) == np.sign(values.mean())).all()) for values in told)
    measured = f"{agreeing} of {len(told)} comparisons that five seeds tell are told alike by each seed"
    expected = len(places) * len(variants)
    if len(complete) < expected:
        missing = f"{expected - len(complete)} of {expected} comparisons over five seeds"
        return Finding(measured if complete else "", missing=missing)
    if not told:
        return Finding(measured, missing="comparisons that five seeds tell")
    return Finding(measured, agreeing == len(told))


def gradients(records: Records) -> Finding:
    """The first layer's gradient norm over the last layer's at the end of training, of every cell with LEAF."""
    with_leaf = _papers_cells(records).query("family == 'leaf'")
    forms = {name: records.forms.get(name, {}) for name in with_leaf.query(f"status == '{DONE}'")["cell"]}
    norms = {name: found["gradient_norms/end"] for name, found in forms.items() if "gradient_norms/end" in found}
    if not norms:
        return Finding("", missing="cells with LEAF")
    ratios = {name: float(values[0] / values[-1]) for name, values in norms.items()}
    smallest = min(ratios, key=lambda name: ratios[name])
    median = np.median(list(ratios.values()))
    measured = f"smallest {ratios[smallest]:.3g} ({smallest}), median {median:.3g}, {len(ratios)} cells"
    diverged = int((with_leaf["status"] == DIVERGED).sum())
    measured += f"; {diverged} diverged" if diverged else ""
    expected = with_leaf["cell"].nunique() - diverged
    missing = f"{expected - len(ratios)} of {expected} cells with LEAF" if len(ratios) < expected else ""
    return Finding(measured, None if missing else ratios[smallest] >= VANISHING, missing)


def simple(records: Records) -> Finding:
    """What a step with LEAF costs over one with SiLU, as the benchmark in the documentation measured it."""
    if not (file := PROJECT / BENCHMARK).exists():
        return Finding("", missing=f"{BENCHMARK}")
    table = pd.read_csv(file)
    one_stage = table[table["variant"].isin(["LEAF-SiLU", "LEAF-Tanh P24Sl"])]["over_silu"]
    two_stages = table[table["variant"] == "LEAF-SiLU DSPT P24Sl"]["over_silu"]
    measured = f"{_range(one_stage)}; with DSPT {_range(two_stages)}"
    return Finding(measured, bool(one_stage.max() <= 1.1))


def _range(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def other_networks(records: Records) -> Finding:
    """Test accuracy of a GRU with LEAF as its tanh, or as its sigmoids, less that of the plain one."""
    variants = [("leaf", form, "p24sl") for form in ("tanh", "sigmoid")]
    found = _against_base(records, judged_by(records), [RECURRENT], variants)
    if not found:
        return Finding("", missing="recurrent networks: not tested here")
    words, intervals, missing = [], [], []
    for family, form, procedure in variants:
        points = 100 * found.get((*RECURRENT, family, form, procedure), np.array([]))
        if len(points) < SEEDS:
            missing.append(f"LEAF as {form_title(form)}: {len(points)} of {SEEDS} seeds")
        interval = ""
        if len(points) > 1:
            low, high, *_ = paired_interval(list(points), CONFIDENCE)
            intervals.append((low, high))
            interval = f" [{low:+.2f}, {high:+.2f}]"
        if len(points):
            words.append(f"as {form_title(form)} {points.mean():+.2f} points{interval}")
    measured = "; ".join(words)
    if missing:
        return Finding(measured, missing="; ".join(missing))
    if any(low <= -MARGIN <= high for low, high in intervals):
        return Finding(measured, missing=f"an interval includes {-MARGIN:g} point")
    return Finding(measured, all(low > -MARGIN for low, _ in intervals))


QUANTITIES: Mapping[str, Callable[[Records], Finding]] = {
    function.__name__: function
    for function in (
        better, lower_loss, seven_percent, silu_like, relu_stability, initialization, gradients, simple, other_networks,
    )
}  # fmt: skip
"""What measures each claim, by the claim's id."""
