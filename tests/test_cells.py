"""Cells, scales and the configuration: their expansion, and the messages for invalid ones."""

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
import yaml

from leaf.cli import main
from leaf.experiment.cells import Cell, check_result_path
from leaf.experiment.config import CONFIG, check_config, read_config
from leaf.experiment.errors import UserError
from leaf.experiment.scales import SCALES, Scale, Settings, resolve_scales

EXAMPLE = "lenet5/cifar10/leaf-tanh/p24sl/adam/seed42"


def config_with(**changes):
    return {**yaml.safe_load(CONFIG.read_text()), **changes}


def experiment(**changes):
    whole = {
        "title": "Mine",
        "networks": ["lenet5"],
        "datasets": ["cifar10"],
        "activations": ["relu"],
        "procedures": ["classic"],
        "optimizers": ["adam"],
        "seeds": [1],
        "cells": [{}],
    }
    return {"mine": {**whole, **changes}}


def test_the_papers_grid():
    config = read_config()
    sizes = {name: len(config.cells([name], "paper")) for name in config.experiments}
    assert sizes == {
        "linear_units": 40, "bounded_functions": 24, "relu_stability": 5, "weight_initialization": 100,
        "bounded_initialization": 60, "sound_protocol": 160, "capacity": 100,
        "frozen_parameters": 25, "learning_rates": 60, "residual_network": 12,
    }  # fmt: skip
    cells = config.cells(scale="paper")
    assert len(cells) == len(set(cells)) == 148
    assert Counter(cell.dataset for cell in cells) == {"fashion_mnist": 32, "cifar10": 116}
    shared = set(config.cells(["linear_units"], "paper")) & set(config.cells(["weight_initialization"], "paper"))
    assert len(shared) == 20
    everywhere = Cell("kerasnet", "cifar10", "leaf-relu", "p24sl", "adam", 42)
    assert sum(everywhere in config.cells([name], "paper") for name in config.experiments) == 3


def test_cells_come_in_the_papers_order():
    cells = read_config().cells(["linear_units"], "paper")
    assert [(cell.activation, cell.procedure) for cell in cells[:10]] == [
        ("relu", "classic"), ("ahaf-relu", "classic"), ("ahaf-relu", "dspt"),
        ("leaf-relu", "p24sl"), ("leaf-relu", "dspt-p24sl"),
        ("silu", "classic"), ("ahaf-silu", "classic"), ("ahaf-silu", "dspt"),
        ("leaf-silu", "p24sl"), ("leaf-silu", "dspt-p24sl"),
    ]  # fmt: skip


def test_quick_keeps_every_experiment_network_dataset_activation_and_procedure():
    config = read_config()
    for name in config.experiments:
        for field in ("network", "dataset", "activation", "procedure", "optimizer"):
            paper, quick = ({getattr(c, field) for c in config.cells([name], scale)} for scale in ("paper", "quick"))
            assert quick == paper


def test_an_experiment_outside_all_does_not_count():
    values = config_with()
    values["experiments"] = {**values["experiments"], **experiment(activations=["tanh"])}
    config = check_config(values)
    assert len(config.cells(scale="paper")) == 148
    assert len(config.cells(["mine"])) == 1


