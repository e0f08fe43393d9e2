"""The network of a cell: built, and tried on images if it is made with plugins."""

import torch

from leaf.experiment.cells import Cell, check_choice
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.plugins import in_a_line, plugins_of
from leaf.names import NETWORKS
from leaf.networks import Network


def build_network(network: str, dataset: str, activation: str) -> Network:
    """A network for a data set's images, with PyTorch's default initialization.

    Args:
        network: ``"lenet5"`` or ``"kerasnet"``.
        dataset: ``"fashion_mnist"`` or ``"cifar10"``.
        activation: a name in ``leaf.activations.ACTIVATIONS``, such as ``"leaf-tanh"``.

    Raises:
        UserError: if a name is unknown.
    """
    for field, value in {"network": network, "dataset": dataset, "activation": activation}.items():
        check_choice(field, value)
    data = DATASETS[dataset]
    return NETWORKS[network](data.image_shape, activation, data.classes)


def check_cell(cell: Cell) -> None:
    """See that a cell with plugins has a network that turns its data set's images into logits.

    Raises:
        UserError: if not.
    """
    plugins = plugins_of(cell)
    if not plugins:
        return
    data = DATASETS[cell.dataset]
    try:
        network = build_network(cell.network, cell.dataset, cell.activation).eval()
        if not network.activations:
            raise UserError("it has no activations: layers whose own names start with activation")
        with torch.no_grad():
            found = list(network(torch.zeros(2, *data.image_shape)).shape)
        if found != [2, data.classes]:
            raise UserError(f"two images give {found}, not {[2, data.classes]}: a row of logits each")
    except Exception as error:
        what = f"network {cell.network!r} with {cell.activation!r} for {cell.dataset!r}"
        raise UserError(f"{', '.join(plugins)}: {what}: {in_a_line(error, next(iter(plugins)))}") from None
