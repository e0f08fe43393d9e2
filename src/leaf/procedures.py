"""Training procedures: which parameters learn when, and how fast.

- Classic: one optimizer over all parameters.
- P24Sl: parameters ``p2`` and ``p4`` of LEAF learn more slowly than the rest.
- DSPT (the published code's "2SPU-4"): two stages for every minibatch. First only the activation parameters learn;
  then, on the same minibatch and with the activations just updated, only the others do.
- Tuning: only the activation parameters learn.

Each of them can also take over a base network that was trained up to some epoch (the published code's "patch base").
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from leaf.activations import Adaptive
from leaf.networks import Network


@dataclass(frozen=True)
class Procedure:
    """A training procedure.

    Attributes:
        title: its name in tables.
        two_stage: whether activation parameters learn in a stage of their own.
        slow: whether ``p2`` and ``p4`` are slow.
        weights_rest: whether only activation parameters learn.
        start: the epochs that a base network has behind it when the procedure takes it over; 0 for a new network.
        stop: the epochs after which it ends, if that isn't with the scale's last.
    """

    title: str
    two_stage: bool = False
    slow: bool = False
    weights_rest: bool = False
    start: int = 0
    stop: int | None = None


class Procedures(dict[str, Procedure]):
    """Procedures by name. Two more of each are there when asked for, for any epoch: ``first50-…``, which ends after its
    first 50 epochs, and ``patch50-…``, which takes over a base network with 50 epochs behind it.
    """

    PREFIX = r"(?:(?:first|patch)[1-9]\d*-)?"
    NOTE = "; and of each firstK-… and patchK-…, K an epoch"

    def plain_name(self, name: str) -> str:
        """A procedure's name without the epoch at which it stops or starts."""
        return re.sub(f"^{self.PREFIX}", "", name)

    def __missing__(self, name: str) -> Procedure:
        found = re.fullmatch(r"(first|patch)([1-9]\d*)-(.+)", name)
        if not found or not super().__contains__(found[3]):
            raise KeyError(name)
        plan, epoch = self[found[3]], int(found[2])
        if found[1] == "first":
            return replace(plan, title=f"{plan.title}, first {epoch} epochs", stop=epoch)
        return replace(plan, title=f"patched at epoch {epoch}, {plan.title}", start=epoch)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(self.plain_name(name))


PROCEDURES = Procedures(
    {
        "classic": Procedure("Classic"),
        "dspt": Procedure("DSPT", two_stage=True),
        "p24sl": Procedure("P24Sl", slow=True),
        "dspt-p24sl": Procedure("DSPT, P24Sl", two_stage=True, slow=True),
        "tune": Procedure("activations alone", weights_rest=True),
    }
)


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
        self.learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.resting = list(resting)


def training_stages(network: Network, procedure: str, optimizer: str) -> list[Stage]:
    """The stages of one training step of ``network``, in order.

    Args:
        procedure: a name in ``PROCEDURES``.
        optimizer: a name in ``OPTIMIZERS``.

    Raises:
        ValueError: if the network has nothing that the procedure is about.
    """
    adaptive = [layer for layer in network.activations if isinstance(layer, Adaptive)]
    plan = PROCEDURES[procedure]
    if (plan.two_stage or plan.weights_rest) and not adaptive:
        raise ValueError(f"{plan.title} trains activation parameters by themselves, this network has none")
    slow = [getattr(layer, name) for layer in adaptive for name in layer.slow_parameters] if plan.slow else []
    if plan.slow and not slow:
        raise ValueError(f"{plan.title} slows parameters p2 and p4 down, which only LEAF has")

    def optimize(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        choice = OPTIMIZERS[optimizer]
        slow_ids = {id(parameter) for parameter in slow}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if id(p) not in slow_ids]},
            {"params": [p for p in parameters if id(p) in slow_ids], "lr": choice.slow_learning_rate},
        ]
        # The published code's default implementation. The fused one would save 4% of a step, but rounds otherwise: it
        # takes the second epoch of LeNet-5 with ReLU further from the published one than a reproduction may be.
        return choice.kind([group for group in groups if group["params"]], foreach=False, **choice.settings)

    everything = list(network.parameters())
    if not plan.two_stage and not plan.weights_rest:
        return [Stage(optimize(everything), [])]
    activation = [parameter for layer in adaptive for parameter in layer.parameters()]
    activation_ids = {id(parameter) for parameter in activation}
    others = [parameter for parameter in everything if id(parameter) not in activation_ids]
    first = Stage(optimize(activation), others)
    return [first] if plan.weights_rest else [first, Stage(optimize(others), activation)]


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
    for stage in stages:
        for parameter in stage.resting:
            parameter.requires_grad_(False)
        for parameter in stage.learning:
            parameter.requires_grad_(True)
        stage.optimizer.zero_grad()
        inputs = shared if all(parameter.requires_grad for parameter in before) else shared.detach()
        loss = cross_entropy(network(inputs, start=first), labels)
        if loss.device.type == "cpu" and not loss.isfinite():  # elsewhere looking would stop the device
            on_nonfinite()
        loss.backward()
        stage.optimizer.step()
    return loss.detach()
