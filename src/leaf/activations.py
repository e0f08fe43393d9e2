"""The activation functions of the experiment: AHAF, LEAF and the base functions they start from.

Source: Bodyanskiy & Kostiuk, "Learnable Extended Activation Function for Deep Neural Networks",
International Journal of Computing 22(3), 2023, doi 10.47839/ijc.22.3.3225.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from leaf.adaptive import SHARING as SHARING  # part of this module's interface
from leaf.adaptive import Adaptive as Adaptive
from leaf.adaptive import GatedLine as GatedLine
from leaf.errors import UserError
from leaf.registry import Registry

BASE_FUNCTIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
"""The paper's base functions, by the names that they have in ``ACTIVATIONS``."""

# As a slope inside the sigmoid it turns it into the step function that ReLU needs. Not for float16: it overflows there.
STEP_SLOPE = 2.0**16


class AHAF(GatedLine):
    r"""Adaptive Hybrid Activation Function, :math:`\beta u\,\sigma(\gamma u)`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function it starts as: ``"relu"`` or ``"silu"``.
        sharing, channel_dim, device, dtype, slope: as in ``GatedLine``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``; with ``pooled=True``, 2×2 max-pooling of inputs
    ``(N, C, H, W)`` follows in the same pass.
    Source: Bodyanskiy & Kostiuk (2023); introduced by the same authors in 2022.
    """

    family = "ahaf"
    parameter_names = ("beta", "gamma")
    slope_parameter = "gamma"
    forms = {"relu": (1.0, STEP_SLOPE), "silu": (1.0, 1.0)}

    beta: nn.Parameter
    gamma: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        beta, gamma = parameters
        return beta, None, gamma, None


class LEAF(GatedLine):
    r"""Learnable Extended Activation Function, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function it starts as: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        sharing, channel_dim, device, dtype, slope: as in ``GatedLine``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``; with ``pooled=True``, 2×2 max-pooling of inputs
    ``(N, C, H, W)`` follows in the same pass.
    Source: Bodyanskiy & Kostiuk (2023).
    """

    family = "leaf"
    parameter_names = ("p1", "p2", "p3", "p4")
    forms = {
        "relu": (1.0, 0.0, STEP_SLOPE, 0.0),
        "silu": (1.0, 0.0, 1.0, 0.0),
        "tanh": (0.0, 2.0, 2.0, -1.0),
        "sigmoid": (0.0, 1.0, 1.0, 0.0),
    }
    slow_parameters = ("p2", "p4")
    slope_parameter = "p3"

    p1: nn.Parameter
    p2: nn.Parameter
    p3: nn.Parameter
    p4: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        p1, p2, p3, p4 = parameters
        return p1, p2, p3, p4


class Affine(Adaptive):
    r"""A base function with a scale and a shift that learn, :math:`a f(u) + b`.

    The control for capacity: as many parameters as AHAF, none of which changes the function's form.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function, and what it starts as: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``.
    """

    family = "affine"
    parameter_names = ("scale", "shift")
    forms = dict.fromkeys(("relu", "silu", "tanh", "sigmoid"), (1.0, 0.0))

    scale: nn.Parameter
    shift: nn.Parameter

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        scale, shift = parameters
        return torch.addcmul(shift, scale, BASE_FUNCTIONS[self.form]()(u))


@dataclass(frozen=True)
class Activation:
    """All that the rest of the project knows of an activation, under its name in ``ACTIVATIONS``.

    Attributes:
        family: ``"base"`` for a plain function, else the family of the learnable one.
        title: the family in tables.
        form: the plain function that it is or starts as, by its name in ``ACTIVATIONS``: what tables compare it with.
        make: makes the module for inputs of one sample's shape.
        adaptive: whether it has parameters to train; the module is an ``Adaptive`` then.
        slow_parameters: those of them that P24Sl slows down; empty where P24Sl has no meaning.
        fused: whether ``leaf.kernels`` computes it.
        start: what it starts as, in words, where that is not quite its form.
        fully_connected_only: whether it learns after linear layers only and is its form after convolutions.
        layer: class of the learnable module, for which conversion of other models looks; ``None`` for a plain function.
    """

    family: str
    title: str
    form: str
    make: Callable[[Sequence[int]], nn.Module]
    adaptive: bool = False
    slow_parameters: tuple[str, ...] = ()
    fused: bool = False
    start: str = ""
    fully_connected_only: bool = False
    layer: type[Adaptive] | None = None

    def build(self, shape: Sequence[int]) -> nn.Module:
        """The module for inputs of one sample's shape, ``(C, H, W)`` or ``(features,)``.

        What it draws for itself it draws from a copy of torch's generator: a network's weights are the same whatever
        its activations are.
        """
        with torch.random.fork_rng(devices=[]):
            return self.make(shape)


