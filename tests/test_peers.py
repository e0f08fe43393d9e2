"""Other learnable activations against torch's modules and their formulas in float64, and as cells."""

import numpy as np
import pytest
import torch
from conftest import published
from test_networks import weights_digest
from torch import nn

from leaf import ACTIVATIONS, build_network
from leaf.analysis.collection import collect
from leaf.analysis.figures import evolution_chart, forms_chart
from leaf.analysis.forms import CURVE_INPUTS, curves
from leaf.analysis.tables import activation_title, paper_table
from leaf.experiment.cells import Cell
from leaf.experiment.job import train_cell
from leaf.experiment.random_streams import initial_network
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings

SHAPE = (3, 4, 6)


def rational(u, a0, a1, a2, a3, b0, b1, b2):
    return (a3 * u**3 + a2 * u**2 + a1 * u + a0) / (b2 * u**2 + b1 * u + b0)


FORMULAS = {
    "prelu": lambda u, slope: torch.where(u >= 0, u, slope * u),
    "swish": lambda u, beta: u * torch.sigmoid(beta * u),
    "rational": rational,
}
OWN_SHAPES = {"prelu": (3, 1, 1), "swish": (1, 1, 1), "rational": (1, 1, 1)}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_values_and_gradients(name, channels_last, dtype, tolerance):
    layer = ACTIVATIONS[name].build(SHAPE).to(dtype)
    assert {tuple(parameter.shape) for parameter in layer.parameters()} == {OWN_SHAPES[name]}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=generator)
    u, weights = (torch.randn(5, *SHAPE, generator=generator).to(dtype) for _ in range(2))
    if channels_last:
        u = u.contiguous(memory_format=torch.channels_last)
    u.requires_grad_()
    y = layer(u)
    (y * weights).sum().backward()

    true_u = u.detach().double().requires_grad_()
    true_parameters = [parameter.detach().double().requires_grad_() for parameter in layer.parameters()]
    true_y = FORMULAS[name](true_u, *true_parameters)
    (true_y * weights.double()).sum().backward()
    assert y.dtype == dtype and y.stride() == u.stride()
    torch.testing.assert_close(y.double(), true_y, rtol=tolerance, atol=tolerance)
    for ours, true in zip([u, *layer.parameters()], [true_u, *true_parameters], strict=True):
        torch.testing.assert_close(ours.grad.double(), true.grad, rtol=tolerance, atol=10 * tolerance)


def test_initial_values_are_those_of_the_sources():
    u = torch.linspace(-3, 3, 5 * 72).view(5, *SHAPE)
    torch.testing.assert_close(ACTIVATIONS["prelu"].build(SHAPE)(u), nn.PReLU(3)(u))
    torch.testing.assert_close(ACTIVATIONS["swish"].build(SHAPE)(u), nn.SiLU()(u))
    assert type(ACTIVATIONS["gelu"].build(SHAPE)) is nn.GELU
    # the best rational function of its type is nowhere on [-1, 1] further from ReLU than at its many extremes
    v = torch.linspace(-1, 1, 10_001)[:, None]
    error = ACTIVATIONS["rational"].build((1,))(v) - v.relu()
    assert 0.0210 < error.abs().max().item() < 0.0226


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weights_and_images_are_paired_whatever_the_activation(activation):
    (entry,) = (e for e in published("seeds") if (e["network"], e["dataset"], e["seed"]) == ("lenet5", "cifar10", 100))
    network, streams = initial_network(100, lambda: build_network("lenet5", "cifar10", activation), (128, 3, 32, 32))
    assert weights_digest(network) == entry["initial_weights_sha256"]
    assert streams.next_loader_seed() == entry["loader_seed"]["1"]


@pytest.fixture
def trained(empty_project):
    cells = [Cell("lenet5", "fashion_mnist", name, "dspt", "adam", 42) for name in FORMULAS]
    cells.append(Cell("lenet5", "fashion_mnist", "gelu", "classic", "adam", 42))
    settings = Settings(epochs=2, train_images=256, test_images=100)
    for cell in cells:
        train_cell(cell, "tiny", settings, "cpu", threads=1, log=lambda line: None)
    return cells, collect(dict.fromkeys(cells, ()), "tiny", settings, with_forms=True)


def test_cells_like_any_other(trained):
    cells, records = trained
    assert set(records.cells["status"]) == {"done"}
    assert [read_run(cell.directory("tiny")).execution.kernel for cell in cells] == [
        "reference",
        "numba",
        "reference",
        "reference",
    ]
    assert paper_table(records).index.tolist() == [
        ("PReLU", "leaky ReLU", "DSPT"), ("Rational", "ReLU (nearly)", "DSPT"), ("Swish", "SiLU", "DSPT"),
        ("GELU", "N/A", "Classic"),
    ]  # fmt: skip
    for name, curves_of_layer1 in zip(FORMULAS, (5, 1, 1), strict=True):
        of_cell = records.select(activation=name)
        forms = of_cell.forms[of_cell.cells["cell"].item()]
        assert forms["curves/activation1"].shape == (curves_of_layer1, len(CURVE_INPUTS))
        assert any(np.ptp(q[-1] - q[0]) > 0 or q[-1, 0] != q[0, 0] for k, q in forms.items() if "quantiles" in k)
        for chart in (forms_chart, evolution_chart):
            assert len(chart(of_cell).axes) >= 6


def test_a_curve_for_each_set_of_parameters():
    found = curves("swish", {"beta": np.array([0.0, 1.0, 2.0], np.float32)}, CURVE_INPUTS)
    u = CURVE_INPUTS.astype(np.float64)
    for beta, curve in enumerate(found):
        np.testing.assert_allclose(curve, u / (1 + np.exp(-beta * u)), atol=1e-5)


def test_titles():
    found = [activation_title(ACTIVATIONS[name].family, ACTIVATIONS[name].form) for name in (*FORMULAS, "gelu")]
    assert found == ["PReLU as leaky ReLU", "Swish as SiLU", "Rational as ReLU (nearly)", "GELU"]
    assert activation_title("channel-leaf", "tanh") == "LEAF per channel as Tanh"
    every = [activation_title(kind.family, kind.form) for kind in ACTIVATIONS.values()]
    assert len(set(every)) == len(every)
