"""The shipped results: complete, with provenance, and equal to the analysis of their records."""

import re
import shutil

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT
from scipy import stats

from leaf import build_network
from leaf.analysis.analyse import make_tables, products_of
from leaf.analysis.collection import LAST_EPOCHS, read_records
from leaf.analysis.forms import parameter_quantiles
from leaf.analysis.layout import ABOUT, RECORDS
from leaf.experiment.config import read_config
from leaf.experiment.observations import QUANTILES

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


@pytest.mark.slow
def test_tables_and_pages_are_what_the_records_give(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    for name in (*RECORDS, ABOUT):
        shutil.copy(SHIPPED / name, tmp_path)
    values = read_config().values
    make_tables(read_records(tmp_path), tmp_path, values["figure_format"], values["statistics"])
    made, shipped = files(tmp_path), files(SHIPPED)
    assert set(made) == set(shipped)
    assert [name for name in made if made[name] != shipped[name]] == []


@pytest.mark.slow
def test_figures_that_pages_show_are_what_the_records_give(tmp_path, monkeypatch):
    """To the byte where the same version of matplotlib draws them."""
    monkeypatch.chdir(PROJECT)
    statistics = read_config().values["statistics"]
    drawn = {f"{path}.svg": (chart, of_it) for chart, path, of_it in products_of(read_records(SHIPPED), "figure")}
    assert shown_figures() <= set(drawn) and len(shown_figures()) >= 3
    for name in sorted(shown_figures()):
        chart, of_it = drawn[name]
        chart.write(chart.make(of_it, statistics), tmp_path / name)
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


def test_the_pages_numbers_are_those_of_the_records():
    """Tanh and LEAF as Tanh on CIFAR-10, in README.md and docs/results.md, computed here with pandas and SciPy."""
    readme, results = (
        " ".join((PROJECT / page).read_text("utf-8").split()) for page in ("README.md", "docs/results.md")
    )
    cells = pd.read_csv(SHIPPED / "cells.csv").query("dataset == 'cifar10' and status == 'done'")
    epochs = pd.read_csv(SHIPPED / "epochs.csv").groupby("cell").last()
    cells = cells.join(epochs["test_loss"], on="cell").set_index("seed")
    gains, added = {}, []
    for network, title in (("lenet5", "LeNet-5"), ("kerasnet", "KerasNet")):
        base = cells.query(f"network == '{network}' and activation == 'tanh'")
        learnable = cells.query(f"network == '{network}' and activation == 'leaf-tanh' and procedure == 'p24sl'")
        for name, these in (("Tanh", base), ("LEAF as Tanh", learnable)):
            best, final = (100 * these[column] for column in ("best_accuracy", "final_accuracy"))
            words = [f"{values.mean():.2f} ± {values.std():.2f}" for values in (best, final)]
            row = f"| {title}, {name} | {words[0]} | {words[1]} | {these['final_train_loss'].mean():.3f} |"
            assert row in readme and f"{row} {these['test_loss'].mean():.3f} |" in results
            added.append((best - final).mean())
        differences = [100 * (learnable["best_accuracy"] / base["best_accuracy"] - 1)]
        for column in ("best_accuracy", "final_accuracy", "last_epochs_accuracy"):
            differences.append(100 * (learnable[column] - base[column]))
        words = []
        for values in differences:
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            assert len(values) == 5 and (values > 0).all()
            words.append(f"{values.mean():.2f} ({low:.2f} to {high:.2f})")
        assert f"| {title} | {' | '.join(words)} |" in results
        gains[network] = [values.mean() for values in differences]
    relative, points, *_ = gains["kerasnet"]
    assert f"LEAF gains {relative:.2f}% relative ({points:.2f} points) with KerasNet" in readme
    relative, points, *_ = gains["lenet5"]
    assert f"{relative:.2f}% ({points:.2f} points) with LeNet-5" in readme
    assert f"between {min(added):.2f} and {max(added):.2f} points" in results
    (silu,) = cells.query("network == 'kerasnet' and activation == 'silu'")["best_accuracy"]
    assert f"stays below SiLU ({100 * silu:.2f}, one seed)" in results and silu > learnable["best_accuracy"].mean()
    assert f"SiLU reaches {100 * silu:.2f}% (one seed)" in readme


def test_the_pages_other_numbers_of_best_and_last_epochs_are_those_of_the_records():
    """In docs/results.md: what the best epoch adds to the last ten, and LeNet-5's test losses."""
    results = " ".join((PROJECT / "docs/results.md").read_text("utf-8").split())
    cells = pd.read_csv(SHIPPED / "cells.csv").query("dataset == 'cifar10' and status == 'done'").set_index("seed")
    epochs = pd.read_csv(SHIPPED / "epochs.csv").groupby("cell")
    ten, last, smallest = (
        epochs["test_accuracy"].apply(lambda s: s.tail(10).mean()),
        epochs["test_loss"].last(),
        epochs["test_loss"].min(),
    )
    added, losses = [], {}
    for network in ("lenet5", "kerasnet"):
        for kind in ("activation == 'tanh'", "activation == 'leaf-tanh' and procedure == 'p24sl'"):
            these = cells.query(f"network == '{network}' and {kind}")
            added.append(100 * (these["best_accuracy"] - these["cell"].map(ten)).mean())
            losses[network, kind] = these["cell"].map(last), these["cell"].map(smallest).mean()
    assert f"between {min(added):.2f} and {max(added):.2f} to that of the last ten" in results
    (base, least_base), (leaf, least_leaf) = (values for (network, _), values in losses.items() if network == "lenet5")
    difference = leaf - base
    low, high = stats.t.interval(0.95, len(difference) - 1, difference.mean(), stats.sem(difference))
    assert (
        f"{leaf.mean():.3f} against {base.mean():.3f} (difference {difference.mean():+.3f} [{low:.3f}, {high:.3f}])"
        in results
    )
    assert f"smaller with LEAF, {least_leaf:.3f} against {least_base:.3f}" in results


def test_the_slopes_of_what_starts_as_relu_never_moved():
    """As docs/experiment.md says: every element, after every epoch."""
    slopes = [
        values
        for cell, forms in read_records(SHIPPED).forms.items()
        if cell.split("/")[2] in ("leaf-relu", "ahaf-relu")
        for name, values in forms.items()
        if name.startswith("quantiles/") and name.endswith((".p3", ".gamma"))
    ]
    assert len(slopes) >= 20 and all((values == 2**16).all() for values in slopes)


def test_under_p24sl_p2_and_p4_hardly_move():
    """The ratios in docs/experiment.md: root mean squares over a network, by interpolation between quantiles."""
    ratios = []
    for cell, forms in read_records(SHIPPED).forms.items():
        network, dataset, activation, procedure, *_ = cell.split("/")
        if not activation.startswith("leaf-") or not procedure.endswith("p24sl"):
            continue
        sizes = {
            name: layer.get_parameter("p1").numel()
            for name, layer in build_network(network, dataset, activation).named_activations.items()
        }
        squares = dict.fromkeys(("p1", "p2", "p3", "p4"), 0.0)
        for layer, size in sizes.items():
            for name, values in parameter_quantiles(forms, layer).items():
                change = values[-1].astype(float) - values[0]
                squares[name] += size * (np.interp(np.linspace(0, 1, 2001), QUANTILES, change) ** 2).mean()
        fast = ("p1",) if activation == "leaf-relu" else ("p1", "p3")
        ratios += [np.sqrt(squares[one] / squares[other]) for one in fast for other in ("p2", "p4")]
    text = " ".join((PROJECT / "docs/experiment.md").read_text(encoding="utf-8").split())
    low, high = re.search(r"\$p_2\$ and \$p_4\$ move ([\d,]+) to ([\d,]+) times less", text).groups()
    assert float(low.replace(",", "")) == pytest.approx(min(ratios), rel=0.01)
    assert float(high.replace(",", "")) == pytest.approx(max(ratios), rel=0.01)


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
