"""Training by P24Sl and DSPT in any training loop.

- P24Sl: the parameters ``p2`` and ``p4`` of LEAF learn more slowly than the rest: ``parameter_groups``.
- DSPT (the published code's "2SPU-4"): two stages for every minibatch. First only the activation parameters learn;
  then, on the same minibatch and with the activations just updated, only the others do: ``two_stage_step``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import is_parametrized

from leaf.activations import Adaptive
from leaf.networks import Network

SLOWDOWN = 1000
"""By how much P24Sl slows parameters down if no rate is given: the paper's ratio with Adam."""


class Stage:
    """One optimizer step of a minibatch: the parameters that learn in it and, beside them, those that rest."""

    def __init__(self, optimizer: torch.optim.Optimizer, resting: Sequence[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.learning = parameters_of(optimizer)
        self.resting = list(resting)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What an optimizer trains: of its parameters those that nobody has frozen."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    *,
    slow_learning_rate: float | None = None,
    weight_decay: float | None = None,
    activation_weight_decay: float = 0.0,
    of: str = "all",
) -> list[dict[str, Any]]:
    """A model's parameters as groups for any of torch's optimizers, LEAF's ``p2`` and ``p4`` slow as in P24Sl.

    Args:
        model: any module; what is in it of AHAF and LEAF is found, also pruned (``torch.nn.utils.prune``) or
            parametrized (``torch.nn.utils.parametrize``).
        learning_rate: of all parameters but ``p2`` and ``p4``.
        slow_learning_rate: of these; a thousandth of the other if not given, as the paper has it with Adam (a tenth
            with RMSprop). The same as ``learning_rate`` makes it the procedure Classic.
        weight_decay: of all parameters but those of activations; the optimizer's own setting if not given.
        activation_weight_decay: of the parameters of activations. They mean something as they are, a gate's slope of
            2^16 that it is a ReLU's.
        of: ``"all"`` parameters, those of ``"activations"``, or the ``"others"``.

    Returns:
        A group for each combination of settings, the parameters in the model's order.

    Raises:
        ValueError: if ``of`` is something else.

    Example:
        >>> groups = leaf.parameter_groups(model, learning_rate=1e-3)
        >>> optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    """
    if of not in ("all", "activations", "others"):
        raise ValueError(f"there are no parameters of {of!r}; there are: all, activations, others")
    if slow_learning_rate is None:
        slow_learning_rate = learning_rate / SLOWDOWN
    layers = [layer for layer in model.modules() if isinstance(layer, Adaptive)]
    activation = {parameter for layer in layers for parameter in layer.parameters()}
    slow = {parameter for layer in layers for name in layer.slow_parameters for parameter in _behind(layer, name)}
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        rate = slow_learning_rate if parameter in slow else learning_rate
        decay = activation_weight_decay if parameter in activation else weight_decay
        if of == "all" or (parameter in activation) == (of == "activations"):
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate} | ({} if decay is None else {"weight_decay": decay})
        for (rate, decay), parameters in groups.items()
    ]


def _behind(layer: Adaptive, name: str) -> list[nn.Parameter]:
    """The parameters that one of a layer's values is, or is computed from if it is pruned or parametrized."""
    if is_parametrized(layer, name):
        return list(layer.get_submodule(f"parametrizations.{name}").parameters())
    own = dict(layer.named_parameters(recurse=False))
    # What pruning, spectral_norm and weight_norm of torch.nn.utils call them.
    return [own[key] for key in (name, f"{name}_orig", f"{name}_g", f"{name}_v") if key in own]


def two_stages(activations: torch.optim.Optimizer, others: torch.optim.Optimizer) -> list[Stage]:
    """DSPT's stages: first the activations' parameters learn, then the others."""
    return [Stage(activations, parameters_of(others)), Stage(others, parameters_of(activations))]


def two_stage_step(
    activations: torch.optim.Optimizer, others: torch.optim.Optimizer, loss: Callable[[], Tensor]
) -> Tensor:
    """Train any model on one minibatch by DSPT: its activations first, then, with these, everything else.

    Args:
        activations: optimizer of the activations' parameters.
        others: optimizer of the other parameters.
        loss: computes the minibatch's loss, from the model's inputs on. It is called twice: dropout draws anew, and
            batch normalization counts the minibatch twice. ``DistributedDataParallel`` needs
            ``find_unused_parameters=True``, since in each stage a part of the parameters has no gradient.

    Returns:
        The second stage's loss before its step, a detached scalar.

    Example:
        >>> activations = torch.optim.Adam(leaf.parameter_groups(model, 1e-3, of="activations"))
        >>> others = torch.optim.Adam(leaf.parameter_groups(model, 1e-3, of="others"))
        >>> for images, labels in loader:
        ...     loss = leaf.two_stage_step(
        ...         activations, others, lambda: cross_entropy(model(images), labels)
        ...     )
    """
    stages = two_stages(activations, others)
    try:
        return take(stages, loss)
    finally:
        for stage in stages:
            for parameter in stage.learning:
                parameter.requires_grad_(True)


def take(
    stages: Sequence[Stage], loss: Callable[[], Tensor], on_nonfinite: Callable[[], None] = lambda: None
) -> Tensor:
    """Take one step in each stage, down the gradient of the loss as it is then; gives the last one, detached."""
    for stage in stages:
        for parameter in stage.resting:
            parameter.requires_grad_(False)
        for parameter in stage.learning:
            parameter.requires_grad_(True)
        stage.optimizer.zero_grad()
        value = loss()
        if value.device.type == "cpu" and not value.isfinite():  # elsewhere looking would stop the device
            on_nonfinite()
        value.backward()
        stage.optimizer.step()
    return value.detach()


def training_step(
    network: Network,
    stages: Sequence[Stage],
    images: Tensor,
    labels: Tensor,
    on_nonfinite: Callable[[], None] = lambda: None,
) -> Tensor:
    """Train on one minibatch.

    Args:
        images: ``(N, C, H, W)``, floating point.
        labels: ``(N,)``, int64.
        on_nonfinite: called on a CPU when a loss is NaN or infinite, before its gradients reach the parameters.

    Returns:
        The cross-entropy of the last stage before its step, a detached scalar on the network's device.
    """
    # No activation parameter reaches what lies before the first activation: computed once for both stages of DSPT.
    first = network.first_activation
    before = [parameter for layer in list(network)[:first] for parameter in layer.parameters()]
    for parameter in before:
        parameter.requires_grad_(True)
    shared = network(images, stop=first)

    def loss() -> Tensor:
        inputs = shared if all(parameter.requires_grad for parameter in before) else shared.detach()
        return cross_entropy(network(inputs, start=first), labels)

    return take(stages, loss, on_nonfinite)
