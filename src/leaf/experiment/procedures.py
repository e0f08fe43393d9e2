"""The training procedures and optimizers of the grid, by name.

- Classic: one optimizer for all parameters.
- P24Sl and DSPT: see ``leaf.procedures``.
- Tuning: only the activation parameters are trained.

Each procedure can also start from a base network after some epochs of training (the published code's "patch base").
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
        title: name in tables.
        two_stage: whether activation parameters are trained in a separate stage.
        slow: whether ``p2`` and ``p4`` have a lower learning rate.
        weights_rest: whether all parameters except those of activations are frozen.
        start: number of epochs that the base network was trained for; 0 for a new network.
        stop: epoch after which training ends; ``None`` for the scale's last.
    """

    title: str
    two_stage: bool = False
    slow: bool = False
    weights_rest: bool = False
    start: int = 0
    stop: int | None = None


class Procedures(dict[str, Procedure]):
    """Procedures by name, including two derived ones of each for any epoch, such as 50.

    ``first50-…`` ends after 50 epochs; ``patch50-…`` starts from a base network that was trained for 50 epochs.
    """

    PREFIX = r"(?:(?:first|patch)[1-9]\d*-)?"
    NOTE = "; and of each firstK-… and patchK-…, K an epoch"

    def plain_name(self, name: str) -> str:
        """Remove the prefix ``firstK-`` or ``patchK-`` from a procedure's name."""
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
    """Build the stages of one training step of ``network``, in order.

    Args:
        procedure: a name in ``PROCEDURES``.
        optimizer: a name in ``OPTIMIZERS``.

    Raises:
        ValueError: if the network lacks the parameters that the procedure trains separately.
    """
    adaptive = [layer for layer in network.activations if isinstance(layer, Adaptive)]
    plan, choice = PROCEDURES[procedure], OPTIMIZERS[optimizer]
    if (plan.two_stage or plan.weights_rest) and not adaptive:
        raise ValueError(f"{plan.title} trains activation parameters separately, but this network has none")
    if plan.slow and not any(layer.slow_parameters for layer in adaptive):
        raise ValueError(f"{plan.title} slows down parameters p2 and p4, which only LEAF has")
    rate = choice.settings["lr"]
    slow_rate = choice.slow_learning_rate if plan.slow else rate
    on_gpu = next(network.parameters()).is_cuda

    def optimize(of: str) -> torch.optim.Optimizer:
        groups = parameter_groups(network, rate, slow_learning_rate=slow_rate, weight_decay=0.0, of=of)
        # The published code uses this default implementation. On a GPU it must be capturable in a CUDA graph; Adam's
        # bias corrections are then float32, with an error of up to 1e-5 of a step. The fused implementation would save
        # 4% of a step, but it rounds differently: with it the second epoch of LeNet-5 with ReLU differs from the
        # published one by more than the tolerance.
        return choice.kind(groups, foreach=False, capturable=on_gpu, **choice.settings)

    if not plan.two_stage and not plan.weights_rest:
        return [Stage(optimize("all"), [])]
    stages = two_stages(optimize("activations"), optimize("others"))
    return stages[:1] if plan.weights_rest else stages
