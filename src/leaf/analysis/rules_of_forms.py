"""Evaluate the paper's claims about learned curves, gradients and stability.

Each function evaluates one claim of ``claims.yaml``, and gets the claim's ``limits``.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from leaf.analysis.collection import Records, finished
from leaf.analysis.forms import CURVE_INPUTS, base_curve, input_bins, input_density, layers
from leaf.analysis.matching import FREEDOMS, match, near
from leaf.analysis.pairs import are_mixed, computed_in
from leaf.analysis.rules import PAPERS_DATASETS, PAPERS_NETWORKS, Finding, Limits, Number
from leaf.analysis.tables import form_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.status import DIVERGED, DONE
from leaf.networks import NETWORKS


def _of_paper(records: Records) -> pd.DataFrame:
    """Select the cells with the paper's networks and data sets."""
    cells = records.cells
    return cells[cells["network"].isin(PAPERS_NETWORKS) & cells["dataset"].isin(PAPERS_DATASETS)]


def silu_like(records: Records, limits: Limits) -> Finding:
    """Shares of convolutional units that match SiLU and of those that moved, for LEAF as SiLU and as Sigmoid."""
    words, numbers, lacking = [], [], 0
    for form in ("silu", "sigmoid"):
        cells = _of_paper(records).query(f"family == 'leaf' and form == '{form}' and procedure == 'p24sl'")
        places: dict[str, list[np.ndarray]] = {}
        for cell in cells.query(f"optimizer == 'adam' and status == '{DONE}'").to_dict("records"):
            place = f"{NETWORKS[cell['network']].title} on {DATASETS[cell['dataset']].title}"
            places.setdefault(place, []).extend(_convolutional(records, cell["cell"], form, limits))
        of_place = {place: np.mean(shares, axis=0) for place, shares in places.items() if shares}
        lacking += len(PAPERS_NETWORKS) * len(PAPERS_DATASETS) - len(of_place)
        if of_place:
            *like, nearest, moved, covered = np.mean(list(of_place.values()), axis=0)
            judged = FREEDOMS.index(JUDGED)
            numbers.append(Number(f"as {form_title(form)}", 100 * like[judged]))
            each = ", ".join(f"{place} {values[judged]:.0%}" for place, values in of_place.items())
            others = ", ".join(f"{name} {like[FREEDOMS.index(name)]:.0%}" for name in FREEDOMS if name != JUDGED)
            words.append(
                f"as {form_title(form)} {like[judged]:.0%} like SiLU up to scale and {JUDGED} ({each};"
                f" by freedom of the match: {others}; nearest to SiLU at any residual: {nearest:.0%}),"
                f" {moved:.0%} moved; {covered:.0%} of inputs seen"
            )
    missing = f"{lacking} of 8 networks" if lacking else ""
    holds = None if missing else all(number.value > 100 * limits["share"] for number in numbers)
    return Finding(
        "; ".join(words), holds, missing,
        numbers=tuple(numbers), threshold=100 * limits["share"], data=f"{8 - lacking} of 8 networks",
    )  # fmt: skip


JUDGED = "offset"
"""Freedom of the match in the rule. LEAF has parameters for scale, slope and offset, but cannot shift a SiLU. The bias
of the next layer compensates for an offset."""


def _convolutional(records: Records, cell: str, form: str, limits: Limits) -> Iterator[np.ndarray]:
    """Yield shares for each convolutional layer.

    They are the shares of the units that match SiLU with each of ``FREEDOMS``, of those that are nearest to SiLU, and
    of those that moved; and the share of the inputs within ``CURVE_INPUTS``. Inputs beyond these have no weight.
    """
    forms = records.forms.get(cell, {})
    start = base_curve(form)
    for name in layers(forms)[:-1]:  # the last one is fully connected
        counts = forms[f"inputs/{name}"].astype(float)
        edges = input_bins(forms, name)
        density = np.concatenate([[0], input_density(forms, name), [0]])  # nothing outside the bins
        weights = density[np.digitize(CURVE_INPUTS, edges)]
        curves = forms[f"curves/{name}"].astype(float)
        if not weights.any():
            continue
        matches = [match(curves, CURVE_INPUTS.astype(float), weights, freedom) for freedom in FREEDOMS]
        found = [near(of_freedom, "silu", limits["residual"]) for of_freedom in matches]
        nearest = near(matches[FREEDOMS.index(JUDGED)], "silu", np.inf).mean()
        change = np.sqrt(((curves - start) ** 2 @ weights) / (start.astype(float) ** 2 @ weights))
        within = counts[(edges[:-1] >= CURVE_INPUTS[0]) & (edges[1:] <= CURVE_INPUTS[-1])].sum() / counts.sum()
        yield np.array([*(like.mean() for like in found), nearest, (change > limits["residual"]).mean(), within])


