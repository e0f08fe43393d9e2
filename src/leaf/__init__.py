"""Learnable activation functions (AHAF, LEAF) and the experiment that compares them with plain ones.

In a model of your own::

    conversion = leaf.replace_activations(model, "leaf", example_input=images[:1], sharing="channel")
    print(conversion)
    optimizer = torch.optim.AdamW(leaf.parameter_groups(model, learning_rate=1e-3))
"""

from typing import TYPE_CHECKING, Any

from leaf import peers as peers  # these register themselves
from leaf import variants as variants
from leaf.activations import ACTIVATIONS, AHAF, LEAF
from leaf.conversion import Conversion, Kept, Replaced, replace_activations
from leaf.errors import UserError
from leaf.networks import NETWORKS, KerasNet, LeNet5
from leaf.procedures import parameter_groups, two_stage_step

if TYPE_CHECKING:
    from leaf.experiment.cells import build_network

__all__ = [
    "ACTIVATIONS",
    "AHAF",
    "LEAF",
    "NETWORKS",
    "Conversion",
    "Kept",
    "KerasNet",
    "LeNet5",
    "Replaced",
    "UserError",
    "build_network",
    "parameter_groups",
    "replace_activations",
    "two_stage_step",
]


def __getattr__(name: str) -> Any:
    """``build_network`` needs the experiment's data sets, which the library alone does not import."""
    if name == "build_network":
        from leaf.experiment.cells import build_network

        return build_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
