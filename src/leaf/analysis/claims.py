"""Verdicts on the paper's claims: holds, does not hold, or undecided with the missing data.

``claims.yaml`` has the claims, their quantities and rules, and the rules' limits. ``published.csv`` has the paper's own
numbers, of which one is known so far. A claim about one scale is undecided at any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from leaf.analysis.collection import Records
from leaf.analysis.rules import (
    Finding,
    Limits,
    better,
    initialization,
    lower_loss,
    other_networks,
    seven_percent,
    simple,
)
from leaf.analysis.rules_of_forms import gradients, relu_stability, silu_like
from leaf.experiment.errors import UserError

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
HERE = Path(__file__).parent


class Judged(NamedTuple):
    """A claim of ``claims.yaml`` with the result of its rule, the verdict, and a sentence that explains the verdict."""

    claim: Mapping[str, Any]
    finding: Finding
    verdict: str
    reading: str


def judge(records: Records) -> list[Judged]:
    """Judge all claims."""
    scales = [str(scale) for scale in records.cells["scale"].unique()]
    judged = []
    for claim in yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8")):
        limits = claim["limits"]
        finding = QUANTITIES[claim["id"]](records, limits)
        if claim["about"] != "any" and scales != [claim["about"]]:
            missing = f"the claim is about the scale {claim['about']}, this is {', '.join(scales)}"
            finding = replace(finding, holds=None, missing=missing)
        verdict = UNDECIDED if finding.holds is None else HOLDS if finding.holds else FAILS
        reading = claim["reading"][verdict].format(missing=finding.missing, by=finding.by, **limits)
        judged.append(Judged(claim, finding, verdict, reading))
    return judged


def evaluate(records: Records) -> pd.DataFrame:
    """Make a table with one row per claim: wording, quantity, rule, measured and published numbers, and verdict.

    Raises:
        UserError: if ``published.csv`` names an unknown claim.
    """
    judged = judge(records)
    published = _published({claim["id"] for claim, *_ in judged})
    rows = [
        {
            "claim": claim["claim"],
            "where": claim["where"] + ("; direction inferred from it" if claim.get("inferred") else ""),
            "verdict": verdict, "reading": reading,
            "measured": finding.measured, "published": published.get(claim["id"], ""),
            "undecided because": finding.missing,
            "quantity": claim["quantity"].format(**claim["limits"]), "rule": claim["rule"].format(**claim["limits"]),
        }
        for claim, finding, verdict, reading in judged
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table.attrs["in_short"] = ["claim", "verdict", "measured"]
    return table


def _published(claims: set[str]) -> dict[str, str]:
    """Read the paper's own numbers, as text by claim."""
    file = HERE / "published.csv"
    found: dict[str, list[str]] = {}
    for row in pd.read_csv(file, keep_default_na=False).to_dict("records"):
        if row["claim"] not in claims:
            raise UserError(f"{file}: no claim {row['claim']!r}; known: {', '.join(sorted(claims))}")
        place = " ".join(part for part in (row["network"], row["dataset"]) if part)
        found.setdefault(row["claim"], []).append(f"{row['value']} {row['unit']} ({place}; {row['source']})")
    return {claim: ", ".join(figures) for claim, figures in found.items()}


QUANTITIES: Mapping[str, Callable[[Records, Limits], Finding]] = {
    function.__name__: function
    for function in (
        better, lower_loss, seven_percent, silu_like, relu_stability, initialization, gradients, simple, other_networks,
    )
}  # fmt: skip
"""Functions that evaluate the claims, by the claims' ids."""
