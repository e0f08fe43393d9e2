"""The profiles, and the resources that a cell's job requests. `make test-slurm` tests them on a real SLURM."""

import csv
import re

import pytest
import yaml
from project_copy import PROJECT, run

from leaf.experiment.cells import Cell
from leaf.experiment.config import read_config
from leaf.experiment.costs import memory_mb, minutes
from leaf.experiment.scales import SCALES, Settings

PROFILES = {file.parent.name: yaml.safe_load(file.read_text()) for file in PROJECT.glob("profiles/*/config.yaml")}
PAPER = SCALES["paper"].settings


def test_every_profile_has_the_common_settings():
    assert set(PROFILES) == {"default", "gpu", "slurm"}
    everywhere = {key: value for key, value in PROFILES["default"].items() if key != "cores"}
    for name, profile in PROFILES.items():
        assert everywhere.items() <= profile.items(), name


def test_retries_are_for_clusters_alone():
    """Elsewhere a failed job would fail again; in the rule, retries would also count inside a killed job."""
    assert PROFILES["slurm"]["retries"] >= 10
    assert not any("retries" in PROFILES[name] for name in ("default", "gpu"))
    assert not any("retries" in file.read_text() for file in PROJECT.glob("workflow/rules/*.smk"))


def test_only_training_leaves_the_machine_that_snakemake_runs_on():
    text = "\n".join(file.read_text() for file in [PROJECT / "Snakefile", *PROJECT.glob("workflow/rules/*.smk")])
    rules = re.findall(r"^ *rule ?(\w*):\n(.*?)(?=^ *rule|\Z)", text, re.M | re.S)
    named = {"all", "collect_partial", "fetch", "partial", "remaining", "train"}
    assert {name for name, _ in rules} == {*named, ""} and len(rules) == 8  # two are made in loops
    assert [name for name, body in rules if "localrule: True" not in body] == ["train"]


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["gpu", "slurm"])
def test_jobs_request_what_they_need(profile):
    command = ["snakemake", "-n", "--workflow-profile", f"profiles/{profile}", "--config", "scale=paper"]
    done = run(command, PROJECT)
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r"^rule train:\n.*?^    resources: (.*?)$", done.stdout, re.M | re.S)
    assert len(jobs) == 148
    assert all("gpu_cells=1" in job and "mem_mb=3024" in job for job in jobs)
    assert len({re.search(r"runtime=\d+", job)[0] for job in jobs}) == 8  # two networks, data sets, numbers of stages


def test_the_requested_time_suffices_for_trained_cells():
    with (PROJECT / "reports/shipped/cells.csv").open(newline="") as file:
        trained = [row for row in csv.DictReader(file) if row["best_accuracy"]]
    assert len(trained) >= 10
    for row in trained:
        assert float(row["seconds_per_epoch"]) * int(row["epochs"]) < 60 * minutes(Cell.parse(row["cell"]), PAPER)


def test_the_requested_time_is_proportional_to_the_work():
    cell = Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42)
    # 100 epochs of 60 thousand images at 0.36 s, and of 10 thousand tested at 0.35 of it, five times, and ten minutes
    assert minutes(cell, PAPER) == 10 + round(5 * 100 * (60 + 0.35 * 10) * 0.36 / 60)
    assert minutes(cell, SCALES["quick"].settings) == 10
    costs = {other.name: minutes(other, PAPER) for other in read_config().cells(scale="paper")}
    assert max(costs, key=costs.__getitem__).startswith("kerasnet/fashion_mnist/ahaf-relu/dspt/")
    assert memory_mb(cell, PAPER) == 2000 + 8 * 128 < memory_mb(cell, Settings(batch_size=256))
    residual = Cell("resnet18", "cifar10", "relu", "classic", "adam", 42)
    assert memory_mb(residual, PAPER) > memory_mb(cell, PAPER) and minutes(residual, PAPER) > 25 * minutes(cell, PAPER)
