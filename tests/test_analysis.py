"""Tables and figures, from synthetic records with known answers and from real files."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROJECT

from leaf import LEAF
from leaf.analysis.analyse import analyse
from leaf.analysis.collection import Records, collect, merge, read_records, write_records
from leaf.analysis.figures import evolution_chart, forms_chart, progress_chart
from leaf.analysis.forest import differences_chart
from leaf.analysis.formats import write_table
from leaf.analysis.forms import CURVE_INPUTS, base_curve, read_forms
from leaf.analysis.initial_forms import ERROR_INPUTS, initial_error, initial_forms_chart
from leaf.analysis.movement import movement_table, reach_table
from leaf.analysis.page import page, side_by_side
from leaf.analysis.products import TABLES
from leaf.analysis.statistics import paired_interval
from leaf.analysis.style import write_figure
from leaf.analysis.tables import overview_table, paper_table, summary_table
from leaf.cli import main
from leaf.experiment import identity
from leaf.experiment.cells import Cell
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.identity import Identity
from leaf.experiment.job import train_cell
from leaf.experiment.outputs import write_tensors
from leaf.experiment.provenance import Execution, Session
from leaf.experiment.records import TRAINING_VERSION, EpochRecord, write_metrics
from leaf.experiment.runs import Run, write_run
from leaf.experiment.scales import Settings

SETTINGS = Settings(epochs=3)
STATISTICS = {"metric": "best_accuracy", "confidence": 0.95}
CHARTS = {"differences": "figures/differences.svg", "claims": "figures/claims.svg"}


def cell(
    activation="relu", procedure="classic", dataset="cifar10", seed=42, optimizer="adam", network="lenet5"
) -> Cell:
    return Cell(network, dataset, activation, procedure, optimizer, seed)


def write_cell(
    made: Cell,
    accuracies: list[float],
    version: int = TRAINING_VERSION,
    diverged: bool = False,
    validations: list[float] | None = None,
    **made_with: str,
) -> None:
    """Write files of a cell with known accuracies and parameters, invented for these unit tests."""
    directory = made.directory("tiny")
    losses = [1 / epoch for epoch in range(1, len(accuracies) + 1)]
    records = [
        EpochRecord(i + 1, loss, 0.1, 1.0, accuracy, validation, 1e-3, None, 2.0 + i)
        for i, (loss, accuracy, validation) in enumerate(
            zip(losses, accuracies, validations or [None] * len(losses), strict=True)
        )
    ]
    forms = {"inputs/activation1": torch.full((256,), 3), "gradient_norms/start": torch.ones(4)}
    if made.activation.startswith("leaf"):
        layer = LEAF((2, 3, 4), made.form)
        with torch.no_grad():
            layer.p4 += torch.arange(24.0).view(2, 3, 4)
        forms |= {f"parameters/activation1.{name}": parameter for name, parameter in layer.named_parameters()}
        quantiles = torch.arange(28.0).view(4, 7) / 10
        forms |= {f"quantiles/activation1.{name}": quantiles + k for k, name in enumerate(layer.parameter_names)}
    write_metrics(directory / "metrics.csv", records)
    write_tensors(directory / "model.safetensors", {"weight": torch.zeros(1)})
    write_tensors(directory / "forms.safetensors", forms)
    made_with = {"device": "CPU", "kernel": "reference", "precision": "float32", **made_with}
    run = Run(
        identity=replace(Identity.of(made, "tiny", SETTINGS), training_version=version),
        scale="tiny",
        sessions=[Session("2026-01-01T00:00:00+00:00", device=made_with.pop("device"), versions={"torch": "2"})],
        execution=Execution(threads=1, **made_with),
        epochs=len(records),
        diverged_at=len(records) if diverged else None,
        nonfinite_layer=None,
        network_parameters=1,
        train_seconds=1.0,
        peak_memory_bytes=1,
    )
    write_run(directory, run)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_results_of_a_cell(project):
    write_cell(cell(), [0.5, 0.8, 0.8])
    (row,) = collect({cell(): ["mine"]}, "tiny", SETTINGS).cells.to_dict("records")
    assert (row["best_accuracy"], row["best_epoch"], row["final_accuracy"]) == (0.8, 2, 0.8)  # the earliest maximum
    assert row["last_epochs_accuracy"] == pytest.approx(0.7)
    assert row["seconds_per_epoch"] == pytest.approx(3.0)
    assert (row["status"], row["experiments"], row["family"], row["form"]) == ("done", "mine", "base", "relu")


def test_an_epoch_chosen_on_validation_images(project):
    write_cell(cell(), [0.5, 0.8, 0.9], validations=[0.4, 0.6, 0.6])
    write_cell(cell("silu"), [0.5, 0.8, 0.9])
    chosen, other = collect({cell(): (), cell("silu"): ()}, "tiny", SETTINGS).cells.to_dict("records")
    assert (chosen["chosen_accuracy"], chosen["chosen_epoch"], chosen["best_accuracy"]) == (0.8, 2, 0.9)
    assert pd.isna(other["chosen_accuracy"]) and pd.isna(other["chosen_epoch"])
    records = collect({cell(): (), cell("silu"): ()}, "tiny", SETTINGS)
    assert summary_table(records)["chosen test accuracy, %"].tolist()[0] == 80
    assert paper_table(records)["CIFAR-10", "chosen"].tolist() == ["80.00", ""]


def test_statuses(project):
    write_cell(cell(), [0.5] * 3)
    write_cell(cell("leaf-relu"), [0.5, 0.1], diverged=True)
    write_cell(cell("silu"), [0.5] * 3, version=TRAINING_VERSION + 1)
    cells = [cell(), cell("leaf-relu"), cell("silu"), cell("tanh")]
    records = collect(dict.fromkeys(cells, ()), "tiny", SETTINGS)
    found = dict(zip(records.cells["activation"], records.cells["status"], strict=True))
    assert found == {"relu": "done", "leaf-relu": "diverged", "silu": "stale", "tanh": "missing"}
    assert set(collect({cell(): ()}, "tiny", Settings(epochs=4)).cells["status"]) == {"stale"}
    table = summary_table(records)
    assert table["status"].tolist() == ["done", "diverged at epoch 2", "stale", "missing"]
    assert table["best test accuracy, %"].isna().tolist() == [False, False, False, True]
    paper = paper_table(records)["CIFAR-10", "best accuracy, %"].tolist()
    assert paper == ["50.00", "50.00 (diverged)", "50.00 (stale)", "missing"]


def test_a_cell_of_an_older_version_is_stale_though_columns_are_missing(project):
    write_cell(cell(), [0.5] * 3, version=TRAINING_VERSION - 1)
    directory = cell().directory("tiny")
    metrics = pd.read_csv(directory / "metrics.csv").drop(columns="validation_accuracy")
    metrics.to_csv(directory / "metrics.csv", index=False)
    write_run(directory, Run.from_json(json.loads((directory / "run.json").read_text())))
    records = collect({cell(): ()}, "tiny", SETTINGS)
    assert records.cells["status"].tolist() == ["stale"] and records.epochs["validation_accuracy"].isna().all()


def test_an_edited_metrics_file_is_reported_and_not_used(project):
    write_cell(cell(), [0.5] * 3)
    file = cell().directory("tiny") / "metrics.csv"
    file.write_text(file.read_text().replace("0.5", "0.9"))
    with pytest.raises(DamagedError, match=r"metrics.csv is not the file that the run wrote"):
        collect({cell(): ()}, "tiny", SETTINGS)
    records = collect({cell(): ()}, "tiny", SETTINGS, tolerant=True)
    assert records.cells["status"].tolist() == ["damaged"]
    assert paper_table(records).iloc[0, 0] == "(damaged)"


def test_paper_table_puts_data_sets_side_by_side_and_rows_in_order(project):
    variants = [("relu", "classic"), ("ahaf-relu", "classic"), ("ahaf-relu", "dspt"), ("leaf-relu", "p24sl")]
    for i, (activation, procedure) in enumerate(variants):
        for dataset, offset in (("fashion_mnist", 0.4), ("cifar10", 0.0)):
            write_cell(cell(activation, procedure, dataset), [0.1 + offset + 0.0123 * i, 0.1])
    cells = [cell(a, p, d) for d in ("cifar10", "fashion_mnist") for a, p in reversed(variants)]
    table = paper_table(collect(dict.fromkeys(cells, ()), "tiny", SETTINGS))
    assert table.index.tolist() == [
        ("ReLU", "N/A", "Classic"), ("AHAF", "ReLU", "Classic"), ("AHAF", "ReLU", "DSPT"), ("LEAF", "ReLU", "P24Sl"),
    ]  # fmt: skip
    assert table["Fashion-MNIST", "best accuracy, %"].tolist() == ["50.00", "51.23", "52.46", "53.69"]
    assert table["CIFAR-10", "epoch"].tolist() == ["1", "1", "1", "1"]


def test_added_records_replace_what_they_have_and_keep_the_rest(project):
    first, second, third = cell("leaf-relu", "p24sl"), cell("relu"), cell("silu")
    grid = {first: ["mine"], second: ["mine", "other"], third: ["mine"]}
    write_cell(first, [0.1, 0.2, 0.3])
    write_cell(second, [0.2, 0.3, 1 / 3])
    old = collect(grid, "tiny", SETTINGS, with_forms=True)
    write_records(old, project / "shipped")
    for made in (first, second):
        shutil.rmtree(made.directory("tiny"))
    write_cell(first, [0.7, 0.8, 0.9])
    write_cell(third, [0.5, 0.5, 0.6])
    new = collect(grid, "tiny", SETTINGS, with_forms=True)
    merged = merge(read_records(project / "shipped"), new)
    assert merged.cells["cell"].tolist() == old.cells["cell"].tolist()  # in the paper's order, whoever came first
    best = dict(zip(merged.cells["cell"], merged.cells["best_accuracy"], strict=True))
    assert best == {second.name: 1 / 3, first.name: 0.9, third.name: 0.6}  # to the last bit
    assert dict(zip(merged.cells["cell"], merged.cells["experiments"], strict=True))[second.name] == "mine other"
    assert merged.epochs["test_accuracy"].tolist() == [0.2, 0.3, 1 / 3, 0.7, 0.8, 0.9, 0.5, 0.5, 0.6]
    assert set(merged.forms) == {first.name, second.name, third.name}


def test_records_without_their_model_are_accepted_on_request_and_marked(project):
    whole, without = cell("relu"), cell("silu")
    for made in (whole, without):
        write_cell(made, [0.5] * 3)
    (without.directory("tiny") / "model.safetensors").unlink()
    cells: dict[Cell, tuple[str, ...]] = dict.fromkeys([whole, without, cell("tanh")], ())
    with pytest.raises(DamagedError, match=r"model.safetensors is missing"):
        collect(cells, "tiny", SETTINGS)
    write_records(collect(cells, "tiny", SETTINGS, without_models=True), project / "shipped")
    found = read_records(project / "shipped").cells
    assert found["status"].tolist() == ["done", "done", "missing"]
    assert found["with_model"].tolist()[:2] == [True, False] and pd.isna(found["with_model"].tolist()[2])


@pytest.mark.parametrize("name", ["metrics.csv", "forms.safetensors", "model.safetensors"])
def test_without_models_other_damage_stays_damage(project, name):
    write_cell(cell(), [0.5] * 3)
    file = cell().directory("tiny") / name
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DamagedError, match=f"{name} is not the file that the run wrote"):
        collect({cell(): ()}, "tiny", SETTINGS, without_models=True)
    if name != "model.safetensors":
        file.unlink()
        with pytest.raises(DamagedError, match=f"{name} is missing"):
            collect({cell(): ()}, "tiny", SETTINGS, without_models=True)


def test_records_of_another_scale_are_not_mixed_in(project):
    write_cell(cell("relu"), [0.1, 0.2, 0.3])
    records = collect({cell("relu"): ["mine"]}, "tiny", SETTINGS)
    others = replace(records, cells=records.cells.assign(scale="paper"))
    with pytest.raises(UserError, match="records are of the scale paper, the new ones of tiny: pass --scale paper"):
        merge(others, records)


def test_a_stale_cell_replaces_nothing_and_brings_all_it_has_where_there_was_nothing(project):
    first, second = cell("leaf-relu", "p24sl"), cell("leaf-silu", "p24sl")
    grid = {first: ["mine"], second: ["mine"]}
    write_cell(first, [0.1, 0.2, 0.3])
    old = collect(grid, "tiny", SETTINGS, with_forms=True)
    for made in (first, second):
        write_cell(made, [0.7, 0.8, 0.9], version=TRAINING_VERSION + 1)
    new = collect(grid, "tiny", SETTINGS, with_forms=True)
    new.forms[first.name] = {"curves/activation1": np.full((1, 140), 7, np.float32)}
    merged = merge(old, new)
    assert merged.cells["status"].tolist() == ["done", "stale"]
    assert merged.epochs["test_accuracy"].tolist() == [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]
    assert merged.forms[first.name] is old.forms[first.name] and second.name in merged.forms


def test_collected_records_of_another_training_version_are_stale(project):
    write_cell(cell(), [0.5] * 3)
    records = collect({cell(): ["mine"]}, "tiny", SETTINGS)
    write_records(records, project / "shipped")
    assert read_records(project / "shipped").cells["status"].tolist() == ["done"]
    write_records(replace(records, cells=records.cells.assign(training_version=TRAINING_VERSION + 1)), project / "old")
    assert read_records(project / "old").cells["status"].tolist() == ["stale"]


def test_several_seeds(project):
    for seed, accuracy in ((1, 0.5), (2, 0.6), (3, 0.7)):
        write_cell(cell(seed=seed), [0.1] * (seed - 1) + [accuracy])
    table = paper_table(collect({cell(seed=seed): () for seed in (1, 2, 3, 4)}, "tiny", SETTINGS))
    assert table.iloc[0].tolist() == [
        "60.00 ± 10.00 (3) 1 of 4 missing", "1–3", "60.00 ± 10.00 (3)", "38.33 ± 10.41 (3)",
    ]  # fmt: skip
    chart = progress_chart(collect({cell(seed=seed): () for seed in (1, 2, 3)}, "tiny", SETTINGS))
    (line,) = chart.axes[0].lines
    assert line.get_ydata().tolist() == pytest.approx([np.mean([50, 10, 10]), np.mean([60, 10]), 70])


def test_formats_hold_the_same_numbers(project):
    write_cell(cell(), [0.512, 0.3])
    write_cell(cell("leaf-relu", "p24sl"), [0.634])
    table = paper_table(collect({cell(): (), cell("leaf-relu", "p24sl"): ()}, "tiny", SETTINGS))
    for suffix in ("csv", "tex", "md", "html"):
        write_table(table, project / f"table.{suffix}")
        text = (project / f"table.{suffix}").read_text()
        assert re.findall(r"\d\d\.\d\d", text) == ["51.20", "30.00", "40.60", "63.40", "63.40", "63.40"], suffix
    latex = (project / "table.tex").read_text()
    assert r"\toprule" in latex and r"best accuracy, \%" in latex and latex.count(r"\\") >= 4
    html = (project / "table.html").read_text()
    assert html.startswith("<!DOCTYPE html>") and "N/A" in html


def test_cells_that_round_differently_are_noted_below_their_table(project):
    base, learnable = [cell(seed=seed) for seed in (1, 2, 3, 4)], cell("leaf-relu", "p24sl")
    rival = cell("prelu")  # which no kernel but torch's own computes
    for made in (*base, rival):
        write_cell(made, [0.5], kernel="reference", device="CPU")
    write_cell(learnable, [0.6], kernel="numba", device="CPU")
    alike = collect(dict.fromkeys([*base, rival, learnable, cell("silu")], ()), "tiny", SETTINGS)
    for kind in ("paper", "summary", "differences", "best_epoch", "claims"):
        assert TABLES[kind].make(alike, STATISTICS).attrs["notes"] == []

    write_cell(learnable, [0.6], kernel="triton", device="GPU & <more>", precision="bfloat16")
    other = cell("leaf-silu", "p24sl")
    write_cell(other, [0.6], kernel="numba", device="CPU")
    records = collect(dict.fromkeys([*base, learnable, other], ()), "tiny", SETTINGS)
    rounding = "their results differ by rounding, which training amplifies."
    device, kernel, precision = TABLES["differences"].make(records, STATISTICS).attrs["notes"]
    assert device == f"Of these cells, 5 on CPU, 1 on GPU & <more> ({learnable.name}): {rounding}"
    assert "1 with kernel numba" in kernel and f"1 with kernel triton ({learnable.name})" in kernel
    assert precision == f"Of these cells, 5 in float32, 1 in bfloat16 ({learnable.name}): {rounding}"
    table = TABLES["paper"].make(records, STATISTICS)
    for suffix, said in {"md": "GPU & <more>", "html": "GPU &amp; &lt;more&gt;", "tex": r"GPU \& <more>"}.items():
        write_table(table, project / f"table.{suffix}")
        assert f"5 on CPU, 1 on {said}" in (project / f"table.{suffix}").read_text()
    write_table(table, project / "table.csv")
    assert len(pd.read_csv(project / "table.csv")) == len(table)
    write_table(TABLES["claims"].make(records, STATISTICS), project / "claims.rst")
    assert device in (project / "claims.rst").read_text()
    assert "notes" not in TABLES["overview"].make(records, STATISTICS).attrs


def test_tables_name_precision_and_device_where_they_mix_them(project):
    base, learnable = cell("tanh"), cell("leaf-tanh", "p24sl")
    write_cell(base, [0.5], device="CPU (one)", precision="float32")
    write_cell(learnable, [0.6], device="CPU (another)", precision="float32")
    alike = collect({base: (), learnable: (), cell("silu"): ()}, "tiny", SETTINGS)
    assert "computed in" not in paper_table(alike)["CIFAR-10"] and "precision" not in summary_table(alike)
    write_cell(learnable, [0.6], device="GPU, a fast one", precision="tf32")
    mixed = collect({base: (), learnable: (), cell("silu"): ()}, "tiny", SETTINGS)
    assert paper_table(mixed)["CIFAR-10", "computed in"].tolist() == ["", "float32 on CPU", "tf32 on GPU"]
    assert summary_table(mixed)["precision"].tolist()[1:] == ["float32", "tf32"]
    assert summary_table(mixed)["device"].tolist()[1:] == ["CPU (one)", "GPU, a fast one"]
    for kind in ("differences", "claims"):
        notes = TABLES[kind].make(mixed, STATISTICS).attrs["notes"]
        assert f"{learnable.name} (tf32 on GPU) against {base.name} (float32 on CPU)" in notes[-1]


def test_progress_chart_shows_the_records(project):
    for activation, procedure in (("silu", "classic"), ("leaf-silu", "p24sl")):
        write_cell(cell(activation, procedure), [0.2, 0.4, 0.3])
    chart = progress_chart(collect({cell("silu"): (), cell("leaf-silu", "p24sl"): ()}, "tiny", SETTINGS))
    accuracy, plateau, loss = chart.axes
    assert [line.get_label() for line in accuracy.lines] == ["SiLU", "LEAF as SiLU, P24Sl"]
    assert accuracy.lines[1].get_xdata().tolist() == [1, 2, 3]
    assert accuracy.lines[1].get_ydata().tolist() == pytest.approx([20, 40, 30])
    assert plateau.lines[1].get_ydata().tolist() == pytest.approx([40, 30])
    assert loss.lines[0].get_ydata().tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    titles = [axis.get_title() for axis in chart.axes]
    assert titles == ["test accuracy, %", "from epoch 2, %", "training loss"]
    assert {axis.get_xlabel() for axis in chart.axes} == {"epoch"}
    plt.close(chart)


def test_progress_chart_has_a_row_per_family_and_nothing_of_cells_without_results(project):
    trained = [cell("relu"), cell("ahaf-relu"), cell("leaf-relu", "p24sl")]
    for made in trained:
        write_cell(made, [0.2, 0.4])
    records = collect(dict.fromkeys([*trained, cell("leaf-relu", "dspt-p24sl")], ()), "tiny", SETTINGS)
    chart = progress_chart(records)
    rows = [[line.get_label() for line in chart.axes[row].lines] for row in (0, 3)]
    assert len(chart.axes) == 6 and rows == [["ReLU", "AHAF as ReLU"], ["ReLU", "LEAF as ReLU, P24Sl"]]
    (legend,) = chart.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ReLU", "AHAF as ReLU", "LEAF as ReLU, P24Sl"]
    plt.close(chart)


def test_charts_without_data_are_left_out(project):
    write_cell(cell("relu"), [0.2, 0.4])
    records = collect({cell("relu"): ["mine"], cell("silu"): ["mine"]}, "tiny", SETTINGS, with_forms=True)
    analyse(records, project / "report", "svg", STATISTICS)
    assert [file.name for file in (project / "report/figures/mine").rglob("*.svg")] == ["relu.svg"]


def test_stability_lines_are_distinguished_by_optimizer(project):
    cells = [cell("leaf-relu", "classic", optimizer=optimizer) for optimizer in ("adam", "rmsprop")]
    for made in cells:
        write_cell(made, [0.2])
    chart = progress_chart(collect(dict.fromkeys(cells, ()), "tiny", SETTINGS))
    labels = [line.get_label() for line in chart.axes[0].lines]
    assert labels == ["LEAF as ReLU, Adam, Classic", "LEAF as ReLU, RMSprop, Classic"]
    plt.close(chart)


def test_learned_curves(project):
    made = cell("leaf-tanh", "p24sl")
    write_cell(made, [0.2])
    forms = read_forms(made, made.directory("tiny"))
    curves = forms["curves/activation1"]
    shifts = curves - np.tanh(CURVE_INPUTS.astype(np.float64))  # unit k was lifted by k
    assert curves.shape == (5, 140) and CURVE_INPUTS[0] == -10 and CURVE_INPUTS[-1] == pytest.approx(3.9)
    np.testing.assert_allclose(shifts, shifts[:, :1].round() * np.ones(140), atol=1e-5)
    units = shifts[:, 0].round().astype(int)
    assert len(set(units)) == 5
    np.testing.assert_allclose(forms["bands/activation1"][3], np.tanh(CURVE_INPUTS) + 11.5, atol=1e-4)
    other = cell("leaf-silu", "dspt-p24sl")
    write_cell(other, [0.2])
    lifted = read_forms(other, other.directory("tiny"))["curves/activation1"] - base_curve("silu")
    assert lifted[:, 0].round().astype(int).tolist() == units.tolist()  # the same units in every cell


@pytest.mark.parametrize("table", ["matches", "movement"])
def test_stale_curves_are_named_under_the_table_that_shows_them(project, table):
    cells = [cell("leaf-tanh", "p24sl", seed=seed) for seed in (42, 43)] + [cell("tanh", seed=43)]
    for made in cells:
        write_cell(made, [0.2], version=TRAINING_VERSION - (made.seed == 43))
    records = collect(dict.fromkeys(cells, ()), "tiny", SETTINGS, with_forms=True)
    notes = TABLES[table].make(records).attrs["notes"]
    assert notes[-1].endswith(f"training version: 1 ({cells[1].name}).")
    current = TABLES[table].make(records.select(seed=42)).attrs["notes"]
    assert not any("stale" in note for note in current)


def test_the_older_range_of_inputs_is_named_under_the_table_of_matches(project):
    cells = [cell("leaf-tanh", "p24sl"), cell("leaf-silu", "p24sl")]
    for made in cells:
        write_cell(made, [0.2])  # 3 inputs in each of 256 bins, without edges
    older = collect(dict.fromkeys(cells, ()), "tiny", SETTINGS, with_forms=True)
    edges = {"input_edges/activation1": np.linspace(-40, 40, 257)}
    mixed = replace(
        older, forms={name: forms | (edges if "silu" in name else {}) for name, forms in older.forms.items()}
    )
    newer = mixed.select(activation="leaf-silu")
    (note,) = TABLES["matches"].make(mixed).attrs["notes"]
    assert note.startswith("1 of 2 cells were recorded with histograms that end at ±16")
    assert note.endswith(f"at most 0.8% of a layer's (activation1 of {cells[0].name}).")
    assert TABLES["matches"].make(older).attrs["notes"][0].startswith("2 of 2 cells")
    assert TABLES["matches"].make(newer).attrs["notes"] == []
    for records, place in ((older, "16"), (newer, "40")):
        chart = forms_chart(records.select(activation="leaf-silu"))
        (bars,) = chart.axes[1].patches
        assert f"{bars.get_data().edges[-1]:g}" == place
        plt.close(chart)


def test_evolution_chart_shows_the_quantiles(project):
    made = cell("leaf-tanh", "p24sl")
    write_cell(made, [0.2, 0.2, 0.2])
    chart = evolution_chart(collect({made: ()}, "tiny", SETTINGS, with_forms=True))
    above, *below = chart.axes
    for k, axis in enumerate(below):  # of p1, p2, p3, p4
        assert axis.get_ylabel() == f"p{k + 1}"
        assert axis.lines[0].get_xdata().tolist() == [0, 1, 2, 3]
        assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.3 + k, 1.0 + k, 1.7 + k, 2.4 + k])
        widest, half = (band.get_datalim(axis.transData).intervaly for band in axis.collections)
        assert widest.tolist() == pytest.approx([0.1 + k, 2.6 + k])
        assert half.tolist() == pytest.approx([0.2 + k, 2.5 + k])
    assert [line.get_label() for line in above.lines] == ["epoch 0", "epoch 1", "epoch 3"]
    p1, p2, p3, p4 = (2.4 + k for k in range(4))
    u = CURVE_INPUTS.astype(np.float64)
    np.testing.assert_allclose(above.lines[2].get_ydata(), (p1 * u + p2) / (1 + np.exp(-p3 * u)) + p4, rtol=1e-5)
    plt.close(chart)


def test_movement_is_the_change_from_the_initial_value(project):
    made = cell("leaf-tanh", "p24sl")
    write_cell(made, [0.2, 0.2, 0.2])  # quantiles of p1 from 0, 0.1 … 0.6 to 2.1, 2.2 … 2.7; of p2 one more, …
    other = cell("leaf-tanh", "p24sl", seed=43)
    write_cell(other, [0.2])
    records = collect({made: (), other: (), cell("tanh"): ()}, "tiny", SETTINGS, with_forms=True)
    for forms in records.forms.values():  # an initial value is the same for all elements
        for name in [name for name in forms if name.startswith("quantiles/")]:
            forms[name][0] = 5.0
    records.forms[other.name]["quantiles/activation1.p2"][-1] = 5.25
    table = movement_table(records)
    assert table["parameter"].tolist() == ["p1", "p2", "p3", "p4"] and set(table["seeds"]) == {2}
    p1, p2 = table.to_dict("records")[:2]
    assert (p1["start"], p1["change, 5%"], p1["change, 50%"], p1["change, 95%"]) == ("5", "-2.8", "-2.6", "-2.4")
    assert p2["change, 50%"] == f"{(0.25 + 3.4 - 5) / 2:+.3g}"  # the mean of the two seeds
    (reach,) = reach_table(records).to_dict("records")
    assert reach["p1"] == pytest.approx(2.8) and reach["p2"] == pytest.approx(1.8) and reach["slow"]


def test_forest_plot_shows_every_difference_and_its_interval(project):
    seeds = (1, 2, 3)
    for seed, base, learnable in zip(seeds, (0.5, 0.52, 0.51), (0.56, 0.59, 0.56), strict=True):
        write_cell(cell("tanh", seed=seed), [base])
        write_cell(cell("leaf-tanh", "p24sl", seed=seed), [learnable])
    write_cell(cell("silu"), [0.6])
    write_cell(cell("ahaf-silu"), [0.58])
    cells = [
        cell(name, procedure, seed=seed)
        for name, procedure in (("tanh", "classic"), ("leaf-tanh", "p24sl"))
        for seed in seeds
    ]
    cells += [cell("silu"), cell("ahaf-silu"), cell("relu", dataset="fashion_mnist")]
    records = collect(dict.fromkeys(cells, ()), "tiny", SETTINGS)
    chart = differences_chart(records, **STATISTICS)
    (axis,) = chart.axes
    words = [text.get_text() for text in axis.texts]
    low, high, *_ = paired_interval([6, 7, 5], 0.95)
    points = {float(line.get_xdata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
    assert points == {6.0, -2.0}
    (interval,) = (line for line in axis.lines if len(set(line.get_xdata())) == 2)
    assert sorted(interval.get_xdata()) == pytest.approx([low, high], abs=0.005)
    hollow = [line.get_markerfacecolor() == "white" for line in axis.lines if line.get_marker() in ("o", "s")]
    assert sorted(hollow) == [False, True]
    assert words == [
        "points", "95% interval", "seeds", "LeNet-5, Fashion-MNIST", "no pair trained yet", "LeNet-5, CIFAR-10", "",
        "AHAF as SiLU", "\N{MINUS SIGN}2.00", "1",
        "LEAF as Tanh, P24Sl", "+6.00", "3", f"[{low:+.2f}, {high:+.2f}]",
    ]  # fmt: skip
    plt.close(chart)
    nothing = differences_chart(collect({cell("relu"): ()}, "tiny", SETTINGS), **STATISTICS)
    assert [text.get_text() for text in nothing.axes[0].texts][3:] == ["LeNet-5, CIFAR-10", "no pair trained yet"]
    plt.close(nothing)


def test_the_forest_plot_aligns_the_widest_numbers_without_overlap(project):
    cells = []
    for name, procedure, accuracies in (("tanh", "classic", (0.95, 0.8)), ("leaf-tanh", "p24sl", (0.15, 0.1))):
        for seed, accuracy in enumerate(accuracies):
            cells.append(cell(name, procedure, seed=seed))
            write_cell(cells[-1], [accuracy])
    cells += [cell("silu"), cell("ahaf-silu")]
    write_cell(cells[-2], [0.6])
    write_cell(cells[-1], [0.58])
    chart = differences_chart(collect(dict.fromkeys(cells, ()), "tiny", SETTINGS), **STATISTICS)
    chart.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in chart.axes[0].texts if text.get_text()}
    minus = "\N{MINUS SIGN}"
    assert {f"{minus}75.00", f"{minus}2.00"} < boxes.keys()
    assert boxes[f"{minus}75.00"].x1 == pytest.approx(boxes[f"{minus}2.00"].x1) == pytest.approx(boxes["points"].x1)
    assert not [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert all(chart.bbox.x0 <= box.x0 and box.x1 <= chart.bbox.x1 for box in boxes.values())
    plt.close(chart)


def test_the_page_puts_both_networks_side_by_side_and_lists_what_is_missing(project):
    made = [cell("tanh"), cell("leaf-tanh", "p24sl"), *(cell("tanh", network="kerasnet", seed=seed) for seed in (1, 2))]
    for one in made:
        write_cell(one, [0.5, 0.6123, 0.4])
    absent = [cell("tanh", network="kerasnet", seed=3), cell("leaf-tanh", "p24sl", "fashion_mnist")]
    records = collect(dict.fromkeys([*made, *absent, cell("affine-tanh")], ()), "tiny", SETTINGS, with_forms=True)
    table = side_by_side(records)
    assert list(table) == [
        "starts as", "activation", "procedure", "LeNet-5, Fashion-MNIST", "LeNet-5, CIFAR-10",
        "KerasNet, Fashion-MNIST", "KerasNet, CIFAR-10",
    ]  # fmt: skip
    assert table.to_numpy().tolist() == [
        ["Tanh", "Tanh", "Classic", "", "61.23 (2)", "", "61.23 ± 0.00 (2 of 3)"],
        ["Tanh", "LEAF", "P24Sl", "—", "61.23 (2)", "", ""],
    ]
    text = page(records, CHARTS, STATISTICS, "## By hand\n")
    assert "4 of 7 cells are trained" in text and text.endswith("## By hand\n")
    assert "](figures/differences.svg)" in text and "](figures/claims.svg)" in text and "](./best.csv)" in text
    assert "still open: the claim is about the scale paper, this is tiny" in text
    write_cell(made[1], [0.5], precision="bfloat16")
    mixed = page(collect(dict.fromkeys(made, ()), "tiny", SETTINGS), CHARTS, STATISTICS, "")
    assert "61.23 (2) float32 on CPU" in mixed and "KerasNet, CIFAR-10 (float32 on CPU)" in mixed
    assert "Excluded from differences and verdicts" in mixed


def test_initial_errors():
    u = ERROR_INPUTS
    step = 1 / (1 + np.exp(-np.clip(65536 * u, -700, 700)))
    np.testing.assert_allclose(initial_error("leaf-relu", torch.float64), (u * step - u * (u > 0)) ** 2, atol=1e-30)
    assert 0 < initial_error("ahaf-silu", torch.float32).max() < 1e-11
    assert initial_error("leaf-tanh", torch.float64).max() < 1e-30 < initial_error("leaf-tanh", torch.float32).max()
    chart = initial_forms_chart()
    assert [axis.get_title() for axis in chart.axes][3:] == ["LEAF as SiLU", "LEAF as Tanh", ""]
    assert [text.get_text() for text in chart.axes[5].texts] == ["Exact in every format:\nLEAF as Sigmoid"]
    labelled = [axis.xaxis.get_tick_params()["labelbottom"] for axis in chart.axes[:5]]
    assert labelled == [False, False, True, True, True]  # the lowest panel of each column
    line = chart.axes[3].lines[0]
    assert np.nanmax(line.get_ydata()) == initial_error("leaf-silu", torch.float32).max()
    plt.close(chart)


def test_overview_counts_what_ran(project):
    write_cell(cell(), [0.5] * 3)  # of 2, 3 and 4 seconds
    write_cell(cell("leaf-relu"), [0.5, 0.1], diverged=True)  # of 2 and 3
    records = collect(dict.fromkeys([cell(), cell("leaf-relu"), cell("silu")], ()), "tiny", SETTINGS)
    (row,) = overview_table(records).to_dict("records")
    assert (row["cells"], row["done"], row["diverged"], row["missing"], row["stale"]) == (3, 1, 1, 1, 0)
    assert row["which diverged"] == "leaf-relu/classic/adam/seed42 at epoch 2"
    assert row["hours of training"] == pytest.approx((9 + 5) / 3600, abs=0.005)
    write_table(overview_table(records), project / "short.rst")
    assert re.search(r"LeNet-5 +CIFAR-10 +3 +1 +1 +0 +1", (project / "short.rst").read_text())


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="LaTeX is not installed")
def test_latex_compiles(project):
    cells = [cell(), *(cell("leaf-relu", "p24sl", seed=seed) for seed in (1, 2))]
    for made, device in zip(cells[:2], ("CPU", "GPU, 50% & more"), strict=True):
        write_cell(made, [0.512, 0.3], device=device)
    records = collect({made: ["mine"] for made in cells}, "tiny", SETTINGS, with_forms=True)
    analyse(records, project / "report", "svg", STATISTICS)
    tables = sorted((project / "report").rglob("*.tex"))
    assert len(tables) == 8
    document = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}"]
    document += [f"\\input{{{file.with_suffix('')}}}\\par" for file in tables]
    (project / "all.tex").write_text("\n".join([*document, "\\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project)
    assert done.returncode == 0, done.stdout[-2000:]


def test_figures_are_the_same_bytes_each_time(project):
    made = cell("leaf-tanh", "p24sl")
    write_cell(made, [0.2])
    for name in ("a", "b"):
        records = collect({made: ()}, "tiny", SETTINGS, with_forms=True)
        write_figure(forms_chart(records), project / f"{name}.svg")
        write_figure(progress_chart(records), project / f"{name}-progress.svg")
    assert (project / "a.svg").read_bytes() == (project / "b.svg").read_bytes()
    assert (project / "a-progress.svg").read_bytes() == (project / "b-progress.svg").read_bytes()


def read_all(directory) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for kind in ("tables", "figures")
        for file in sorted((directory / kind).rglob("*.*"))
    }


@pytest.mark.slow
def test_collected_records_give_the_same_tables_and_figures(project):
    done, missing = cell("leaf-tanh", "p24sl"), cell("tanh")
    write_cell(done, [0.2, 0.5, 0.4])
    records = collect({done: ["mine", "other"], missing: ["mine"]}, "tiny", SETTINGS, with_forms=True)
    analyse(records, project / "direct", "svg", STATISTICS)
    write_records(records, project / "collected")
    again = read_records(project / "collected")
    analyse(again, project / "collected", "svg", STATISTICS)
    assert read_all(project / "direct") == read_all(project / "collected") != {}
    pd.testing.assert_frame_equal(records.epochs, again.epochs)
    assert {"tables/mine/lenet5/paper.tex", "tables/other/lenet5/cifar10.csv", f"figures/forms/{done.name}.svg"} <= set(
        read_all(project / "direct")
    )
    assert (project / "collected/forms.safetensors").stat().st_size < 100_000


def test_collecting_by_command(data, project):
    """A trained cell, one that is not in the configuration, and missing cells."""
    for name in ("config.yaml", "workflow", "resources"):
        os.symlink(PROJECT / name, project / name)
    settings = Settings(epochs=1, train_images=256, test_images=100)
    own = cell("leaf-tanh", "p24sl", "fashion_mnist", seed=5)
    train_cell(cell("relu", dataset="fashion_mnist"), "tiny", settings, "cpu", log=lambda line: None)
    train_cell(own, "tiny", settings, "cpu", log=lambda line: None)
    overrides = json.dumps(
        {
            "scale": "tiny",
            "scales": {"tiny": {"extends": "quick", "epochs": 1, "train_images": 256, "test_images": 100}},
        }
    )
    (own.directory("tiny") / "model.safetensors").unlink()
    main(["collect", "--config", overrides, "--output", "here"])
    assert read_records(project / "here").cells["status"].value_counts()["damaged"] == 1
    main(["collect", "--config", overrides, "--output", "here", "--without-models"])
    main(["analyse", "here", "--config", overrides])
    records: Records = read_records(project / "here")
    assert records.cells["status"].value_counts().to_dict() == {"missing": 67, "done": 2}
    alone = records.select(seed=5)
    assert alone.cells["with_model"].tolist() == [False]
    assert alone.cells["experiments"].tolist() == [""]
    assert set(alone.epochs["cell"]) == set(alone.forms) == {own.name} < set(records.epochs["cell"])
    table = (project / "here/tables/linear_units/lenet5/paper.md").read_text()
    assert (project / "here/README.md").read_text().startswith("# Results at the scale tiny")
    assert "missing" in table and re.search(r"ReLU +\| N/A +\| Classic +\| \d\d\.\d\d", table)


def test_adding_keeps_the_experiments_of_cells_whose_results_are_elsewhere(project):
    for name in ("config.yaml", "workflow"):
        os.symlink(PROJECT / name, project / name)
    first, second = cell("leaf-tanh", "p24sl", seed=42), cell("affine-tanh", seed=42)
    overrides = json.dumps({"scale": "tiny", "scales": {"tiny": {"extends": "quick", "seeds": None}}})
    for made, other in ((cell("tanh", seed=100), first), (second, None)):
        for new in filter(None, (made, other)):
            write_cell(new, [0.2])
        main(["collect", "--add", "--config", overrides, "--output", "here"])
        shutil.rmtree(project / "results")
    experiments = read_records(project / "here").cells.set_index("cell")["experiments"]
    assert experiments[first.name] == "bounded_functions bounded_initialization capacity frozen_parameters"
    assert experiments[second.name] == "capacity"


def test_raising_the_training_version_is_seen(project, monkeypatch):
    write_cell(cell(), [0.5] * 3)
    monkeypatch.setattr(identity, "TRAINING_VERSION", TRAINING_VERSION + 1)
    records = collect({cell(): ()}, "tiny", SETTINGS)
    assert paper_table(records).iloc[0, 0] == "50.00 (stale)"
