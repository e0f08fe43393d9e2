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
        >>> groups = leaf.parameter_groups(model, learning_rate=1e-3)
        >>> optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
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
    if (plan.two_stage or plan.weights_rest) and not adaptive:
        raise ValueError(f"{plan.title} trains activation parameters by themselves, this network has none")
    if plan.slow and not any(layer.slow_parameters for layer in adaptive):
        raise ValueError(f"{plan.title} slows parameters p2 and p4 down, which only LEAF has")
    rate = choice.settings["lr"]
    slow_rate = choice.slow_learning_rate if plan.slow else rate
    on_gpu = next(network.parameters()).is_cuda

    def optimize(of: str) -> torch.optim.Optimizer:
        groups = parameter_groups(network, rate, slow_learning_rate=slow_rate, weight_decay=0.0, of=of)
        # The published code's default implementation, on a GPU in the form that a CUDA graph can hold: there the bias
        # corrections of Adam are float32, up to 1e-5 of a step off. The fused one would save 4% of a step, but rounds
        # otherwise: it takes the second epoch of LeNet-5 with ReLU further from the published one than a reproduction
        # may be.
        return choice.kind(groups, foreach=False, capturable=on_gpu, **choice.settings)

    if not plan.two_stage and not plan.weights_rest:
        return [Stage(optimize("all"), [])]
    stages = two_stages(optimize("activations"), optimize("others"))
    return stages[:1] if plan.weights_rest else stages


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