def test_names_and_directories():
    cell = Cell("lenet5", "cifar10", "leaf-tanh", "p24sl", "adam", 42)
    assert cell.name == EXAMPLE and Cell.parse(EXAMPLE) == cell
    assert str(cell.directory("quick")) == f"results/quick/{EXAMPLE}"
    for cell in read_config().cells(scale="paper"):
        assert Cell.parse(cell.name) == cell


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet5/cifar10/ahaf-tanh/classic/adam/seed1", "unknown activation 'ahaf-tanh'"),
        ("lenet5/cifar10/relu/p24sl/adam/seed1", "'p24sl' slows down p2 and p4 and 'relu' has neither"),
        ("lenet5/cifar10/ahaf-relu/p24sl/adam/seed1", "'p24sl' slows down p2 and p4 and 'ahaf-relu' has neither"),
        ("lenet5/cifar10/silu/dspt/adam/seed1", "'dspt' trains activation parameters.*'silu' has none"),
        ("lenet6/cifar10/silu/classic/adam/seed1", "unknown network 'lenet6'.*did you mean 'lenet5'.*kerasnet"),
        ("lenet5/cifar10/silu/classic/adam/seed4294967296", "seed 4294967296 is not between"),
        ("lenet5/cifar10/silu/classic/adam/42", "names no cell"),
        ("lenet5/cifar10/silu", "names no cell"),
        ("lenet5/cifar10/silu/classic/adam/seed042", "its seed is written seed42"),
    ],
)
def test_invalid_cells(name, message):
    with pytest.raises(UserError, match=message) as error:
        Cell.parse(name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_result_paths():
    check_result_path(f"results/quick/{EXAMPLE}/metrics.csv", SCALES)
    check_result_path("reports/anything", SCALES)
    for path, message in {
        f"results/qiuck/{EXAMPLE}/metrics.csv": "scales quick, paper",
        f"results/quick/{EXAMPLE}/metric.csv": "its files are metrics.csv",
        "results/quick/lenet5/cifar10/leaf-tan/p24sl/adam/seed42/run.json": "did you mean 'leaf-tanh'",
        "results/quick/lenet5/cifar10/leaf-tanh/patch50-p24sl/adam/seed42/run.json": "needs more than 3 epochs",
    }.items():
        with pytest.raises(UserError, match=message):
            check_result_path(path, SCALES)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "linear_unit",
            "unknown target 'linear_unit' .did you mean 'linear_units'..; known: all, linear_units, or a file",
        ),
        ("Linear_Units", "unknown target 'Linear_Units' .did you mean 'linear_units'"),
        ("linear_units/", "target 'linear_units/': ends with a slash; write linear_units"),
        ("paper", "target 'paper' is a scale: choose it with --config scale=paper"),
        (EXAMPLE, f"is a cell: name a file of its results, such as results/quick/{EXAMPLE}/run.json"),
        (f"{EXAMPLE}/metrics.csv", f"such as results/quick/{EXAMPLE}/metrics.csv"),
        (EXAMPLE.replace("tanh", "tan"), "unknown activation 'leaf-tan'.*did you mean"),
        (f"results/quick/{EXAMPLE}/", "a cell's directory; ask for one of its files, metrics.csv"),
        ("README.md", "unknown target 'README.md'; known: "),
        ("reports/quick/clams.csv", "unknown target 'reports/quick/clams.csv'; known: "),
        ("HERE/made", "name the file by its path from the working directory: made"),
    ],
)
def test_unknown_targets(target, message):
    with pytest.raises(UserError, match=message) as error:
        read_config().check_target(
            target.replace("HERE", str(Path.cwd())), ["all", "linear_units"], lambda file: file == "made"
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["all", "linear_units", "made", "./made/", f"results//quick/{EXAMPLE}/run.json"])
def test_known_targets(target):
    read_config().check_target(
        target, ["all", "linear_units"], {"made", f"results/quick/{EXAMPLE}/run.json"}.__contains__
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scal": "quick"}, r"unknown key 'scal' .did you mean 'scale'..; known: scale, scales"),
        ({"scale": "papre"}, r"unknown scale 'papre' .did you mean 'paper'..; known: quick, paper, sound"),
        ({"scale": 3}, "scale: expected string, found 3"),
        ({"device": "tpu"}, "device: 'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        ({"figure_format": "gif"}, "figure_format: 'gif' is not one of"),
        ({"scales": {"quick": {"extends": "paper"}}}, "'quick' is a fixed scale; choose another name"),
        ({"scales": {"paper": {"extends": "quick"}}}, "'paper' is a fixed scale"),
        ({"scales": {"x": {"extends": "papre"}}}, "scales.x.extends: unknown scale 'papre'"),
        ({"scales": {"x": {"extends": "paper", "epochs": 0}}}, "scales.x.epochs: 0 is less than the minimum of 1"),
        ({"scales": {"x": {"extends": "paper", "epochs": "3"}}}, "scales.x.epochs: expected integer, found '3'"),
        ({"scales": {"x": {"extends": "paper", "epoch": 3}}}, "scales.x: unknown key 'epoch' .did you mean 'epochs'"),
        ({"scales": {"x": {"extends": "paper", "batch_size": -1}}}, "scales.x.batch_size: -1 is less than"),
        ({"scales": {"x": {}}}, "scales.x: 'extends' is a required property"),
        ({"experiments": {}}, "experiments:"),
        ({"experiments": experiment(seeds=[1, 1])}, "experiments.mine.seeds: .*non-unique"),
        ({"experiments": experiment(seeds=[])}, "experiments.mine.seeds:"),
        ({"experiments": experiment(networks="lenet5")}, "experiments.mine.networks: expected array, found 'lenet5'"),
        ({"experiments": experiment(networks=["lenet"])}, "experiments.mine: cell .*unknown network 'lenet'"),
        ({"experiments": experiment(cells=[{"activation": ["relu"]}])}, "unknown key 'activation'.*'activations'"),
        ({"experiments": experiment(activations=["ahaf-tanh"])}, "mine: cell .*ahaf-tanh.*unknown activation"),
        ({"experiments": experiment(procedures=["p24sl"])}, "experiments.mine: cell lenet5/cifar10/relu/p24sl"),
        (
            {"experiments": {"mine": {key: value for key, value in experiment()["mine"].items() if key != "seeds"}}},
            "experiments.mine: no seeds",
        ),
    ],
)
def test_invalid_configurations(changes, message):
    with pytest.raises(UserError, match=message) as error:
        check_config(config_with(**changes))
    assert "\n" not in str(error.value)


