"""The training procedures P24Sl and DSPT for any training loop.

- P24Sl, with ``parameter_groups``: LEAF's parameters ``p2`` and ``p4`` have a lower learning rate than all others.
- DSPT ("2SPU-4" in the published code), with ``two_stage_step``: every minibatch has two stages. The first updates only
  the activation parameters. The second, on the same minibatch, updates only the others.
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
"""Default ratio of the learning rate to that of slow parameters in P24Sl: the paper's with Adam."""


class Stage:
    """One optimizer step on a minibatch, with the parameters that it updates and those that are frozen."""

    def __init__(self, optimizer: torch.optim.Optimizer, frozen: Sequence[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.learning = parameters_of(optimizer)
        self.frozen = list(frozen)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """List the parameters of an optimizer that require a gradient."""
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
    """Group a model's parameters for an optimizer, with a lower learning rate for LEAF's ``p2`` and ``p4`` (P24Sl).

    Args:
        model: any module. Parameters of its learnable activations may be pruned (``torch.nn.utils.prune``) or
            parametrized (``torch.nn.utils.parametrize``).
        learning_rate: learning rate of all parameters except ``p2`` and ``p4``.
        slow_learning_rate: learning rate of ``p2`` and ``p4``. Default: ``learning_rate / 1000``, the paper's ratio
            with Adam (1/10 with RMSprop). The value of ``learning_rate`` gives the procedure classic.
        weight_decay: weight decay of all parameters except those of activations. Default: the optimizer's setting.
        activation_weight_decay: weight decay of activation parameters. The default is 0, since decay would change the
            function: a gate's slope of 2^16, for example, makes a ReLU.
        of: which parameters to return: ``"all"``, those of ``"activations"``, or the ``"others"``.

    Returns:
        One group for each combination of settings; parameters are in the model's order.

    Raises:
        ValueError: if ``of`` is unknown.

    Example:
        >>> groups = leaf.parameter_groups(model, learning_rate=1e-3)
        >>> optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    """
    if of not in ("all", "activations", "others"):
        raise ValueError(f"of: unknown value {of!r}; known: all, activations, others")
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
    """List the parameters from which a pruned or parametrized parameter is computed, or the parameter itself."""
    if is_parametrized(layer, name):
        return list(layer.get_submodule(f"parametrizations.{name}").parameters())
    own = dict(layer.named_parameters(recurse=False))
    # The suffixes are those of pruning, spectral_norm and weight_norm in torch.nn.utils.
    return [own[key] for key in (name, f"{name}_orig", f"{name}_g", f"{name}_v") if key in own]


def two_stages(activations: torch.optim.Optimizer, others: torch.optim.Optimizer) -> list[Stage]:
    """Make the stages of DSPT: the first updates the activation parameters, the second the others."""
    return [Stage(activations, parameters_of(others)), Stage(others, parameters_of(activations))]


def two_stage_step(
    activations: torch.optim.Optimizer, others: torch.optim.Optimizer, loss: Callable[[], Tensor]
) -> Tensor:
    """Train a model on one minibatch with DSPT: first the activation parameters, then all others.

    Args:
        activations: optimizer of the activation parameters.
        others: optimizer of the other parameters.
        loss: function that computes the model's output on the minibatch and returns the loss. It is called once per
            stage: dropout draws a new mask each time, and batch normalization counts the minibatch twice.
            ``DistributedDataParallel`` needs ``find_unused_parameters=True``, since in each stage some parameters have
            no gradient.

    Returns:
        The loss of the second stage before its step, a detached scalar.

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
    """Compute the loss and take an optimizer step in each stage; return the last stage's loss, detached."""
    for stage in stages:
        for parameter in stage.frozen:
            parameter.requires_grad_(False)
        for parameter in stage.learning:
            parameter.requires_grad_(True)
        stage.optimizer.zero_grad()
        value = loss()
        if value.device.type == "cpu" and not value.isfinite():  # on a GPU the check would synchronize
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
        on_nonfinite: function that is called on a CPU if a loss is NaN or infinite, before parameters are updated.

    Returns:
        The cross-entropy of the last stage before its step, a detached scalar on the network's device.
    """
    # The layers before the first activation have no activation parameter: both stages of DSPT use the same output.
    first = network.first_activation
    before = [parameter for layer in list(network)[:first] for parameter in layer.parameters()]
    for parameter in before:
        parameter.requires_grad_(True)
    shared = network(images, stop=first)

    def loss() -> Tensor:
        inputs = shared if all(parameter.requires_grad for parameter in before) else shared.detach()
        return cross_entropy(network(inputs, start=first), labels)

    return take(stages, loss, on_nonfinite)
