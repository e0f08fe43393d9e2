"""The workflow as a whole: real Snakemake on real images, in a copy of the project."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import BROWSER, PROJECT
from playwright.sync_api import expect, sync_playwright
from project_copy import Copy, job_counts, run

from leaf.cli import main
from leaf.experiment.config import read_config
from leaf.experiment.records import TRAINING_VERSION

CELL = "lenet5/fashion_mnist/leaf-tanh/p24sl/adam/seed42"

TINY = """
scale: tiny
scales:
  tiny: {extends: quick, epochs: 1, train_images: 256, test_images: 100}
  other: {extends: tiny, epochs: 2}
experiments:
  mine:
    title: Mine
    in_all: true
    networks: [lenet5]
    datasets: [fashion_mnist, cifar10]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [tanh], procedures: [classic]}
      - {activations: [leaf-tanh], procedures: [p24sl]}
device: cpu
"""


@pytest.fixture(scope="session")
def project(data, tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("project"), TINY)
    copy.snakemake()
    return copy


def test_everything_is_made(project):
    reports = project.directory / "reports/tiny"
    made = {str(file.relative_to(reports)) for file in reports.rglob("*.*")}
    assert made == {
        *(
            f"{table}.{suffix}"
            for suffix in ("csv", "tex", "md", "html")
            for table in (
                "overview", "claims", "best", "tuned", "tables/mine/lenet5/fashion_mnist", "tables/mine/lenet5/cifar10",
                *(
                    f"tables/mine/lenet5/{kind}"
                    for kind in ("paper", "differences", "best_epoch", "matches", "movement")
                ),
            )
        ),
        "overview.rst", "claims.rst", "figures/differences.svg", "figures/claims.svg", "figures/initial_forms.svg",
        *(
            f"figures/{figure}.svg"
            for dataset in ("fashion_mnist", "cifar10")
            for figure in (
                f"mine/lenet5/{dataset}/tanh",
                *(f"{kind}/{CELL.replace('fashion_mnist', dataset)}" for kind in ("forms", "evolution")),
            )
        ),
    }  # fmt: skip
    assert len(project.trained_at()) == 4


def test_a_second_run_does_nothing(project):
    assert "Nothing to be done" in project.snakemake("-n")


def test_another_seed_adds_its_own_charts_and_what_depends_on_it(project):
    (project.directory / "seeds.yaml").write_text(
        "{scales: {tiny: {seeds: null}}, experiments: {mine: {seeds: [42, 43]}}}"
    )
    assert dry(project, "--configfile", "own.yaml", "seeds.yaml") == {
        "train": 4, "forms_charts": 2, "progress_chart": 2, "summary_table": 2, "network_tables": 1, "claims": 1,
        "differences_chart": 1, "all": 1, "total": 14,
    }  # fmt: skip


def test_claims_see_what_is_finished_beyond_all(project):
    results = project.directory / "results/tiny"
    beyond = results / CELL.replace("leaf-tanh/p24sl", "relu/classic")  # of linear_units, which is not in all here
    shutil.copytree(results / CELL, beyond)
    said = project.snakemake("-n", "-p")
    shutil.rmtree(beyond)
    assert job_counts(said) == {"claims": 1, "differences_chart": 1, "all": 1, "total": 3}
    assert re.search(r"leaf table [^\n]*/relu/classic/[^\n]* --overview", said)


def test_the_figures_alone_are_redrawn(project):
    line = re.search("## The figures alone\n\n```sh\nsnakemake (.*)\n", (PROJECT / "docs/reruns.md").read_text())
    charts = {"progress_chart": 2, "forms_charts": 2, "differences_chart": 1, "initial_forms_chart": 1}
    assert project.jobs(*line[1].split()) == {**charts, "all": 1, "total": 7}


def test_moved_results_are_done(project, tmp_path, monkeypatch, capsys):
    """With their times and without, with the data sets and without, with Snakemake's own records and without."""
    there = Copy(tmp_path, TINY)
    for place in ("results/tiny/lenet5/cifar10", "results/tiny/lenet5/fashion_mnist"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        how = "-a" if "cifar10" in place else "-r"  # which gives files new times
        subprocess.run(["cp", how, project.directory / place, tmp_path / place], check=True)
    (tmp_path / "resources").rename(tmp_path / "elsewhere")
    assert "train" not in (jobs := there.jobs()) and jobs["claims"] == 1
    (tmp_path / "elsewhere").rename(tmp_path / "resources")
    assert "train" not in there.jobs()
    monkeypatch.chdir(tmp_path)
    main(["status", "--configfile", "own.yaml"])
    assert capsys.readouterr().out == "tiny: 4 cells, 4 done\n"
    # What made them is compared with what is asked for: by us always, by Snakemake if its records are there too.
    there.edit("own.yaml", "epochs: 1,", "epochs: 3,")
    main(["status", "--configfile", "own.yaml"])
    assert capsys.readouterr().out.count("made with epochs 1 instead of 3\n") == 4
    assert "train" not in there.jobs()
    shutil.copytree(project.directory / ".snakemake/metadata", ".snakemake/metadata", dirs_exist_ok=True)
    assert there.jobs()["train"] == 4
    there.edit("own.yaml", "epochs: 3,", "epochs: 1,")
    assert "train" not in there.jobs()


def test_data_set_deleted_and_fetched_again_retrains_nothing(project, originals):
    before, file = project.trained_at(), project.directory / "resources/datasets/fashion_mnist.safetensors"
    file.unlink()
    os.link(PROJECT / "resources/datasets/fashion_mnist.safetensors", file)
    os.utime(file)
    assert "Nothing to be done" in project.snakemake("-n")
    # While it is missing, one new cell makes Snakemake want to train all; the jobs look and keep what they have.
    file.unlink()
    new = "results/tiny/lenet5/fashion_mnist/relu/classic/adam/seed42"
    arguments = ("all", f"{new}/metrics.csv", "--config", f"datasets_directory={originals}")
    assert project.jobs(*arguments)["train"] == 3
    project.snakemake(*arguments)
    after = project.trained_at()
    assert after.pop(str(project.directory / new))
    assert file.exists() and after == before
    shutil.rmtree(project.directory / new)  # or claims would be made again


def test_editing_a_figures_code_redraws_its_figures_and_retrains_nothing(project):
    before = project.trained_at()
    project.edit("src/leaf/analysis/figures.py", '"test accuracy, %"', '"accuracy on test images, %"')
    assert project.jobs() == {"progress_chart": 2, "forms_charts": 2, "all": 1, "total": 5}
    project.snakemake()
    assert project.trained_at() == before and "Nothing to be done" in project.snakemake("-n")


def test_editing_imported_code_remakes_the_outputs_of_its_importers(project):
    module = "src/leaf/analysis/matching.py"
    code = (project.directory / module).read_text()
    project.edit(module, code, f"{code}\n# edited\n")
    jobs = project.jobs()
    assert {"forms_charts", "summary_table", "network_tables", "claims"} <= jobs.keys() and "train" not in jobs
    project.edit(module, f"{code}\n# edited\n", code)
    assert "Nothing to be done" in project.snakemake("-n")


def test_renaming_a_network_remakes_what_shows_its_name_and_retrains_nothing(project):
    old, new = '"LeNet-5"', '"LeNet No. 5"'
    project.edit("src/leaf/names.py", old, new)
    jobs = project.jobs()
    assert {"claims", "network_tables", "summary_table", "differences_chart"} <= jobs.keys() and "train" not in jobs
    project.snakemake("reports/tiny/overview.md")
    assert "LeNet No. 5" in (project.directory / "reports/tiny/overview.md").read_text()
    project.edit("src/leaf/names.py", new, old)
    assert project.jobs() == {"claims": 1, "all": 1, "total": 2}
    project.snakemake()


COUNTS = """import pandas as pd

from leaf.analysis.collection import Records


def counts(records: Records) -> pd.DataFrame:
    return pd.DataFrame({"network": records.unique("network"), "cells": len(records.cells)})
"""


def test_adding_a_table_is_an_entry_and_a_function(project):
    added = {"src/leaf/analysis/counts.py": COUNTS, "workflow/report/counts_table.rst": "How many cells there are."}
    for file, content in added.items():
        (project.directory / file).write_text(content)
    before = "PRODUCTS: tuple[Product, ...] = (\n"
    entry = '    Table("counts", NETWORK_TABLES, "how many cells", "leaf.analysis.counts:counts"),\n'
    project.edit("src/leaf/analysis/products.py", before, before + entry)
    try:
        assert re.search(r"--counts FILE.*\n? +how many cells", project.run("leaf", "table", "--help").stdout)
        assert project.jobs() == {"network_tables": 1, "all": 1, "total": 2}
        project.snakemake("reports/tiny/tables/mine/lenet5/counts.csv")
        made = project.directory / "reports/tiny/tables/mine/lenet5"
        assert (made / "counts.csv").read_text() == "network,cells\nlenet5,4\n"
        assert "lenet5" in (made / "counts.html").read_text()
    finally:
        project.edit("src/leaf/analysis/products.py", entry, "")
        for file in added:
            (project.directory / file).unlink()
    project.snakemake()


def test_changing_a_setting_of_an_own_scale_retrains_exactly_its_cells(project):
    other = ["--config", "scale=other"]
    project.snakemake(f"results/other/{CELL}/metrics.csv")
    before = project.trained_at()
    project.edit("own.yaml", "{extends: tiny, epochs: 2}", "{extends: tiny, epochs: 3}")
    assert "Nothing to be done" in project.snakemake("-n")
    assert project.jobs(f"results/other/{CELL}/metrics.csv") == {"train": 1, "total": 1}
    project.snakemake(f"results/other/{CELL}/metrics.csv")
    changed = {cell for cell, sessions in project.trained_at().items() if before[cell] != sessions}
    assert changed == {str(project.directory / f"results/other/{CELL}")}
    assert project.jobs(*other)["train"] == 3  # the cells that this scale has not trained yet


def test_tracking_retrains_nothing_and_reaches_the_job(project):
    watched = ["--config", "tracking={trackers: [tensorboard]}"]
    assert "Nothing to be done" in project.snakemake("-n", *watched)
    cell = CELL.replace("seed42", "seed43")
    project.snakemake(f"results/tiny/{cell}/metrics.csv", *watched)
    (events,) = (project.directory / f"tracking/tensorboard/tiny/{cell}").iterdir()
    assert events.stat().st_size > 10_000 and not (project.directory / "tracking/wandb").exists()


def test_raising_the_training_version_reruns_no_training_but_is_seen(project):
    before = project.trained_at()
    project.edit("src/leaf/experiment/records.py", "TRAINING_VERSION = ", "TRAINING_VERSION = 10 + ")
    assert "train" not in project.jobs()
    table = "reports/tiny/tables/mine/lenet5/paper.md"
    project.snakemake(table)
    assert project.trained_at() == before
    assert "(stale)" in (project.directory / table).read_text()
    status = project.run("leaf", "status", "--configfile", "own.yaml").stdout
    assert f"stale       {CELL}: made with training version 1 instead of 11" in status
    number = sum("/results/tiny/" in cell for cell in before)
    assert f"{number} cells, {number} stale" in status
    project.edit("src/leaf/experiment/records.py", "TRAINING_VERSION = 10 + ", "TRAINING_VERSION = ")
    project.snakemake(table)


def test_partial_marks_the_gaps_of_an_unfinished_grid(project):
    gone = "lenet5/cifar10/tanh/classic/adam/seed42"
    assert project.run("leaf", "forget", gone, "--configfile", "own.yaml").returncode == 0
    assert project.jobs()["train"] == 1  # though all that was made of it is still there
    before = project.trained_at()
    project.snakemake("partial")
    assert project.trained_at() == before
    partial = project.directory / "reports/tiny/partial"
    assert {file.name for file in partial.iterdir()} == {
        "cells.csv", "epochs.csv", "forms.safetensors", "tables", "figures", "README.md",
        *(
            f"{table}.{suffix}"
            for table in ("claims", "overview", "best", "tuned") for suffix in ("csv", "tex", "md", "html")
        ),
    }  # fmt: skip
    assert "the claim is about the scale paper, this is tiny" in (partial / "claims.md").read_text()
    assert "missing" in (partial / "tables/mine/lenet5/paper.md").read_text()
    assert "Nothing to be done" in project.snakemake("-n", "partial")
    whole, part = ((d / f"figures/forms/{CELL}.svg").read_bytes() for d in (partial.parent, partial))
    assert whole == part
    project.snakemake(f"results/tiny/{gone}/metrics.csv")
    assert project.jobs("partial") == {"collect_partial": 1, "partial": 1, "total": 2}


@pytest.fixture(scope="module")
def report(project):
    project.snakemake("--report", "report.html")
    return project.directory / "report.html"


def test_the_report_holds_tables_and_figures(report):
    page = report.read_text()
    for name in ("tables/mine/lenet5/paper.html", "figures/mine/lenet5/cifar10/tanh.svg", f"figures/forms/{CELL}.svg"):
        assert name in page
    assert "Mine" in page and "Activation forms" in page and "as in the paper" in page


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_the_report_in_a_browser(report):
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(f"file://{report}")
        title = page.get_by_role("heading", name="Cells", exact=True)
        expect(title).to_be_in_viewport()  # it opens on its top, however long it is
        expect(page.get_by_text("LEAF as Tanh gives 7% better accuracy than tanh on CIFAR-10.")).to_be_visible()

        look, about = page.locator("[iconname=eye]"), page.locator("[iconname=information-circle]")
        page.get_by_text("Mine", exact=True).click()
        page.get_by_text("Tables", exact=True).click()
        page.get_by_role("row", name="as in the paper").locator(look).click()
        table = page.frame_locator("iframe")
        expect(table.get_by_role("columnheader", name="CIFAR-10, best accuracy, %")).to_be_visible()
        expect(table.get_by_role("row", name="LEAF Tanh P24Sl")).to_be_visible()

        categories = (("Activation forms", "five units drawn"), ("Evolution of forms", "Evolution of the curves"))
        for category, caption in categories:
            page.get_by_text("Results", exact=True).click()
            page.get_by_text(category, exact=True).click()
            page.get_by_text("lenet5, cifar10", exact=True).click()
            look.click()
            picture = page.locator("img[src*='seed42.svg']").bounding_box()
            assert picture["width"] > 300 and picture["y"] >= 0 and picture["x"] + picture["width"] <= 1500
            about.click()
            expect(page.get_by_text(caption)).to_be_visible()
            page.get_by_text(category, exact=True).click()

        page.get_by_placeholder("Search...").fill("re:forms/.*fashion_mnist.*tanh")
        page.get_by_placeholder("Search...").press("Enter")
        expect(look).to_have_count(1)
        browser.close()
    assert complaints == []


# --- dry runs of the default configuration ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def clean(data, tmp_path_factory):
    return Copy(tmp_path_factory.mktemp("clean"), TINY)


def dry(copy: Copy, *arguments: str) -> dict[str, int]:
    done = copy.run("snakemake", "-n", *arguments)
    assert done.returncode == 0, done.stderr
    return job_counts(done.stdout + done.stderr)


def test_the_papers_scale_has_148_cells(clean):
    assert dry(clean, "--config", "scale=paper")["train"] == 148


@pytest.mark.parametrize(
    ("target", "cells"),
    {
        "linear_units": 40,
        "bounded_functions": 24,
        "relu_stability": 5,
        "weight_initialization": 100,
        "bounded_initialization": 60,
        "sound_protocol": 160,
        "capacity": 100,
        "remaining": 148,
    }.items(),
)
def test_every_experiment_is_a_target(clean, target, cells):
    assert dry(clean, target, "--config", "scale=paper")["train"] == cells


def test_remaining_is_what_has_no_record_yet(clean):
    shipped = clean.directory / "reports/shipped/cells.csv"
    shipped.parent.mkdir(parents=True)
    try:
        columns, other = "cell,experiments,training_version\n", "lenet5/fashion_mnist/relu/classic/adam/seed42"
        old = CELL.replace("seed42", "seed100").replace("fashion_mnist", "cifar10").replace("tanh", "silu")
        rows = f"{CELL},bounded_functions,{TRAINING_VERSION}\n{other},linear_units,\n{old},weight_initialization,0\n"
        shipped.write_text(columns + rows)
        assert dry(clean, "remaining", "--config", "scale=paper")["train"] == 148 - 1
        shipped.write_text(f"{columns}{CELL},bounded_functions bounded_initialization,{TRAINING_VERSION}\n")
        assert dry(clean, "remaining", "--config", "scale=paper")["train"] == 148 + 48 - 1  # four seeds more
        assert dry(clean, "--config", "scale=paper")["train"] == 148  # a reproduction is not a copy
        assert dry(clean, "remaining")["train"] == 68  # the records are not of this scale
    finally:
        shutil.rmtree(shipped.parent)


def test_one_cell_by_its_path_is_one_job(clean):
    assert dry(clean, f"results/quick/{CELL}/metrics.csv") == {"train": 1, "total": 1}
    assert dry(clean, f"results/paper/{CELL}/metrics.csv") == {"train": 1, "total": 1}  # the path decides the scale


def test_targets_as_users_write_them(clean):
    """Values of options are not targets."""
    targets = [f"./results//quick/{CELL}//run.json", "reports/quick/tables/linear_units/lenet5/cifar10.csv"]
    assert dry(clean, "--until", "train", "--config", "scale=quick", "--", *targets)["train"] == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"results/quick/{CELL.replace('tanh', 'tan')}/metrics.csv"], "unknown activation 'leaf-tan'.*did you mean"),
        ([f"results/qick/{CELL}/metrics.csv"], "the scales quick, paper, sound"),
        (["--config", "scale=big"], "unknown scale 'big'; known: quick, paper, sound"),
        (["--config", "epochs=3"], "unknown key 'epochs'"),
        (
            ["--cores", "1", "--", "Linear_Units"],
            "unknown target 'Linear_Units' .did you mean 'linear_units'..; known: .*all",
        ),
        (
            [f"{{here}}/results/quick/{CELL}/run.json"],
            f"path from the working directory: results/quick/{CELL}/run.json",
        ),
    ],
)
def test_mistakes_are_reported_in_one_line(clean, arguments, message):
    done = clean.run("snakemake", "-n", *(text.replace("{here}", str(clean.directory)) for text in arguments))
    assert done.returncode != 0
    assert re.search(message, done.stdout + done.stderr) and "Traceback" not in done.stderr
    assert not (clean.directory / "results").exists()


