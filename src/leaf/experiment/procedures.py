"""The training procedures and optimizers of the grid, by name.

- Classic: one optimizer over all parameters.
- P24Sl and DSPT: see ``leaf.procedures``.
- Tuning: only the activation parameters learn.

Each procedure can also take over a base network that was trained up to some epoch (the published code's "patch base").
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from leaf.activations import Adaptive
from leaf.networks import Network
from leaf.procedures import Stage, parameter_groups, two_stages


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
