"""The shipped results: complete, with provenance, and equal to the analysis of their records."""

import re
import shutil

import matplotlib
import pandas as pd
import pytest
from conftest import PROJECT
from scipy import stats

from leaf.analysis.analyse import figures, make_tables
from leaf.analysis.collection import LAST_EPOCHS, read_records
from leaf.analysis.figures import write_figure
from leaf.analysis.layout import ABOUT, RECORDS
from leaf.experiment.config import read_config

pytestmark = pytest.mark.slow

SHIPPED = PROJECT / "reports/shipped"

PAGES = (PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md"), *SHIPPED.glob("*.md"))


def shown_figures() -> set[str]:
    """The figures of the shipped results that pages show, relative to these."""
    found = set()
    for page in PAGES:
        for target in re.findall(r"!\[[^]]*\]\(([^)]+\.svg)\)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.is_relative_to(SHIPPED):
                found.add(str(file.relative_to(SHIPPED)))
    return found


def files(directory):
    """Shipped results that are in git: everything except most figures."""
    found = {str(file.relative_to(directory)): file for file in directory.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if not name.startswith("figures/")}


def test_tables_and_pages_are_what_the_records_give(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    for name in (*RECORDS, ABOUT):
        shutil.copy(SHIPPED / name, tmp_path)
    values = read_config().values
    make_tables(read_records(tmp_path), tmp_path, values["figure_format"], values["statistics"])
    made, shipped = files(tmp_path), files(SHIPPED)
    assert set(made) == set(shipped)
    assert [name for name in made if made[name] != shipped[name]] == []


def test_figures_that_pages_show_are_what_the_records_give(tmp_path, monkeypatch):
    """To the byte where the same version of matplotlib draws them."""
    monkeypatch.chdir(PROJECT)
    drawn = {
        f"{name}.svg": chart for name, *chart in figures(read_records(SHIPPED), read_config().values["statistics"])
    }
    assert shown_figures() <= set(drawn) and len(shown_figures()) >= 3
    for name in sorted(shown_figures()):
        chart, arguments = drawn[name]
        write_figure(chart(*arguments), tmp_path / name)
        shipped = (SHIPPED / name).read_text(encoding="utf-8")
        if f">Matplotlib v{matplotlib.__version__}," not in shipped:
            pytest.skip(f"{name} was drawn by another version of matplotlib")
        assert (tmp_path / name).read_text(encoding="utf-8") == shipped, name


def test_git_keeps_the_figures_that_pages_show():
    ignored = (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    kept = {
        line.removeprefix("!/reports/shipped/") for line in ignored if line.startswith("!/reports/shipped/figures/")
    }
    assert kept == shown_figures()


def test_the_readmes_numbers_are_those_of_the_records():
    """The table and the differences of Tanh and LEAF as Tanh on CIFAR-10, computed here with pandas and SciPy."""
    text = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    cells = pd.read_csv(SHIPPED / "cells.csv").query("dataset == 'cifar10' and status == 'done'").set_index("seed")
    for network, title in (("lenet5", "LeNet-5"), ("kerasnet", "KerasNet")):
        base = cells.query(f"network == '{network}' and activation == 'tanh'")
        learnable = cells.query(f"network == '{network}' and activation == 'leaf-tanh' and procedure == 'p24sl'")
        for name, these in (("Tanh", base), ("LEAF as Tanh", learnable)):
            best, final = (100 * these[column] for column in ("best_accuracy", "final_accuracy"))
            words = [f"{values.mean():.2f} ± {values.std():.2f}" for values in (best, final)]
            assert f"| {title}, {name} | {words[0]} | {words[1]} | {these['final_train_loss'].mean():.3f} |" in text
        points = 100 * (learnable["best_accuracy"] - base["best_accuracy"])
        relative = 100 * (learnable["best_accuracy"] / base["best_accuracy"] - 1)
        for values in (points, relative):
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            assert (
                len(values) == 5
                and f"{values.mean():.2f}" in text
                and f"({low:.2f} to {high:.2f})" in text.replace("95% interval ", "")
            )
        assert f"{100 * (learnable['final_accuracy'] - base['final_accuracy']).mean():.2f}" in text
    (silu,) = cells.query("network == 'kerasnet' and activation == 'silu'")["best_accuracy"]
    assert f"stays below plain SiLU ({100 * silu:.2f}, one seed)" in text and silu > learnable["best_accuracy"].mean()


def test_every_cell_names_what_made_it():
    records = read_records(SHIPPED)
    trained = records.cells[records.cells["status"] != "missing"]
    assert len(trained) >= 46 and set(trained["status"]) <= {"done", "diverged"}
    assert set(trained["scale"]) == {"paper"}
    on_cpu = trained["device"].str.startswith("CPU")
    assert set(trained["precision"][on_cpu]) == {"float32"}
    assert trained[["commit", "training_version", "kernel", "device", "torch", "with_model"]].notna().all(axis=None)
    assert trained["clean"].astype(bool).all()
    for cell in trained.to_dict("records"):
        epochs = records.epochs[records.epochs["cell"] == cell["cell"]]
        assert epochs["epoch"].tolist() == list(range(1, 101))
        assert epochs["test_accuracy"].max() == cell["best_accuracy"]
        assert epochs["epoch"].iloc[epochs["test_accuracy"].argmax()] == cell["best_epoch"]
        assert epochs["test_accuracy"].iloc[-LAST_EPOCHS:].mean() == cell["last_epochs_accuracy"]
        assert f"{cell['cell']}" in records.forms


def test_shipped_results_are_small():
    shown = sum((SHIPPED / name).stat().st_size for name in shown_figures())
    assert shown + sum(map(len, files(SHIPPED).values())) < 8e6
