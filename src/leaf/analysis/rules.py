"""Evaluate the paper's claims about accuracies, losses and costs: measured numbers, and whether the claims hold.

Each function measures one claim of ``claims.yaml``, whose ``limits`` it is given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from leaf.analysis.collection import LAST_EPOCHS, Records
from leaf.analysis.decomposition import order, seeds_share
from leaf.analysis.layout import BENCHMARK
from leaf.analysis.pairs import COMPARISON, are_mixed, computed_in, pairs
from leaf.analysis.statistics import judged_by, paired_interval, pooled_mean
from leaf.analysis.tables import form_title
from leaf.experiment.project import PROJECT
from leaf.experiment.status import DIVERGED, DONE
from leaf.networks import NETWORKS

Limits = Mapping[str, float]
"""The thresholds and counts of a rule, by name."""

PAPERS_NETWORKS, PAPERS_DATASETS = ("lenet5", "kerasnet"), ("fashion_mnist", "cifar10")
"""Networks and data sets of the paper's claims; the grid may have more."""

FORMS = ("relu", "silu", "tanh", "sigmoid")

RECURRENT = ("gru", "fashion_mnist")
"""The recurrent network of examples/gru.py, and its data set."""


class Number(NamedTuple):
    """A measured number of a claim's rule, with its interval or range if it has one."""

    label: str
    value: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Finding:
    """Result of a claim's rule.

    Attributes:
        measured: the figures, in words.
        holds: whether it holds; ``None`` while data are missing.
        missing: which data.
        by: by which reading of the claim it holds, where there are several.
        numbers: those of the figures that the rule compares with its threshold.
        threshold: in the numbers' unit.
        data: how much of the needed data there is, in words; empty if none comes from cells.
    """

    measured: str
    holds: bool | None = None
    missing: str = ""
    by: str = ""
    numbers: tuple[Number, ...] = ()
    threshold: float = 0
    data: str = ""


def _comparisons(records: Records, column: str) -> dict[tuple[str, ...], pd.DataFrame]:
    """Pairs with Adam and equal precision and kind of device, by (network, data set, family, form, procedure)."""
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


def _of_leaf(records: Records, column: str) -> dict[tuple[str, ...], np.ndarray]:
    """Differences of LEAF with P24Sl from its base function, in the paper's networks and data sets."""
    variants = [("leaf", form, "p24sl") for form in FORMS]
    return _against_base(records, column, product(PAPERS_NETWORKS, PAPERS_DATASETS), variants)


def _mean_over_comparisons(
    found: Mapping[tuple[str, ...], np.ndarray], limits: Limits, scale: float, unit: str, wanted: int
) -> Finding:
    """The mean difference over networks, data sets and forms; ``wanted`` is the claimed sign."""
    expected = len(PAPERS_NETWORKS) * len(PAPERS_DATASETS) * len(FORMS)
    missing = [f"{expected - len(found)} of {expected} comparisons"] if len(found) < expected else []
    data = f"{len(found)} of {expected} comparisons"
    if not found:
        return Finding("", missing=missing[0], data=data)
    groups = [scale * wanted * values for values in found.values()]  # what is claimed is positive now
    right = sum(values.mean() > 0 for values in groups)
    words = f"as claimed in {right} of {len(groups)} comparisons"
    if not np.isfinite(np.concatenate(groups)).all():
        worse = any((values == -np.inf).any() for values in groups)
        what = "a loss of LEAF is infinite" if worse else "a base function's finite loss"
        return Finding(
            f"{words}; a loss is infinite",
            False if worse and not missing else None,
            missing[0] if missing else "" if worse else what,
            data=data,
        )
    mean = pooled_mean(groups, limits["confidence"])
    ends = sorted((wanted * mean.low, wanted * mean.high))
    one = sum(len(values) == 1 for values in groups)
    measured = (
        f"{wanted * mean.mean:+.3g}{unit} [{ends[0]:+.3g}, {ends[1]:+.3g}], {words} (sign test: p = {mean.p_sign:.2g});"
        f" spread between comparisons {mean.spread:.2g}{unit}; {mean.degrees} degrees of freedom from"
        f" {len(groups) - one} comparisons with several seeds, {one} with one"
    )
    if mean.degrees < limits["degrees"]:
        missing.append(f"seeds: {mean.degrees} of {limits['degrees']} degrees of freedom")
    number = Number("mean", wanted * mean.mean, *ends)
    return Finding(measured, None if missing else mean.low > 0, "; ".join(missing), numbers=(number,), data=data)


