"""The training procedures and optimizers of the grid, by name.

- Classic: one optimizer over all parameters.
- P24Sl and DSPT: see ``leaf.procedures``.
- Tuning: only the activation parameters learn.

Each procedure can also take over a base network that was trained up to some epoch (the published code's "patch base").
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from leaf.names import Imported


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
        return isinstance(name, str) and (super().__contains__(name) or super().__contains__(self.plain_name(name)))


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
    kind: Imported
    settings: dict[str, Any]
    slow_learning_rate: float


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer("Adam", Imported("torch.optim:Adam"), {"lr": 1e-3}, 1e-6),
    "rmsprop": Optimizer("RMSprop", Imported("torch.optim:RMSprop"), {"lr": 1e-4, "alpha": 0.9, "eps": 1e-7}, 1e-5),
}
