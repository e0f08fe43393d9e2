"""What is seen of a network while it trains, beside its losses: parameters, inputs and gradients, layer by layer."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leaf.activations import Adaptive
from leaf.networks import Network

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles recorded of each activation parameter over the elements of its layer."""

INPUT_EDGES = torch.linspace(-16, 16, 257)
"""Edges of the bins that inputs of activations are counted in; what lies beyond counts to the outermost bins."""


def activation_parameters(network: Network) -> dict[str, Tensor]:
    """Every activation parameter by name (``activation1.p1``, …), detached and contiguous, on the CPU."""
    return {
        f"{layer_name}.{name}": parameter.detach().cpu().contiguous()
        for layer_name, layer in network.named_activations.items()
        if isinstance(layer, Adaptive)
        for name, parameter in layer.named_parameters()
    }


def parameter_quantiles(network: Network) -> dict[str, Tensor]:
    """The ``QUANTILES`` of every activation parameter, float32 ``(len(QUANTILES),)`` each."""
    levels = torch.tensor(QUANTILES)
    return {name: values.float().flatten().quantile(levels) for name, values in activation_parameters(network).items()}


@torch.no_grad()
def input_histograms(network: Network, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """How often each activation layer sees inputs of which size, int64 ``(len(INPUT_EDGES) - 1,)`` per layer.

    Args:
        batches: inputs of the network, ``(N, C, H, W)`` each.
    """
    counts = {name: torch.zeros(len(INPUT_EDGES) - 1, dtype=torch.int64) for name in network.named_activations}
    low, high = INPUT_EDGES[0].item(), INPUT_EDGES[-1].item()

    def count(name: str, inputs: Tensor) -> None:
        within = inputs.detach().float().nan_to_num().clamp(low, high).cpu()
        counts[name] += torch.histc(within, bins=len(counts[name]), min=low, max=high).long()

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: count(name, inputs[0]))
        for name, layer in network.named_activations.items()
    ]
    network.eval()
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    return counts


@torch.no_grad()
def first_nonfinite_layer(network: Network, images: Tensor) -> str | None:
    """Name of the first layer whose output has a NaN or infinite value, without dropout; ``None`` if there is none.

    Args:
        images: ``(N, C, H, W)``, floating point.
    """
    training = network.training
    network.eval()
    values, found = images, None
    for name, layer in network.named_children():
        values = layer(values)
        if not values.isfinite().all():
            found = name
            break
    network.train(training)
    return found


def weighted_layers(network: Network) -> list[str]:
    """Names of the layers with a weight matrix or kernel, in order."""
    return [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]


def gradient_norms(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Euclidean norm of the loss's gradient by each layer's weight, float32 ``(len(weighted_layers),)``.

    Dropout is off, so that nothing is drawn.

    Args:
        images: ``(N, C, H, W)``, floating point.
        labels: ``(N,)``, int64.
    """
    network.eval()
    weights = [network.get_parameter(f"{name}.weight").requires_grad_(True) for name in weighted_layers(network)]
    gradients = torch.autograd.grad(cross_entropy(network(images), labels), weights)
    return torch.stack([gradient.float().norm() for gradient in gradients]).cpu()
