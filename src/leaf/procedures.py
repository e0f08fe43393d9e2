"""Training procedures: which parameters learn when, and how fast.

- Classic: one optimizer over all parameters.
- P24Sl: parameters ``p2`` and ``p4`` of LEAF learn more slowly than the rest.
- DSPT (the published code's "2SPU-4"): two stages for every minibatch. First only the activation parameters learn;
  then, on the same minibatch and with the activations just updated, only the others do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from leaf.activations import Adaptive
from leaf.networks import Network


@dataclass(frozen=True)
class Procedure:
    """A training procedure: its name in tables, whether it has two stages, whether ``p2`` and ``p4`` are slow."""

    title: str
    two_stage: bool
    slow: bool


PROCEDURES: dict[str, Procedure] = {
    "classic": Procedure("Classic", two_stage=False, slow=False),
    "dspt": Procedure("DSPT", two_stage=True, slow=False),
    "p24sl": Procedure("P24Sl", two_stage=False, slow=True),
    "dspt-p24sl": Procedure("DSPT, P24Sl", two_stage=True, slow=True),
}


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of the experiment: its class, its settings, and P24Sl's learning rate for ``p2`` and ``p4``."""

    title: str
    kind: Callable[..., torch.optim.Optimizer]
    settings: dict[str, Any]
    slow_learning_rate: float


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer("Adam", torch.optim.Adam, {"lr": 1e-3}, 1e-6),
    "rmsprop": Optimizer("RMSprop", torch.optim.RMSprop, {"lr": 1e-4, "alpha": 0.9, "eps": 1e-7}, 1e-5),
}


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
        model: any module; what is in it of AHAF and LEAF is found.
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
        >>> optimizer = torch.optim.AdamW(leaf.parameter_groups(model, learning_rate=1e-3), weight_decay=0.05)
    """
    if of not in ("all", "activations", "others"):
        raise ValueError(f"there are no parameters of {of!r}; there are: all, activations, others")
    if slow_learning_rate is None:
        published = OPTIMIZERS["adam"]
        slow_learning_rate = learning_rate * published.slow_learning_rate / published.settings["lr"]
    layers = [layer for layer in model.modules() if isinstance(layer, Adaptive)]
    activation = {parameter for layer in layers for parameter in layer.parameters()}
    slow = {getattr(layer, name) for layer in layers for name in layer.slow_parameters}
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


def training_stages(network: Network, procedure: str, optimizer: str) -> list[Stage]:
    """The stages of one training step of ``network``, in order.

    Args:
        procedure: a name in ``PROCEDURES``.
        optimizer: a name in ``OPTIMIZERS``.

    Raises:
        ValueError: if the network has nothing that the procedure is about.
    """
    adaptive = [layer for layer in network.activations if isinstance(layer, Adaptive)]
    plan, choice = PROCEDURES[procedure], OPTIMIZERS[optimizer]
    if plan.two_stage and not adaptive:
        raise ValueError(f"{plan.title} trains activation parameters in a stage of their own, this network has none")
    if plan.slow and not any(layer.slow_parameters for layer in adaptive):
        raise ValueError(f"{plan.title} slows parameters p2 and p4 down, which only LEAF has")
    rate = choice.settings["lr"]
    slow_rate = choice.slow_learning_rate if plan.slow else rate

    def optimize(of: str) -> torch.optim.Optimizer:
        groups = parameter_groups(network, rate, slow_learning_rate=slow_rate, weight_decay=0.0, of=of)
        # The published code's default implementation. The fused one would save 4% of a step, but rounds otherwise: it
        # takes the second epoch of LeNet-5 with ReLU further from the published one than a reproduction may be.
        return choice.kind(groups, foreach=False, **choice.settings)

    return two_stages(optimize("activations"), optimize("others")) if plan.two_stage else [Stage(optimize("all"), [])]


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
            batch normalization counts the minibatch twice.

    Returns:
        The second stage's loss before its step, a detached scalar.

    Example:
        >>> activations = torch.optim.Adam(leaf.parameter_groups(model, learning_rate=1e-3, of="activations"))
        >>> others = torch.optim.Adam(leaf.parameter_groups(model, learning_rate=1e-3, of="others"))
        >>> for images, labels in loader:
        ...     loss = leaf.two_stage_step(activations, others, lambda: cross_entropy(model(images), labels))
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