def plain(name: str, function: Callable[[], nn.Module]) -> Activation:
    """A plain function, such as ``plain("mish", nn.Mish)``; ``name`` is the one it has in ``ACTIVATIONS``."""
    return Activation("base", "base", name, lambda shape: function())


def learnable(family: type[Adaptive], form: str, sharing: str | None = None, start: str = "") -> Activation:
    """A learnable activation of a family, starting as ``form``; parameters are shared as usual, if not otherwise."""
    name, title = family.family, family.__name__
    sharing = sharing or family.usual_sharing
    if sharing != family.usual_sharing:
        name, title = f"{sharing}-{name}", f"{title} per {sharing}"
    make = partial(family, form=form, sharing=sharing)
    return Activation(name, title, form, make, True, family.slow_parameters, family.fused, start, layer=family)


PROBED_SHAPES = ((2, 4, 6), (3,))
"""Shapes of one sample's input, after a convolution and after a linear layer, that an activation is tried on."""


def _check(name: str, kind: Any) -> None:
    """See that an activation can be registered.

    Raises:
        UserError: if not.
    """
    if not isinstance(kind, Activation):
        raise UserError(f"activation {name!r} is no Activation; make one with plain(…) or learnable(…)")
    if kind.family == "base":
        if kind.form != name:
            raise UserError(f"activation {name!r}: a plain function's form is its own name, not {kind.form!r}")
    elif kind.form not in ACTIVATIONS or ACTIVATIONS[kind.form].family != "base":
        raise UserError(f"activation {name!r}: its form {kind.form!r} is no plain function in ACTIVATIONS")
    same = [n for n, k in ACTIVATIONS.items() if (k.family, k.form) == (kind.family, kind.form) and n != name]
    if same:
        raise UserError(f"activation {name!r}: family {kind.family!r} as {kind.form!r} is {same[0]!r} already")
    if kind.layer is not None:
        try:
            signature(kind.layer).bind((3,), kind.form, sharing="layer", channel_dim=1, device=None, dtype=None)
        except TypeError as error:
            raise UserError(
                f"activation {name!r}: {kind.layer.__name__} lacks arguments of Adaptive: {error}"
            ) from None
    for shape in PROBED_SHAPES:
        _probe(name, kind, shape)


@torch.no_grad()
def _probe(name: str, kind: Activation, shape: tuple[int, ...]) -> None:
    """See that the module of an activation is what it is said to be and keeps its input's shape."""
    module = kind.build(shape)
    learns = any(True for _ in module.parameters())
    if (learns and not kind.adaptive) or (kind.adaptive and not learns and not kind.fully_connected_only):
        raise UserError(f"activation {name!r}: adaptive is {kind.adaptive}, but its parameters say otherwise")
    if learns and not isinstance(module, kind.layer or Adaptive):
        raise UserError(f"activation {name!r}: a learnable activation is a leaf.activations.Adaptive")
    inputs = torch.linspace(-3, 3, 5 * math.prod(shape)).reshape(5, *shape)
    try:
        # Shapes alone where they suffice: operations would start torch's threads, and forked processes hang then.
        outputs = kind.build(shape).to("meta")(inputs.to("meta"))
    except Exception:
        outputs = module(inputs)
    if not isinstance(outputs, Tensor) or outputs.shape != inputs.shape or not outputs.is_floating_point():
        found = f"{list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(
            f"activation {name!r}: gives {found} for inputs of shape {list(inputs.shape)}, not the same shape"
        )


ACTIVATIONS: Registry[Activation] = Registry("activation", _check)
"""Every activation that a network can be built with, by name: ``relu``, ``ahaf-silu``, ``leaf-tanh``, …, and controls
for capacity: ``affine-tanh``, ``channel-leaf-tanh``, …"""

for _name, _function in BASE_FUNCTIONS.items():
    ACTIVATIONS.register(_name, plain(_name, _function))
for _families, _sharing in (((AHAF, LEAF, Affine), "element"), ((AHAF, LEAF), "channel")):
    for _family in _families:
        for _form in _family.forms:
            _kind = learnable(_family, _form, _sharing)
            ACTIVATIONS.register(f"{_kind.family}-{_form}", _kind)
