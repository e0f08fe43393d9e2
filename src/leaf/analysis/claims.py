"""A verdict on each of the paper's claims, from records: holds, does not hold, or undecided and what is missing.

``claims.yaml`` has the claims, their quantities, rules and the rules' limits; ``published.csv`` has the paper's own
figures, of which one is known so far. A claim about one scale is undecided at any other.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

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
        limits = claim["limits"]
        finding = QUANTITIES[claim["id"]](records, limits)
        missing, holds = finding.missing, finding.holds
        if claim["about"] != "any" and scales != [claim["about"]]:
            holds, missing = None, f"the claim is about the scale {claim['about']}, this is {', '.join(scales)}"
        verdict = UNDECIDED if holds is None else HOLDS if holds else FAILS
        where = claim["where"] + ("; direction inferred from it" if claim.get("inferred") else "")
        rows.append({
            "claim": claim["claim"], "where": where,
            "verdict": verdict,
            "reading": claim["reading"][verdict].format(missing=missing, by=finding.by, **limits),
            "measured": finding.measured, "published": published.get(claim["id"], ""), "undecided because": missing,
            "quantity": claim["quantity"].format(**limits), "rule": claim["rule"].format(**limits),
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


QUANTITIES: Mapping[str, Callable[[Records, Limits], Finding]] = {
    function.__name__: function
    for function in (
        better, lower_loss, seven_percent, silu_like, relu_stability, initialization, gradients, simple, other_networks,
    )
}  # fmt: skip
"""What measures each claim, by the claim's id."""
