"""Activations not in the published commands: in the fully connected part only, F-neuron, frozen parameters."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from leaf.activations import ACTIVATIONS, AHAF, LEAF, Activation, Adaptive, learnable, plain

CENTRES = tuple(-4 + 8 * i / 17 for i in range(18))
"""Centres of the F-neuron's membership functions, 8/17 apart."""


def _at_centres(function: nn.Module) -> tuple[float, ...]:
    return tuple(function(torch.tensor(CENTRES, dtype=torch.float64)).tolist())


class FNeuron(Adaptive):
    r"""The F-neuron's activation, :math:`\sum_{i=0}^{17} w_i \mu_i(u)`: piecewise linear between 18 learnable points.

    :math:`\mu_i(u) = \max(0, 1 - |u - c_i| \cdot 17/8)` with centres :math:`c_i = -4 + 8i/17`. Below -4 the first and
    above 4 the last of these is 1. The weights are initialized to the form's values at the centres; as published, those
    of HardTanh are initialized to HardSigmoid's.

    Args:
        shape: shape of one sample's input; one parameter set per element.
        form: ``"tanh"``, ``"sigmoid"``, ``"hardtanh"`` or ``"hardsigmoid"``.

    Shape: input and output ``(N, *shape)``.
    Source: the public implementation of Bodyanskiy & Kostiuk (2023).
    """

    family = "fneuron"
    parameter_names = tuple(f"w{i}" for i in range(18))
    forms = {
        "tanh": _at_centres(nn.Tanh()),
        "sigmoid": _at_centres(nn.Sigmoid()),
        "hardtanh": _at_centres(nn.Hardsigmoid()),
        "hardsigmoid": _at_centres(nn.Hardsigmoid()),
    }

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        distance = u.clamp(CENTRES[0], CENTRES[-1])[..., None] - u.new_tensor(CENTRES)
        membership = (1 - distance.abs() * 17 / 8).clamp(min=0)
        return (membership * torch.stack(parameters, -1)).sum(-1)


def in_fully_connected_part(kind: Activation) -> Activation:
    """Restrict a learnable activation to linear layers; after convolutions its initial function is used unchanged."""

    def make(shape: Sequence[int]) -> nn.Module:
        return (kind if len(shape) == 1 else ACTIVATIONS[kind.form]).make(shape)

    return replace(kind, family=f"{kind.family}@ffn", make=make, fully_connected_only=True)


ACTIVATIONS.register("hardtanh", plain("hardtanh", nn.Hardtanh))
ACTIVATIONS.register("hardsigmoid", plain("hardsigmoid", nn.Hardsigmoid))
for family, title in ((AHAF, "AHAF"), (LEAF, "LEAF"), (FNeuron, "F-neuron")):
    for form in family.forms:
        kind = replace(learnable(family, form), title=title)
        ACTIVATIONS.register(f"{family.family}-{form}@ffn", in_fully_connected_part(kind))


def with_frozen(kind: Activation, *names: str) -> Activation:
    """Freeze parameters of a learnable activation, by name, at their initial values."""

    def make(shape: Sequence[int]) -> nn.Module:
        layer = kind.make(shape)
        for name in names:
            layer.get_parameter(name).requires_grad_(False)
        return layer

    return replace(
        kind,
        family=f"frozen_{'_'.join(names)}-{kind.family}",
        title=f"{kind.title} ({', '.join(names)} frozen)",
        make=make,
        slow_parameters=tuple(name for name in kind.slow_parameters if name not in names),
    )


for frozen in (("p2", "p4"), ("p2",)):
    kind = with_frozen(learnable(LEAF, "tanh"), *frozen)
    ACTIVATIONS.register(f"{kind.family}-tanh", kind)
