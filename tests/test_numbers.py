"""Numbers in README.md and docs are those of the files that the pages name."""

import json
import re

import pandas as pd
import pytest
from conftest import PROJECT

from leaf import build_network
from leaf.activations import ACTIVATIONS, Adaptive
from leaf.experiment.config import read_config

BENCHMARK = PROJECT / "docs/benchmark"
NETWORKS = {
    ("lenet5", "fashion_mnist"): "LeNet-5, Fashion-MNIST",
    ("lenet5", "cifar10"): "LeNet-5, CIFAR-10",
    ("kerasnet", "fashion_mnist"): "KerasNet, Fashion-MNIST",
    ("kerasnet", "cifar10"): "KerasNet, CIFAR-10",
}
DATASETS = {"Fashion-MNIST": "fashion_mnist", "CIFAR-10": "cifar10"}
RUNS = {"AMD EPYC": BENCHMARK, "Intel Xeon": BENCHMARK / "intel_xeon"}


def text(page: str) -> str:
    return " ".join((PROJECT / page).read_text(encoding="utf-8").split())


def steps(directory) -> pd.DataFrame:
    return pd.read_csv(directory / "networks.csv").set_index(["network", "dataset", "variant"]).sort_index()


def interval(values: pd.Series, digits: int = 2) -> str:
    return f"{values.min():.{digits}f} to {values.max():.{digits}f}"


@pytest.mark.parametrize("machine", RUNS)
def test_ratios_of_training_steps(machine):
    measured, page = steps(RUNS[machine]), text("docs/benchmark/README.md")
    assert machine.split()[1] in json.loads((RUNS[machine] / "machine.json").read_text())["device"]
    table = page[page.index(f"| {machine} | LEAF") :].split(" | Intel Xeon |")[0]
    for (network, dataset), title in NETWORKS.items():
        of = measured.loc[network, dataset]
        ratios = " · ".join(f"{of.over_silu[name]:.2f}" for name in ("LEAF-SiLU", "AHAF-SiLU"))
        dspt = of.seconds_per_1000_images["LEAF-SiLU DSPT P24Sl"] / of.seconds_per_1000_images["LEAF-SiLU"]
        variants = ("ReLU", "AHAF-SiLU", "LEAF-Tanh P24Sl", "LEAF-SiLU DSPT P24Sl")
        loops = " · ".join(f"{of.plain_loop_over_ours[name]:.1f}" for name in variants)
        assert f"| {title} | {ratios} | {dspt:.2f} | {loops} |" in table


def test_ratios_of_layers():
    page, rows = text("docs/benchmark/README.md"), {}
    for directory in RUNS.values():
        layers = pd.read_csv(directory / "layers.csv")
        images = layers["shape"].str.contains("×")
        for name, chosen in (
            ("LEAF, convolutional shapes", images & (layers["activation"] == "LEAF")),
            ("LEAF, vectors of 500 and 512 elements", ~images & (layers["activation"] == "LEAF")),
            ("torch's PReLU, convolutional shapes", images & (layers["activation"] == "PReLU")),
        ):
            rows.setdefault(name, []).append(interval(layers["over_silu"][chosen]))
    for name, ratios in rows.items():
        assert f"| {name} | {' | '.join(ratios)} |" in page


def test_other_measurements_of_the_benchmark():
    page = text("docs/benchmark/README.md")
    cells, conversion = pd.read_csv(BENCHMARK / "cells.csv"), pd.read_csv(BENCHMARK / "conversion.csv")
    assert f"{interval(cells['start_seconds'], 1)} s from the start" in page
    assert f"peak memory is {interval(cells['peak_gib'], 1)} GiB" in page
    ratio = conversion.set_index("activations")["over_relu"]
    assert f"{ratio['LEAF per channel']:.2f} times as long with LEAF per channel" in page
    assert f"{ratio['LEAF per element']:.2f} per element and {ratio['LEAF shared']:.2f} with one set per layer" in page
    assert f"{ratio['AHAF per channel']:.2f} with AHAF per channel" in page
    tracking = 100 * pd.read_csv(BENCHMARK / "tracking.csv").set_index("tracker")["share_of_epoch"]
    assert f"TensorBoard takes {tracking['tensorboard']:.2f}%" in page and f"{tracking['wandb']:.2f}% of an" in page
    analysis = pd.read_csv(BENCHMARK / "analysis.csv").set_index("target")
    for target, minutes, gib in analysis.itertuples():
        assert f"`snakemake {target}` " in page and f"{minutes:.1f} minutes and {gib:.1f} GiB" in page
        assert f"{minutes:.1f}" in text("docs/reruns.md")
    gain = 100 * (pd.read_csv(BENCHMARK / "sharing.csv").query("cells == 2").set_index("network")["over_one_cell"] - 1)
    assert f"train {gain['lenet5']:.0f}% (LeNet-5) and {gain['kerasnet']:.0f}% (KerasNet) more images" in page
    assert f"trains {gain['kerasnet']:.0f} to {gain['lenet5']:.0f}% more images" in text("docs/experiment.md")


def test_epochs_on_a_gpu():
    epochs, page = pd.read_csv(PROJECT / "reports/shipped/epochs.csv"), text("docs/cluster.md")
    cells = pd.read_csv(PROJECT / "reports/shipped/cells.csv").query("device.str.contains('H100')")
    assert len(cells) == 14 and set(cells["precision"]) == {"tf32"} and "fourteen shipped cells" in page

    def median(family: str, first: int, last: int) -> str:
        chosen = epochs["cell"].isin(cells.query(f"family == '{family}'")["cell"]) & epochs["epoch"].between(
            first, last
        )
        return f"{epochs['train_seconds'][chosen].median():.1f}"

    assert f"took {median('base', 2, 30)} s with a base function and {median('leaf', 2, 30)} s with LEAF" in page
    assert f"the seven with LEAF took {median('leaf', 90, 100)} s" in page


