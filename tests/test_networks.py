"""The networks: parameter counts, layers in order, dropout, and the published initial weights."""

import hashlib

import pytest
import torch
from conftest import published
from torch import nn

from leaf import LEAF, KerasNet, LeNet5, build_network
from leaf.experiment.cells import Cell
from leaf.experiment.config import read_config
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.random_streams import initial_network
from leaf.networks import Network

COUNTS = {
    ("lenet5", "fashion_mnist"): (431_000, 461_440, 491_880),
    ("lenet5", "cifar10"): (657_000, 699_360, 741_720),
    ("kerasnet", "fashion_mnist"): (889_834, 1_021_418, 1_153_002),
    ("kerasnet", "cifar10"): (1_250_858, 1_425_450, 1_600_042),
}


def seeded(cell: Cell) -> Network:
    network, _ = initial_network(
        cell.seed,
        lambda: build_network(cell.network, cell.dataset, cell.activation),
        (128, *DATASETS[cell.dataset].image_shape),
    )
    return network


def weights_digest(network: Network) -> str:
    """SHA-256 of all parameters except those of activations, as in the published numbers."""
    activation = {id(parameter) for layer in network.activations for parameter in layer.parameters()}
    digest = hashlib.sha256()
    for parameter in network.parameters():
        if id(parameter) not in activation:
            digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("network", "dataset"), COUNTS)
def test_parameter_counts(network, dataset):
    found = tuple(
        sum(parameter.numel() for parameter in build_network(network, dataset, activation).parameters())
        for activation in ("relu", "ahaf-relu", "leaf-relu")
    )
    assert found == COUNTS[network, dataset]


def kinds(network: Network) -> list[str]:
    return ["act" if layer in network.activations else type(layer).__name__ for layer in network]


@pytest.mark.parametrize(
    "pooling",
    [{"kernel_size": 2}, {"kernel_size": (2, 2), "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
     {"kernel_size": 2, "stride": 1}, {"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 2, "dilation": 2}],
)  # fmt: skip
def test_pooling_is_that_of_the_network(pooling):
    """Learnable activations include the usual 2×2 max-pooling, and no other pooling."""
    network = Network((3, 7, 7), "leaf-silu")
    network.activation1, network.pool1 = LEAF((3, 7, 7), "silu"), nn.MaxPool2d(**pooling)
    images = torch.randn(2, 3, 7, 7).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.max_pool2d(network.activation1(images), **pooling)
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("activation", ["relu", "leaf-silu"])
def test_layers_in_order(activation):
    assert kinds(LeNet5(activation=activation)) == [
        "Conv2d", "act", "MaxPool2d", "Conv2d", "act", "MaxPool2d", "Flatten", "Linear", "act", "Linear",
    ]  # fmt: skip
    assert kinds(KerasNet(activation=activation)) == [
        "Conv2d", "act", "Conv2d", "act", "MaxPool2d", "Dropout2d",
        "Conv2d", "act", "Conv2d", "act", "MaxPool2d", "Dropout2d",
        "Flatten", "Linear", "act", "Dropout", "Linear",
    ]  # fmt: skip


def test_shapes_biases_and_dropout_rates():
    lenet, keras = LeNet5(), KerasNet()
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.padding) for c in lenet if isinstance(c, nn.Conv2d)] == [
        (1, 20, (5, 5), (0, 0)), (20, 50, (5, 5), (0, 0)),
    ]  # fmt: skip
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.padding) for c in keras if isinstance(c, nn.Conv2d)] == [
        (3, 32, (3, 3), (1, 1)), (32, 32, (3, 3), (0, 0)), (32, 64, (3, 3), (1, 1)), (64, 64, (3, 3), (0, 0)),
    ]  # fmt: skip
    assert [layer.bias is not None for layer in lenet if hasattr(layer, "bias")] == [False, False, True, False]
    assert all(layer.bias is not None for layer in keras if hasattr(layer, "bias"))
    assert [layer.p for layer in keras if isinstance(layer, nn.Dropout | nn.Dropout2d)] == [0.25, 0.25, 0.2]


@pytest.mark.parametrize("activation", ["tanh", "ahaf-silu", "leaf-tanh"])
@pytest.mark.parametrize(("network", "dataset"), COUNTS)
def test_activations_get_inputs_of_their_shape(network, dataset, activation):
    net = build_network(network, dataset, activation)
    assert len(net.activations) == {"lenet5": 3, "kerasnet": 5}[network]
    assert net(torch.zeros(2, *DATASETS[dataset].image_shape)).shape == (2, 10)


def test_initial_weights_are_the_published_ones_in_every_cell_of_the_grid():
    expected = {
        (entry["network"], entry["dataset"], entry["seed"]): entry["initial_weights_sha256"]
        for entry in published("seeds")
    }
    assert len(expected) == 20
    grid = read_config().cells(scale="paper")
    others = [Cell(network, dataset, "relu", "classic", "adam", seed) for network, dataset, seed in expected]
    for cell in [*grid, *others]:
        assert weights_digest(seeded(cell)) == expected[cell.network, cell.dataset, cell.seed], cell.name


def test_a_part_of_a_network_is_its_layers_in_a_row():
    network = LeNet5(activation="leaf-tanh")
    images = torch.rand(2, 1, 28, 28)
    features = network[:-2]
    assert list(dict(features.named_children()))[-1] == "linear1" and features[0] is network.conv1
    torch.testing.assert_close(network[-2:](features(images)), network(images))


def test_unknown_names_are_reported():
    with pytest.raises(UserError, match=r"unknown network 'lenet'.*known: lenet5, kerasnet"):
        build_network("lenet", "cifar10", "relu")
    with pytest.raises(UserError, match=r"unknown activation 'leaf-rleu'.*did you mean 'leaf-relu'"):
        build_network("lenet5", "cifar10", "leaf-rleu")