def test_a_users_file_overrides_parts(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("scale: afternoon\nscales: {afternoon: {extends: paper, epochs: 3, seeds: 2}}\n")
    config = read_config([mine])
    assert config.scales["afternoon"].settings == Settings(epochs=3)
    assert len(config.cells(["weight_initialization"])) == 40
    assert set(config.experiments) == set(read_config().experiments)
    overridden = read_config([mine], {"experiments": {"linear_units": {"seeds": [7]}}})
    assert {cell.seed for cell in overridden.cells(["linear_units"])} == {7}


@pytest.mark.parametrize(
    ("changes", "continues"),
    [
        ({"epochs": 150}, "paper"),
        ({"seeds": 2}, "paper"),
        ({"epochs": 150, "batch_size": 64}, None),
        ({"epochs": 150, "train_images": 1000}, None),
        ({"epochs": 10}, None),  # a longer run's state is of no use
    ],
)
def test_a_scale_continues_one_that_differs_in_epochs_alone(changes, continues):
    assert resolve_scales({"mine": {"extends": "paper", **changes}})["mine"].continues == continues


def test_scales_extend_each_other_in_any_order():
    """Snakemake puts a user's file before config.yaml."""
    scales = resolve_scales(
        {"night": {"extends": "evening", "epochs": 5}, "evening": {"extends": "paper", "epochs": 3}}
    )
    assert scales["night"] == Scale(Settings(epochs=5), continues="evening")


@pytest.mark.parametrize(
    ("content", "message"), [("scale: [", "while parsing.*line 1"), ("- a\n", "expected keys and values, found list")]
)
def test_files_that_are_not_configurations(tmp_path, content, message):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_config([file])
    assert str(file) in str(error.value)


def test_command_cells(capsys):
    main(["cells", "--scale", "paper"])
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 148 and captured.err == "148 cells\n"
    main(["cells", "--scale", "paper", "--csv", "--network", "kerasnet", "--dataset", "cifar10", "--seed", "42"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 20 and {row["network"] for row in rows} == {"kerasnet"}
    main(["cells", "--experiment", "relu_stability", "--scale", "paper"])
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cells", "--network", "lenet"], "leaf: unknown network 'lenet'"),
        (["cells", "--experiment", "linear"], "leaf: unknown experiment 'linear'"),
        (["cells", "--config", "[1]"], "leaf: --config"),
        (["train", "lenet5/cifar10/relu"], "leaf: 'lenet5/cifar10/relu' names no cell"),
        (["train", EXAMPLE, "--scale", "papre"], "leaf: unknown scale 'papre'"),
        (["train", EXAMPLE, "--scale", "x", "--settings", "{"], "leaf: --settings"),
        (["fetch", "mnist"], "leaf: unknown dataset 'mnist'"),
        (["table", EXAMPLE], "leaf: nothing to make"),
        (["analyse", "nowhere"], "leaf: nowhere: no collected records"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert str(exit_.value.code).startswith(message)
