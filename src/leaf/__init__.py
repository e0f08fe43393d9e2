"""Learnable activation functions (AHAF, LEAF) and the experiment that compares them with fixed ones.

In a model of your own::

    conversion = leaf.replace_activations(model, "leaf", example_input=images[:1], sharing="channel")
    print(conversion)
    optimizer = torch.optim.AdamW(leaf.parameter_groups(model, learning_rate=1e-3))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaf.activations import ACTIVATIONS, AHAF, LEAF
    from leaf.conversion import Conversion, Kept, Replaced, replace_activations
    from leaf.errors import UserError
    from leaf.experiment.building import build_network
    from leaf.networks import NETWORKS, KerasNet, LeNet5
    from leaf.procedures import parameter_groups, two_stage_step

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

_MODULES = {
    "names": ("ACTIVATIONS", "NETWORKS"),
    "activations": ("AHAF", "LEAF"),
    "networks": ("KerasNet", "LeNet5"),
    "conversion": ("Conversion", "Kept", "Replaced", "replace_activations"),
    "procedures": ("parameter_groups", "two_stage_step"),
    "errors": ("UserError",),
    "experiment.building": ("build_network",),
}
"""The modules of the public names. A name is imported on first use, so that ``leaf.names`` does not import torch."""


def __getattr__(name: str) -> Any:
    """Import a public name or a module of the library."""
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"leaf.{module}"), name)
            return value
    try:
        return import_module(f"leaf.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"leaf.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
