"""Further variants of the published code: fully connected part only, F-neuron, patched networks, tuning."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from project_copy import Copy
from torch import nn

from leaf import ACTIVATIONS, LEAF, build_network
from leaf.analysis.collection import collect
from leaf.analysis.figures import evolution_chart, forms_chart
from leaf.analysis.tables import activation_title, paper_table, summary_table
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.identity import Identity
from leaf.experiment.job import train_cell
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.random_streams import initial_network
from leaf.experiment.runs import read_run, write_run
from leaf.experiment.scales import Settings
from leaf.experiment.stages import training_stages
from leaf.experiment.training import Training

SETTINGS = Settings(epochs=3, train_images=256, test_images=100)


def cell(activation="leaf-tanh", procedure="patch1-p24sl", network="lenet5", dataset="fashion_mnist") -> Cell:
    return Cell(network, dataset, activation, procedure, "adam", 42)


def train(made: Cell, settings=SETTINGS, **options) -> list[str]:
    said: list[str] = []
    train_cell(made, "tiny", settings, "cpu", threads=1, log=said.append, **options)
    return said


# --- frozen parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "procedure", "frozen"),
    [("frozen_p2_p4-leaf-tanh", "classic", {"p2", "p4"}), ("frozen_p2_p4-leaf-tanh", "dspt", {"p2", "p4"}),
     ("frozen_p2-leaf-tanh", "classic", {"p2"}), ("frozen_p2-leaf-tanh", "p24sl", {"p2"}),
     ("frozen_p2-leaf-tanh", "dspt-p24sl", {"p2"}), ("leaf-tanh", "classic", set())],
)  # fmt: skip
@pytest.mark.parametrize("kernel", ["reference", None])
def test_frozen_parameters_keep_their_bits_and_the_others_move(data, activation, procedure, frozen, kernel):
    images = data("fashion_mnist", 256, 100)
    training = Training(cell(activation, procedure), Settings(epochs=1), images, kernel=kernel)
    start = {name: parameter.clone() for name, parameter in training.network.named_parameters()}
    training.run_epoch()
    for name, parameter in training.network.named_parameters():
        assert torch.equal(parameter, start[name]) == (name.rsplit(".", 1)[-1] in frozen), name


def test_frozen_parameters_start_as_the_form_and_slow_down_only_what_learns(empty_project):
    layer, free = ACTIVATIONS["frozen_p2_p4-leaf-tanh"].build((4,)), LEAF((4,), "tanh")
    u = torch.linspace(-3, 3, 8)[:, None].expand(8, 4)
    assert torch.equal(layer(u), free(u))
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["p1", "p3"]
    assert activation_title("frozen_p2-leaf", "tanh") == "LEAF (p2 frozen) as Tanh"
    with pytest.raises(UserError, match="slows down p2 and p4 and 'frozen_p2_p4-leaf-tanh' has neither"):
        cell("frozen_p2_p4-leaf-tanh", "p24sl")


def test_a_cell_with_frozen_parameters_is_recorded_like_any_other(empty_project):
    made = cell("frozen_p2-leaf-tanh", "p24sl")
    train(made, replace(SETTINGS, epochs=1))
    records = collect({made: ()}, "tiny", replace(SETTINGS, epochs=1), with_forms=True)
    quantiles = records.forms[made.name]
    assert (quantiles["quantiles/activation1.p2"] == 2).all() and np.ptp(quantiles["quantiles/activation1.p1"]) > 0


# --- the F-neuron -----------------------------------------------------------------------------------------------------


def membership(u: float, i: int) -> float:
    """As in the published code; the first and last membership functions are 1 outside [-4, 4]."""
    if (i == 0 and u < -4) or (i == 17 and u > 4):
        return 1.0
    return max(0.0, 1 - abs(u - (-4 + 8 * i / 17)) * 17 / 8)


@pytest.mark.parametrize("form", ["tanh", "sigmoid", "hardtanh", "hardsigmoid"])
def test_f_neuron(form):
    layer = ACTIVATIONS[f"fneuron-{form}@ffn"].build((2,)).double()
    function = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}.get(form, nn.Hardsigmoid())  # published slip: HardTanh too
    weights = list(layer.parameters())
    assert [tuple(weight.shape) for weight in weights] == [(2,)] * 18
    for i, weight in enumerate(weights):
        centre = torch.tensor(-4 + 8 * i / 17, dtype=torch.float64)
        torch.testing.assert_close(weight.detach(), function(centre).expand(2), rtol=1e-6, atol=1e-7)
        with torch.no_grad():
            weight += torch.tensor([0.1 * i, (-1.0) ** i])
    u = torch.tensor([[-9.0, -4.1], [-3.9, -0.3], [0.1, 0.2], [1.7, 3.99], [4.5, 100.0]], dtype=torch.float64)
    expected = [
        [sum(w[k].item() * membership(v, i) for i, w in enumerate(weights)) for k, v in enumerate(row)]
        for row in u.tolist()
    ]
    torch.testing.assert_close(layer(u), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(layer, u.requires_grad_())


# --- in the fully connected part only ---------------------------------------------------------------------------------

PER_FEATURE = {"ahaf-silu@ffn": 2, "leaf-tanh@ffn": 4, "fneuron-sigmoid@ffn": 18}


@pytest.mark.parametrize(("activation", "parameters"), PER_FEATURE.items())
def test_only_the_fully_connected_part_learns(activation, parameters):
    base = {"lenet5": (431_000, 500, 2), "kerasnet": (889_834, 512, 4)}
    for name, (count, features, convolutions) in base.items():
        network = build_network(name, "fashion_mnist", activation)
        assert sum(p.numel() for p in network.parameters()) == count + parameters * features
        function = type(ACTIVATIONS[ACTIVATIONS[activation].form].build((1,)))
        assert [type(layer) is function for layer in network.activations] == [True] * convolutions + [False]
        assert len(training_stages(network, "dspt", "adam")[0].learning) == parameters


def test_cells_of_a_part(empty_project):
    made = [cell(name, "dspt") for name in PER_FEATURE]
    for each in made:
        train(each, Settings(epochs=1, train_images=256, test_images=100))
    records = collect(dict.fromkeys(made, ()), "tiny", SETTINGS, with_forms=True)
    summary = summary_table(records)
    assert summary["activation, convolutional part"].tolist() == ["SiLU", "Tanh", "Sigmoid"]
    assert summary["activation, fully connected part"].tolist() == [
        "AHAF as SiLU", "LEAF as Tanh", "F-neuron as Sigmoid",
    ]  # fmt: skip
    assert paper_table(records).index.get_level_values(0).tolist() == [
        f"{title}, fully connected part" for title in ("AHAF", "LEAF", "F-neuron")
    ]
    assert activation_title("leaf@ffn", "tanh") == "LEAF as Tanh, fully connected part"
    for each in made:
        above, *_ = forms_chart(records.select(activation=each.activation)).axes
        assert above.get_title() == "layer 3"


# --- patched networks -------------------------------------------------------------------------------------------------


def test_procedures_that_start_or_stop_at_an_epoch():
    assert "patch50-dspt" in PROCEDURES and PROCEDURES["patch50-dspt"].start == 50
    assert PROCEDURES["patch50-dspt"].two_stage and PROCEDURES["first7-p24sl"].stop == 7
    assert PROCEDURES["patch50-dspt"].title == "patched at epoch 50, DSPT"
    for name in ("patch0-classic", "patch-classic", "patch5-", "patch5-patch6-classic", "patch5-slow", "last5-classic"):
        assert name not in PROCEDURES
        with pytest.raises(KeyError):
            PROCEDURES[name]
    assert list(PROCEDURES) == ["classic", "dspt", "p24sl", "dspt-p24sl", "tune"]


@pytest.mark.parametrize(
    ("activation", "procedure", "message"),
    [
        ("tanh", "patch1-classic", "'patch1-classic' gives a base network activation parameters and 'tanh' has none"),
        ("tanh", "tune", "'tune' trains activation parameters alone and 'tanh' has none; it applies to: ahaf-relu"),
        ("leaf-tanh", "patch1-clasic", r"unknown procedure 'patch1-clasic'.*; and of each firstK-… and patchK-…"),
    ],
)
def test_invalid_cells(activation, procedure, message):
    with pytest.raises(UserError, match=message):
        cell(activation, procedure)


def test_a_patched_network_starts_from_its_base_network(empty_project):
    patched, base = cell(), cell("tanh", "first1-classic")
    assert patched.parent == base and base.parent is None
    with pytest.raises(UserError, match=f"{patched.name}: its parent {base.name} has no results at scale tiny"):
        train(patched)
    train(base)
    left = safetensors.torch.load_file(base.directory("tiny") / "model.safetensors")
    assert pd.read_csv(base.directory("tiny") / "metrics.csv")["epoch"].tolist() == [1]
    train(patched)
    metrics = pd.read_csv(patched.directory("tiny") / "metrics.csv")
    assert metrics["epoch"].tolist() == [2, 3] and (metrics["slow_learning_rate"] == 1e-6).all()
    forms = safetensors.torch.load_file(patched.directory("tiny") / "forms.safetensors")
    assert forms["quantiles/activation1.p2"].shape == (3, 7) and forms["quantiles/activation1.p2"][0].unique() == 2
    run = read_run(patched.directory("tiny"))
    assert run.epochs == 2 and run.identity.parent == read_run(base.directory("tiny")).sha256["model.safetensors"]
    chart = evolution_chart(collect({patched: ()}, "tiny", SETTINGS, with_forms=True))
    assert [line.get_label() for line in chart.axes[0].lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert chart.axes[-1].lines[0].get_xdata().tolist() == [1, 2, 3]

    # tuning moves the activations alone
    tuned = cell(procedure="patch1-tune")
    train(tuned)
    found = safetensors.torch.load_file(tuned.directory("tiny") / "model.safetensors")
    moved = {name for name in found if name not in left or not torch.equal(found[name], left[name])}
    assert moved == {f"activation{i}.p{k}" for i in (1, 2, 3) for k in (1, 2, 3, 4)}

    # a base network that was trained to something else makes it stale, the same one again does not
    assert train(base) == [f"{base.name}: outputs are current, kept"]
    assert not Identity.of(patched, "tiny", SETTINGS).differences(run.identity)
    base_run = read_run(base.directory("tiny"))
    other = {name: weight + 1e-3 for name, weight in left.items()}
    safetensors.torch.save_file(other, base.directory("tiny") / "model.safetensors")
    write_run(base.directory("tiny"), base_run)
    assert Identity.of(patched, "tiny", SETTINGS).differences(run.identity)
    assert "state.pt: made with other weights of its parent, skipped" in train(patched)[0]


def test_streams_restart_and_the_function_is_the_same(data):
    images = data("cifar10", 256, 100)
    made = cell("leaf-tanh", "patch1-classic", "kerasnet", "cifar10")
    base = Training(made.parent, SETTINGS, images, dtype=torch.float64)
    base.run_epoch()
    assert base.finished
    weights = {name: weight.float() for name, weight in base.network.state_dict().items()}
    patched = Training(made, SETTINGS, images, parent=weights, dtype=torch.float64)
    assert [layer.form for layer in patched.network.activations if isinstance(layer, LEAF)] == ["tanh"] * 5
    loss, _ = base.evaluate(images.test_images, images.test_labels)
    assert patched.evaluate(images.test_images, images.test_labels)[0] == pytest.approx(loss, rel=1e-5)
    _, streams = initial_network(42, lambda: build_network("kerasnet", "cifar10", "tanh"), (128, 3, 32, 32))
    assert patched.streams.next_loader_seed() == streams.next_loader_seed()
    assert not patched.stages[0].optimizer.state  # fresh optimizers
    with pytest.raises(ValueError, match="parent must be the weights of"):
        Training(made, SETTINGS, images)
    with pytest.raises(ValueError, match="not the weights of the same network"):
        Training(made, SETTINGS, images, parent=build_network("lenet5", "cifar10", "tanh").state_dict())


class Killed(Exception):
    pass


def test_a_killed_patched_cell_ends_as_if_undisturbed(empty_project):
    made = cell("ahaf-silu", "patch1-dspt")
    train(made.parent)
    train(made)
    directory = made.directory("tiny")
    expected = (directory / "model.safetensors").read_bytes()
    for file in directory.iterdir():
        file.unlink()

    def kill(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (3, 1):
            raise Killed

    with pytest.raises(Killed):
        train(made, progress=kill)
    assert json.loads((directory / "status.json").read_text())["epoch"] == 2
    assert f"{made.name}: resumes after epoch 2" in train(made)[0]
    assert (directory / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("procedure", ["patch3-classic", "first4-classic"])
def test_an_epoch_beyond_the_scale(empty_project, procedure):
    with pytest.raises(UserError, match=f"procedure '{procedure}' needs more than 3 epochs"):
        train(cell(procedure=procedure))


def test_the_workflow_trains_the_base_network_first(data, tmp_path):
    own = """
scale: tiny
scales: {tiny: {extends: quick, epochs: 2, train_images: 256, test_images: 100}}
experiments:
  patched:
    title: Patched
    networks: [lenet5]
    datasets: [fashion_mnist]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [leaf-tanh], procedures: [patch1-p24sl]}
device: cpu
"""
    project = Copy(tmp_path, own)
    target = f"results/tiny/{cell().name}/metrics.csv"
    project.snakemake(target)
    run = read_run(tmp_path / f"results/tiny/{cell().name}")
    base = read_run(tmp_path / f"results/tiny/{cell().parent.name}")
    assert run.identity.parent == base.sha256["model.safetensors"]
    assert "Nothing to be done" in project.snakemake("-n", target)

    project.edit("own.yaml", "epochs: 2", "epochs: 1")
    for what in ("patched", target):
        done = project.run("snakemake", "-n", what, "--configfile", "own.yaml")
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "InputFunctionException" not in said
        assert f"cell {cell().name}: procedure 'patch1-p24sl' needs more than 1 epochs" in said