def better(records: Records, limits: Limits) -> Finding:
    """Test accuracy against the base function's, over the last epochs."""
    validated = judged_by(records) == "chosen_accuracy"
    column = "chosen_accuracy" if validated else "last_epochs_accuracy"
    finding = _mean_over_comparisons(_of_leaf(records, column), limits, 100, " points", wanted=1)
    if validated:
        return finding
    return _with_other_metric(finding, records, "best_accuracy", limits, 100, " points", "best epoch")


def lower_loss(records: Records, limits: Limits) -> Finding:
    """Training loss against the base function's, over the last epochs."""
    last = records.epochs.groupby("cell", sort=False).tail(LAST_EPOCHS).groupby("cell")["train_loss"].mean()
    with_loss = replace(records, cells=records.cells.assign(last_epochs_loss=records.cells["cell"].map(last)))
    finding = _mean_over_comparisons(_of_leaf(with_loss, "last_epochs_loss"), limits, 1, "", wanted=-1)
    return _with_other_metric(finding, records, "final_train_loss", limits, 1, "", "last epoch")


def _with_other_metric(
    finding: Finding, records: Records, column: str, limits: Limits, scale: float, unit: str, name: str
) -> Finding:
    """Add the mean of another column, which is not judged, to a finding."""
    groups = [scale * values for values in _of_leaf(records, column).values()]
    if not groups or not np.isfinite(np.concatenate(groups)).all():
        return finding
    mean = pooled_mean(groups, limits["confidence"])
    other_metric = f"{name}: {mean.mean:+.3g}{unit} [{mean.low:+.3g}, {mean.high:+.3g}]"
    return replace(finding, measured=f"{finding.measured}; {other_metric}")


def seven_percent(records: Records, limits: Limits) -> Finding:
    """LEAF as Tanh against tanh on CIFAR-10, both networks, in points and relative."""
    words, reached, missing, numbers, pairs_found = [], [], [], [], 0
    there = _comparisons(records, judged_by(records))
    for network in PAPERS_NETWORKS:
        title = NETWORKS[network].title
        found = there.get((network, "cifar10", "leaf", "tanh", "p24sl"), pd.DataFrame(columns=["value", "base_value"]))
        learnable, base = found["value"].astype(float), found["base_value"].astype(float)
        enough = len(found) >= limits["seeds"]
        pairs_found += len(found)
        if not enough:
            missing.append(f"{title}: {len(found)} of {limits['seeds']} seeds")
        if len(found) == 1:
            words.append(f"{title} {100 * (learnable - base).iloc[0]:+.2f} points, one seed")
        elif len(found) > 1:
            readings = {"points": 100 * (learnable - base), "% relative": 100 * (learnable / base - 1)}
            for unit, values in readings.items():
                low, high, *_ = paired_interval(list(values), limits["confidence"])
                reaches = values.mean() >= limits["claimed"] and low > 0
                numbers.append(Number(f"{title}, {unit}", values.mean(), low, high))
                reached += (
                    [f"{title}, in {unit.replace('% relative', 'per cent relative')}"] if reaches and enough else []
                )
                answer = "" if not enough else f": {'reaches' if reaches else 'stays below'} {limits['claimed']:g}"
                words.append(
                    f"{title} {values.mean():+.2f} {unit} [{low:+.2f}, {high:+.2f}], {len(values)} seeds{answer}"
                )
        words += _with_silu(records, network, learnable)
    measured = "; ".join(words)
    data = f"{pairs_found} of {len(PAPERS_NETWORKS) * limits['seeds']} pairs of cells"
    finding = Finding(
        measured, None if missing else False, "; ".join(missing),
        numbers=tuple(numbers), threshold=limits["claimed"], data=data,
    )  # fmt: skip
    return replace(finding, holds=True, missing="", by="; ".join(reached)) if reached else finding


def _with_silu(records: Records, network: str, learnable: pd.Series) -> list[str]:
    """The accuracy of LEAF as Tanh and that of SiLU on CIFAR-10."""
    silu = records.select(network=network, dataset="cifar10", activation="silu", procedure="classic", optimizer="adam")
    values = silu.cells[judged_by(records)].dropna().astype(float)
    if values.empty or learnable.empty:
        return []
    relation = "below" if learnable.mean() < values.mean() else "not below"
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    means = f"{100 * learnable.mean():.1f}% against {100 * values.mean():.1f}%"
    return [f"there LEAF as Tanh is {relation} SiLU ({means}, {seeds})"]