def relu_stability(records: Records, limits: Limits) -> Finding:
    """Largest drops of accuracy of LEAF as ReLU, KerasNet on CIFAR-10, with a common learning rate and with P24Sl."""
    cells = records.select(network="kerasnet", dataset="cifar10", activation="leaf-relu", optimizer="adam").cells
    titles = {"classic": "common rate", "p24sl": "P24Sl"}
    cells = finished(cells).query("procedure in @titles")
    by_seed = {procedure: cells[cells["procedure"] == procedure].set_index("seed") for procedure in titles}
    seeds = sorted(by_seed["classic"].index.intersection(by_seed["p24sl"].index))
    data = f"{len(seeds)} of {limits['seeds']} seeds"
    missing = [data] if len(seeds) < limits["seeds"] else []
    if not seeds:
        return Finding(
            "", missing=f"{data} with both kerasnet/cifar10/leaf-relu/classic/adam and …/p24sl/adam", data=data
        )
    used = cells[cells["seed"].isin(seeds)]
    if are_mixed(used):
        missing.append(f"cells computed alike: they were in {' and '.join(sorted(set(computed_in(used))))}")
    falls = {procedure: [_fall(records, rows.loc[seed]) for seed in seeds] for procedure, rows in by_seed.items()}
    words = {
        procedure: ", ".join("diverged" if fall == np.inf else f"{fall:.1f} points" for fall in values)
        for procedure, values in falls.items()
    }
    named = ", ".join(map(str, seeds))
    measured = f"common learning rate: {words['classic']}; P24Sl: {words['p24sl']}; seeds {named}"
    unstable = {procedure: np.array(values) >= limits["fall"] for procedure, values in falls.items()}
    holds = bool(unstable["classic"].mean() > 0.5 and not unstable["p24sl"].any())
    numbers = tuple(
        Number(title, float(np.median(falls[procedure])), min(falls[procedure]), max(falls[procedure]))
        for procedure, title in titles.items()
    )
    return Finding(
        measured, None if missing else holds, "; ".join(missing),
        numbers=numbers, threshold=limits["fall"], data=data,
    )  # fmt: skip


def _fall(records: Records, cell: pd.Series) -> float:
    """Largest drop of a cell's test accuracy below its earlier maximum, in points; infinite if the cell diverged."""
    if cell["status"] == DIVERGED:
        return np.inf
    accuracy = records.epochs[records.epochs["cell"] == cell["cell"]]["test_accuracy"] * 100
    return float((accuracy.cummax() - accuracy).max())


def gradients(records: Records, limits: Limits) -> Finding:
    """Ratio of the first layer's to the last layer's gradient norm at the end of training, with LEAF and without."""
    cells = _of_paper(records)
    ratios = {}
    for family in ("leaf", "base"):
        names = cells.query(f"family == '{family}' and status == '{DONE}'")["cell"]
        norms = {name: records.forms.get(name, {}).get("gradient_norms/end") for name in names}
        ratios[family] = {name: float(values[0] / values[-1]) for name, values in norms.items() if values is not None}
    with_leaf = cells[cells["family"] == "leaf"]
    diverged = int((with_leaf["status"] == DIVERGED).sum())
    expected = with_leaf["cell"].nunique() - diverged
    if not ratios["leaf"]:
        return Finding("", missing="cells with LEAF", data=f"0 of {expected} cells with LEAF")
    words = [_smallest(ratios["leaf"]) + (f"; {diverged} diverged" if diverged else "")]
    if ratios["base"]:
        passing = sum(ratio >= limits["ratio"] for ratio in ratios["base"].values())
        words.append(f"base functions: {_smallest(ratios['base'])}, {passing} of them pass the same rule")
    lacking = expected - len(ratios["leaf"])
    missing = f"{lacking} of {expected} cells with LEAF" if lacking else ""
    holds = min(ratios["leaf"].values()) >= limits["ratio"]
    titles = {"leaf": "LEAF", "base": "base functions"}
    numbers = tuple(Number(titles[family], min(of.values())) for family, of in ratios.items() if of)
    data = f"{len(ratios['leaf'])} of {expected} cells with LEAF"
    return Finding(
        "; ".join(words), None if missing else holds, missing,
        numbers=numbers, threshold=limits["ratio"], data=data,
    )  # fmt: skip


def _smallest(ratios: dict[str, float]) -> str:
    name = min(ratios, key=lambda name: ratios[name])
    return f"smallest {ratios[name]:.3g} ({name}), median {np.median(list(ratios.values())):.3g}, {len(ratios)} cells"
