"""Observations of a network in training, by layer: activation parameters, inputs of activations, and gradients."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leaf.activations import Adaptive
from leaf.networks import Network

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Recorded quantiles of each activation parameter over the elements of its layer."""

BINS_PER_UNIT, LARGEST_LOG = 32, 89
"""Bins of inputs u have equal widths in ``sign(u) * log(1 + |u|)``: 1/32 near 0, and 3% of u far from it. On this scale
the largest float32 is less than ``LARGEST_LOG``."""


def activation_parameters(network: Network) -> dict[str, Tensor]:
    """Return the activation parameters by name (``activation1.p1``, …), detached and contiguous, on the CPU."""
    return {
        f"{layer_name}.{name}": parameter.detach().cpu().contiguous()
        for layer_name, layer in network.named_activations.items()
        if isinstance(layer, Adaptive)
        for name, parameter in layer.named_parameters()
    }


def parameter_quantiles(network: Network) -> dict[str, Tensor]:
    """Return the ``QUANTILES`` of every activation parameter, float32 ``(len(QUANTILES),)`` each."""
    levels = torch.tensor(QUANTILES)
    return {name: values.float().flatten().quantile(levels) for name, values in activation_parameters(network).items()}


class Histogram(NamedTuple):
    """Histogram of a layer's inputs, from the smallest to the largest.

    Attributes:
        counts: int64 ``(bins,)``; the first and the last bin are not empty.
        edges: float32 ``(bins + 1,)``.
    """

    counts: Tensor
    edges: Tensor


@torch.no_grad()
def input_histograms(network: Network, batches: Iterable[Tensor]) -> dict[str, Histogram]:
    """Compute the histogram of the inputs of each activation layer, over their whole range.

    NaN counts as 0, and infinity as the largest float32.

    Args:
        batches: inputs of the network, ``(N, C, H, W)`` each.
    """
    bins = 2 * LARGEST_LOG * BINS_PER_UNIT
    counts = {name: torch.zeros(bins, dtype=torch.int64) for name in network.named_activations}

    def count(name: str, inputs: Tensor) -> None:
        values = inputs.detach().float().nan_to_num().cpu()
        logs = values.abs().log1p_().copysign_(values)
        counts[name] += torch.histc(logs, bins=bins, min=-LARGEST_LOG, max=LARGEST_LOG).long()

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: count(name, inputs[0]))
        for name, layer in network.named_activations.items()
    ]
    network.eval()
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    return {name: _trimmed(of_layer) for name, of_layer in counts.items()}


def _trimmed(counts: Tensor) -> Histogram:
    """Remove the empty bins at both ends."""
    places = counts.nonzero().flatten()
    first, last = (int(places[0]), int(places[-1])) if len(places) else (len(counts) // 2, len(counts) // 2)
    logs = torch.arange(first, last + 2, dtype=torch.float64) / BINS_PER_UNIT - LARGEST_LOG
    edges = logs.abs().expm1().copysign(logs).clamp(-torch.finfo(torch.float32).max, torch.finfo(torch.float32).max)
    return Histogram(counts[first : last + 1], edges.float())


@torch.no_grad()
def first_nonfinite_layer(network: Network, images: Tensor) -> str | None:
    """Return the name of the first layer whose output is not finite, without dropout; ``None`` if there is none.

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
    """Return the names of the layers with a weight matrix or kernel, in order."""
    return [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]


def gradient_norms(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the Euclidean norm of the loss's gradient for each layer's weight, float32 ``(len(weighted_layers),)``.

    Dropout is disabled, so that no random numbers are drawn.

    Args:
        images: ``(N, C, H, W)``, floating point.
        labels: ``(N,)``, int64.
    """
    network.eval()
    weights = [network.get_parameter(f"{name}.weight").requires_grad_(True) for name in weighted_layers(network)]
    gradients = torch.autograd.grad(cross_entropy(network(images), labels), weights)
    return torch.stack([gradient.float().norm() for gradient in gradients]).cpu()