def test_the_readmes_ratio_is_the_benchmarks():
    ratios = steps(BENCHMARK)["over_silu"].xs("LEAF-SiLU", level="variant")
    assert f"takes {interval(ratios)} times as long as with SiLU" in text("README.md")
    assert "AMD EPYC" in json.loads((BENCHMARK / "machine.json").read_text())["device"]


def test_numbers_of_cells(monkeypatch):
    monkeypatch.chdir(PROJECT)
    config, readme = read_config(), text("README.md")
    rows = dict(re.findall(r"\| `(\w+)` \| (\d+) \|", text("docs/experiment.md")))
    assert {"linear_units", "bounded_functions", "relu_stability", "weight_initialization", "all"} < set(rows)
    for name, count in rows.items():
        assert len(config.cells(None if name == "all" else [name], "paper")) == int(count), name
    assert f"The full experiment has {rows['all']} cells" in readme
    assert f"{len(config.cells(scale='quick'))} trainings" in readme


def test_rounding():
    measured, page = pd.read_csv(BENCHMARK / "rounding.csv").set_index("cell"), text("docs/repeatable.md")
    shown = re.findall(r"([0-9]e-[0-9]) \((\S+)\)", page)
    assert len(shown) == len(measured) == 2
    for words, title in shown:
        row = measured.loc[f"lenet5/{DATASETS[title]}/relu/classic/adam/seed42"]
        difference = abs(row["loss_1_thread"] - row["loss_2_threads"]) / row["loss_1_thread"]
        assert f"{difference:.0e}" == words.replace("e-", "e-0")


def test_bfloat16():
    page = text("docs/benchmark/README.md")
    for title, row in zip(("Tanh", "LEAF as Tanh"), pd.read_csv(BENCHMARK / "precision.csv").itertuples(), strict=True):
        words = f"by {row.difference:+.2f} points [{row.low:.2f}, {row.high:.2f}] with {title}"
        assert words in " ".join(page.split())
        assert row.difference == pytest.approx(row.bfloat16 - row.float32) and row.seeds == 5


def test_other_activations():
    cells = pd.read_csv(PROJECT / "docs/records/peers.csv").query("status == 'done'")
    page, rows = text("docs/peers.md"), cells.groupby("activation", sort=False)
    assert len(cells) == 40 and set(cells["seed"]) == {42} and set(cells["precision"]) == {"float32"}
    for activation, of in rows:
        accuracy = 100 * of.set_index(["network", "dataset"])["best_accuracy"]
        assert " | ".join(f"{accuracy[place]:.1f}" for place in NETWORKS) in page, activation
    for name, count in {"prelu": "570", "swish": "Swish 3", "rational": "21", "leaf-silu": "84,720"}.items():
        layers = build_network("lenet5", "cifar10", name).activations
        parameters = sum(p.numel() for layer in layers if isinstance(layer, Adaptive) for p in layer.parameters())
        assert f"{parameters:,}" == count.split()[-1] and count in page and name in ACTIVATIONS


def test_recurrent_network():
    cells, page = (
        pd.read_csv(PROJECT / "docs/records/recurrent.csv").query("status == 'done'"),
        text("docs/recurrent.md"),
    )
    accuracy = (100 * cells.set_index("activation")["best_accuracy"]).map("{:.1f}".format)
    assert set(cells["seed"]) == {42} and set(cells["best_epoch"]) == {3}
    assert f"| standard GRU | Classic | {accuracy['tanh']} |" in page and accuracy["tanh"] == accuracy["sigmoid"]
    assert f"| LEAF as Tanh | P24Sl | {accuracy['leaf-tanh']} |" in page
    assert f"| LEAF as Sigmoid | P24Sl | {accuracy['leaf-sigmoid']} |" in page


def test_error_rates_of_the_rules():
    """The last column of the table in docs/judged.md, which has every row of the file but those of the 7%."""
    measured = pd.read_csv(BENCHMARK / "verdicts.csv")
    page = (PROJECT / "docs/judged.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| [^|]+ \| ([\d., ]+) \|$", page, re.MULTILINE)
    of_seven = measured[measured["rule"] == "seven_percent"]
    right = [row[row["right"]] for row in of_seven.to_dict("records")]
    assert right and set(right) == {100} and "rule for the 7% is right in all grids" in page
    rows = [
        (row["rule"], row["truth"], row["right"],
         ", ".join(f"{row[verdict]:.3g}" for verdict in ("holds", "does not hold", "undecided")))
        for row in measured.drop(of_seven.index).to_dict("records")
    ]  # fmt: skip
    assert shown == rows
    (clean,) = measured["clean"].unique()
    grids, no_effect = (
        measured.groupby("rule")["grids"].agg(set),
        measured.set_index(["truth", "rule"])["holds"]["no effect"],
    )
    (most,), (fewest,) = grids["better"], grids["initialization"]
    assert clean and grids["lower_loss"] == grids["seven_percent"] == {most}
    words = " ".join(page.split())
    assert f"simulates {most} grids for each known truth ({fewest} for `initialization`)" in words
    assert f"`lower_loss` has {no_effect['lower_loss']}%, and `better` {no_effect['better']}%" in words
    assert 100 * (0.025 * 0.975 / most) ** 0.5 < 0.25 and 100 * (0.25 / fewest) ** 0.5 < 2.25  # standard errors
