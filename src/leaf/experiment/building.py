"""Build the network of a cell, and check it if the cell uses plugins."""

import torch

from leaf.experiment.cells import Cell, check_choice
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.plugins import in_a_line, plugins_of
from leaf.names import NETWORKS
from leaf.networks import Network


def build_network(network: str, dataset: str, activation: str) -> Network:
    """Build a network for the images of a data set, with PyTorch's default initialization.

    Args:
        network: a name in ``NETWORKS``, such as ``"lenet5"``.
        dataset: a name in ``DATASETS``, such as ``"cifar10"``.
        activation: a name in ``ACTIVATIONS``, such as ``"leaf-tanh"``.

    Raises:
        UserError: if a name is unknown.
    """
    for field, value in {"network": network, "dataset": dataset, "activation": activation}.items():
        check_choice(field, value)
    data = DATASETS[dataset]
    return NETWORKS[network](data.image_shape, activation, data.classes)


def check_cell(cell: Cell) -> None:
    """Check that the network of a cell that uses plugins maps its data set's images to logits.

    Raises:
        UserError: if it does not.
    """
    plugins = plugins_of(cell)
    if not plugins:
        return
    data = DATASETS[cell.dataset]
    try:
        network = build_network(cell.network, cell.dataset, cell.activation).eval()
        if not network.activations:
            raise UserError("has no activations; the name of at least one layer must start with activation")
        with torch.no_grad():
            found = list(network(torch.zeros(2, *data.image_shape)).shape)
        if found != [2, data.classes]:
            raise UserError(f"two images give an output of shape {found}, expected logits of shape {[2, data.classes]}")
    except Exception as error:
        what = f"network {cell.network!r} with {cell.activation!r} for {cell.dataset!r}"
        raise UserError(f"{', '.join(plugins)}: {what}: {in_a_line(error, next(iter(plugins)))}") from None