# --- from other places ------------------------------------------------------------------------------------------------

SNAKEFILE = f"{PROJECT}/Snakefile"
NONE_OF_THE_PAPER = "".join(f"  {name}: {{in_all: false}}\n" for name in read_config().in_all)
ELSEWHERE = TINY.replace("experiments:\n", f"experiments:\n{NONE_OF_THE_PAPER}")
MODULE = f"""
configfile: "config.yaml"
module leaf:
    snakefile: "{SNAKEFILE}"
    config: config["leaf"]
use rule * from leaf as leaf_*
"""


@pytest.fixture
def elsewhere(data, tmp_path):
    """A directory with only the fetched data sets and a configuration."""
    (tmp_path / "resources").symlink_to(PROJECT / "resources")
    (tmp_path / "own.yaml").write_text(ELSEWHERE)
    return tmp_path


def run_in(directory: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}/src"}
    done = run(command, directory, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_another_working_directory(elsewhere):
    """Results, data sets and logs are in it; code, schema, captions and defaults are the project's."""
    command = [
        "snakemake",
        "-s",
        SNAKEFILE,
        "--directory",
        str(elsewhere),
        "--configfile",
        f"{elsewhere}/own.yaml",
        "--",
    ]
    run_in(elsewhere.parent, *command, f"results/tiny/{CELL}/run.json")
    run_in(elsewhere.parent, *command, "partial")
    style = ("--report-stylesheet", f"{PROJECT}/workflow/report/style.css")  # in the profile it is relative
    run_in(elsewhere.parent, *command[:-1], "--report", f"{elsewhere}/report.html", *style, "--", "partial")
    assert (elsewhere / f"logs/train/tiny/{CELL}.log").exists() and (elsewhere / "report.html").exists()
    assert ",done," in (elsewhere / "reports/tiny/partial/cells.csv").read_text()
    assert "1 done" in run_in(elsewhere, "leaf", "status", "--configfile", "own.yaml")
    assert not (PROJECT / "results/tiny").exists()


def test_a_subdirectory_of_the_project(clean):
    inside = clean.directory / "here"
    inside.mkdir()
    command = ["snakemake", "-n", "-s", "../Snakefile", "--config", "scale=paper", "--", "linear_units"]
    done = run(command, inside, clean.environment)
    shutil.rmtree(inside)
    assert job_counts(done.stdout)["train"] == 40, done.stderr


def test_a_copy_as_snakedeploy_makes_it(elsewhere):
    """It has a Snakefile with the project's workflow/Snakefile as a module, and the project's directory config."""
    shutil.copytree(PROJECT / "config", elsewhere / "config")
    (elsewhere / "workflow").mkdir()
    module = MODULE.replace('"config.yaml"', '"config/config.yaml"').replace('config["leaf"]', "config")
    module = module.replace(SNAKEFILE, f"{PROJECT}/workflow/Snakefile").replace(" as leaf_*", "")
    (elsewhere / "workflow/Snakefile").write_text(module)
    assert job_counts(run_in(elsewhere, "snakemake", "-n"))["train"] == 68
    assert job_counts(run_in(elsewhere, "snakemake", "-n", "--config", "scale=paper"))["train"] == 148


def test_config_yaml_of_the_working_directory_is_merged_over_the_projects(elsewhere):
    (elsewhere / "config.yaml").write_text("{scale: short, scales: {short: {extends: quick, epochs: 1}}}")
    said = run_in(elsewhere, "snakemake", "-n", "-s", SNAKEFILE, "relu_stability")
    assert job_counts(said)["train"] == 5 and "results/short/" in said
    assert "results/short/" in run_in(elsewhere, "leaf", "cells", "--experiment", "relu_stability", "--paths")


def test_as_a_module_of_another_workflow(elsewhere):
    """As snakedeploy lays it out, with keys of the other workflow in its configuration."""
    (elsewhere / "workflow").mkdir()
    (elsewhere / "workflow/Snakefile").write_text(MODULE)
    (elsewhere / "config.yaml").write_text(yaml.safe_dump({"others": 3, "leaf": yaml.safe_load(ELSEWHERE)}))
    run_in(elsewhere, "snakemake", "--cores", "1", f"results/tiny/{CELL}/run.json")
    run_in(elsewhere, "snakemake", "--cores", "1", "leaf_partial")
    assert ",done," in (elsewhere / "reports/tiny/partial/cells.csv").read_text()


def test_as_a_module_without_a_configuration(elsewhere):
    module = MODULE.replace('configfile: "config.yaml"', "").replace('config: config["leaf"]', "")
    (elsewhere / "Snakefile").write_text(module)
    assert job_counts(run_in(elsewhere, "snakemake", "-n", "--cores", "1", "leaf_relu_stability"))["leaf_train"] == 5


def test_results_stay_in_the_working_directory(elsewhere):
    """A module prefix or a default storage provider would make Snakemake search for them elsewhere."""
    module = MODULE.replace('config: config["leaf"]', 'config: config["leaf"]\n    prefix: "sub"')
    (elsewhere / "Snakefile").write_text(module)
    (elsewhere / "config.yaml").write_text("leaf: {}")
    done = run(["snakemake", "-n"], elsewhere)
    assert done.returncode == 1 and "a module's prefix: leaf works in the working directory" in done.stdout
    pytest.importorskip("snakemake_storage_plugin_fs", reason="the storage plugin fs is not installed")
    stored = ["--default-storage-provider", "fs", "--default-storage-prefix", f"{elsewhere}/store", "partial"]
    command = ["snakemake", "-n", "-s", SNAKEFILE, "--shared-fs-usage", "none", *stored]
    done = run(command, elsewhere)
    assert done.returncode == 1 and "a default storage provider" in done.stdout