def initialization(records: Records, limits: Limits) -> Finding:
    """Share of the variance of accuracies on CIFAR-10 due to seeds, and agreement of seeds on the order."""
    column = "chosen_accuracy" if judged_by(records) == "chosen_accuracy" else "last_epochs_accuracy"
    variants = [("base", "classic"), ("ahaf", "classic"), ("ahaf", "dspt"), ("leaf", "p24sl"), ("leaf", "dspt-p24sl")]
    expected = 2 * len(variants)
    words, holds, missing, numbers, present = [], [], [], [], 0
    for network in PAPERS_NETWORKS:
        cells = records.select(network=network, dataset="cifar10", optimizer="adam").cells
        wanted = cells["form"].isin(["relu", "silu"]) & cells["status"].isin([DONE, DIVERGED]) & cells[column].notna()
        wanted &= pd.Series(list(zip(cells["family"], cells["procedure"], strict=True)), cells.index).isin(variants)
        cells = cells[wanted]
        table = cells.pivot_table(column, ["family", "form", "procedure"], "seed", sort=False)
        complete = table[table.notna().sum(axis=1) >= limits["seeds"]].dropna(axis=1).astype(float).to_numpy()
        title = NETWORKS[network].title
        present += len(complete)
        if len(complete) < expected or complete.shape[1] < limits["seeds"]:
            missing.append(
                f"{title}: {expected - len(complete)} of {expected} activations over {limits['seeds']} seeds"
            )
            continue
        if are_mixed(cells):
            missing.append(
                f"{title}: cells computed alike, they were in {' and '.join(sorted(set(computed_in(cells))))}"
            )
            continue
        share, agreed = seeds_share(complete, limits["confidence"]), order(complete)
        words.append(
            f"{title}: {share.share:.0%} of the variance changes with the seed"
            f" [{share.low:.0%}, {share.high:.0%}], order of activations alike to"
            f" W = {agreed.concordance:.2f} (p = {agreed.p:.2g}), {complete.shape[1]} seeds"
        )
        numbers.append(Number(title, *(100 * value for value in share)))
        holds.append(share.high < limits["share"] and agreed.p >= limits["level"])
    data = f"{present} of {2 * expected} activations with {limits['seeds']} seeds"
    return Finding(
        "; ".join(words), None if missing else all(holds), "; ".join(missing),
        numbers=tuple(numbers), threshold=100 * limits["share"], data=data,
    )  # fmt: skip


def simple(_: Records, limits: Limits) -> Finding:
    """Time of a step with LEAF relative to one with SiLU, from the benchmark in the documentation."""
    if not (file := PROJECT / BENCHMARK).exists():
        return Finding("", missing=f"{BENCHMARK}")
    table = pd.read_csv(file)
    one_stage = table[table["variant"].isin(["LEAF-SiLU", "LEAF-Tanh P24Sl"])]["over_silu"]
    two_stages = table[table["variant"] == "LEAF-SiLU DSPT P24Sl"]["over_silu"]
    measured = f"{_range(one_stage)}; with DSPT {_range(two_stages)}"
    number = Number("largest and range", one_stage.max(), one_stage.min(), one_stage.max())
    return Finding(measured, bool(one_stage.max() <= limits["cost"]), numbers=(number,), threshold=limits["cost"])


def _range(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def other_networks(records: Records, limits: Limits) -> Finding:
    """Test accuracy of a GRU with LEAF as its tanh, or as its sigmoids, minus that of the unchanged one."""
    variants = [("leaf", form, "p24sl") for form in ("tanh", "sigmoid")]
    found = _against_base(records, judged_by(records), [RECURRENT], variants)
    data = f"{sum(map(len, found.values()))} of {len(variants) * limits['seeds']} pairs of cells"
    if not found:
        return Finding("", missing="recurrent networks: not tested here", data=data)
    words, numbers, missing = [], [], []
    for family, form, procedure in variants:
        points = 100 * found.get((*RECURRENT, family, form, procedure), np.array([]))
        if len(points) < limits["seeds"]:
            missing.append(f"LEAF as {form_title(form)}: {len(points)} of {limits['seeds']} seeds")
        interval = ""
        if len(points) > 1:
            low, high, *_ = paired_interval(list(points), limits["confidence"])
            numbers.append(Number(f"as {form_title(form)}", points.mean(), low, high))
            interval = f" [{low:+.2f}, {high:+.2f}]"
        if len(points):
            words.append(f"as {form_title(form)} {points.mean():+.2f} points{interval}")
    holds = None if missing else all(number.low > -limits["margin"] for number in numbers)
    return Finding(
        "; ".join(words), holds, "; ".join(missing), numbers=tuple(numbers), threshold=-limits["margin"], data=data
    )
