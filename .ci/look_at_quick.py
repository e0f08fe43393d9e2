"""Check the outputs of `make quick`: cells, tables, figures and the report are complete, and the networks learn."""

import csv
import json
from pathlib import Path

from leaf.experiment.config import read_config
from leaf.workflow import Plan

REPORTS = Path("reports/quick")
LEARNING = {"fashion_mnist": 0.50, "cifar10": 0.15}
"""Minimum test accuracy; not required with the form Sigmoid or in the stability study."""

runs = [json.loads(file.read_text()) for file in Path("results/quick").rglob("run.json")]
assert len(runs) == 68, f"{len(runs)} cells instead of 68"
slow_learners = 0
for run in runs:
    cell = run["identity"]["cell"]
    activation, procedure, optimizer = cell.split("/")[2:5]
    with Path("results/quick", cell, "metrics.csv").open() as file:
        accuracy = float(list(csv.DictReader(file))[-1]["test_accuracy"])
    stability = (activation, procedure) == ("leaf-relu", "classic") or optimizer == "rmsprop"
    if "sigmoid" in activation or stability:
        slow_learners += 1
        print(f"may be slow: {cell}: {accuracy:.1%}")
        continue
    assert accuracy > LEARNING[cell.split("/")[1]], f"{cell} ends at {accuracy:.1%}"
    assert run["peak_memory_bytes"] < 1.5 * 2**30, f"{cell} took {run['peak_memory_bytes'] / 2**30:.2f} GiB"

PLAN = Plan.of(read_config().values, [])
made_of = PLAN.experiment_files(PLAN.config.in_all, "quick")
wanted = {Path(file) for file in (*made_of, *PLAN.report_files("quick")) if file.startswith(str(REPORTS))}
assert len(wanted) > 300, f"the catalogue has only {len(wanted)} files"
found = {file for file in REPORTS.rglob("*.*") if file.is_file() and "partial" not in file.parts}
assert found == {*wanted, REPORTS / "report.html"}, f"missing or unknown: {sorted(map(str, found ^ wanted))}"
assert all(file.stat().st_size for file in found), "a file is empty"
report = (REPORTS / "report.html").read_text()
for name in ("linear_units/lenet5/paper.html", "relu_stability/kerasnet/cifar10/relu.svg"):
    assert name in report, f"{name} is not in the report"
print(f"quick: {len(runs)} cells, {len(runs) - slow_learners} checked for accuracy; tables, figures, report complete")
