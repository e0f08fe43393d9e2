"""Training procedures and optimizers of the grid, by name.

- Classic: one optimizer for all parameters.
- P24Sl and DSPT: see ``leaf.procedures``.
- Tuning: only the activation parameters are trained.

Each procedure can also start from a trained base network (the published code's "patch base").
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from leaf.names import Imported


@dataclass(frozen=True)
class Procedure:
    """A training procedure.

    Attributes:
        title: name in tables.
        two_stage: ``True`` if activation parameters are trained in a separate stage.
        slow: ``True`` if ``p2`` and ``p4`` have a lower learning rate.
        weights_rest: ``True`` if all parameters except those of activations are frozen.
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

    def base_name(self, name: str) -> str:
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
        return isinstance(name, str) and (super().__contains__(name) or super().__contains__(self.base_name(name)))


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


ADAM = Optimizer("Adam", Imported("torch.optim:Adam"), {"lr": 1e-3}, 1e-6)

OPTIMIZERS: dict[str, Optimizer] = {
    "adam": ADAM,
    "rmsprop": Optimizer("RMSprop", Imported("torch.optim:RMSprop"), {"lr": 1e-4, "alpha": 0.9, "eps": 1e-7}, 1e-5),
    "adam-3e-4": replace(ADAM, title="Adam at 3e-4", settings={"lr": 3e-4}, slow_learning_rate=3e-7),
    "adam-3e-3": replace(ADAM, title="Adam at 3e-3", settings={"lr": 3e-3}, slow_learning_rate=3e-6),
}
