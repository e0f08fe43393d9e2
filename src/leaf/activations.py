"""The activations of the experiment: AHAF, LEAF, and the base functions.

Source: Bodyanskiy & Kostiuk, "Learnable Extended Activation Function for Deep Neural Networks",
International Journal of Computing 22(3), 2023, doi 10.47839/ijc.22.3.3225.
"""

import math
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from leaf import names
from leaf.adaptive import SHARING as SHARING  # part of this module's interface
from leaf.adaptive import Adaptive as Adaptive
from leaf.adaptive import GatedLine as GatedLine
from leaf.errors import UserError
from leaf.names import ACTIVATIONS as ACTIVATIONS
from leaf.names import STEP_SLOPE as STEP_SLOPE
from leaf.names import Activation as Activation
from leaf.names import AffineFamily, AHAFFamily, LEAFFamily
from leaf.names import fixed as fixed
from leaf.names import learnable as learnable
from leaf.names import plain as plain

BASE_FUNCTIONS: dict[str, type[nn.Module]] = {name: function.load() for name, function in names.BASE_FUNCTIONS.items()}
"""The paper's base functions, by name in ``ACTIVATIONS``."""


class AHAF(AHAFFamily, GatedLine):
    r"""Adaptive Hybrid Activation Function, :math:`\beta u\,\sigma(\gamma u)`.

    Args:
        form: the initial function: ``"relu"`` or ``"silu"``.
        shape, sharing, channel_dim, device, dtype, slope: as in ``GatedLine``, and so are the errors raised.

    Shape: as in ``GatedLine``.
    Source: Bodyanskiy & Kostiuk (2023); introduced by the same authors in 2022.
    """

    slope_parameter = "gamma"

    beta: nn.Parameter
    gamma: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        beta, gamma = parameters
        return beta, None, gamma, None


class LEAF(LEAFFamily, GatedLine):
    r"""Learnable Extended Activation Function, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int is a single size.
        form: the initial function: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        sharing, channel_dim, device, dtype, slope: as in ``GatedLine``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``; with ``pooled=True``, 2×2 max-pooling of inputs
    ``(N, C, H, W)`` follows in the same pass.
    Source: Bodyanskiy & Kostiuk (2023).
    """

    slope_parameter = "p3"

    p1: nn.Parameter
    p2: nn.Parameter
    p3: nn.Parameter
    p4: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        p1, p2, p3, p4 = parameters
        return p1, p2, p3, p4


class Affine(AffineFamily, Adaptive):
    r"""A base function with learnable scale and shift, :math:`a f(u) + b`.

    It has as many parameters as AHAF, but they do not change the form of the function. It is a control for the effect
    of the number of parameters.

    Args:
        form: the base function, also the initial one: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        shape, sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: as in ``Adaptive``.
    """

    scale: nn.Parameter
    shift: nn.Parameter

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        scale, shift = parameters
        return torch.addcmul(shift, scale, BASE_FUNCTIONS[self.form]()(u))


PROBED_SHAPES = ((2, 4, 6), (3,))
"""Shapes of one sample's input, after a convolution and after a linear layer, with which activations are checked."""


def check(name: str, kind: Any) -> None:
    """Check an activation before it is registered.

    Raises:
        UserError: if it is invalid.
    """
    if not isinstance(kind, Activation):
        raise UserError(f"activation {name!r} is not an Activation; make one with fixed(…) or learnable(…)")
    if kind.family == "base":
        if kind.form != name:
            raise UserError(f"activation {name!r}: a base function's form is its own name, not {kind.form!r}")
    elif kind.form not in ACTIVATIONS or ACTIVATIONS[kind.form].family != "base":
        raise UserError(f"activation {name!r}: its form {kind.form!r} is not a base function in ACTIVATIONS")
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
    """Check that the module of an activation matches its description and keeps the shape of its input."""
    module = kind.build(shape)
    learns = any(True for _ in module.parameters())
    if (learns and not kind.adaptive) or (kind.adaptive and not learns and not kind.fully_connected_only):
        raise UserError(f"activation {name!r}: adaptive is {kind.adaptive}, which its parameters contradict")
    if learns and not isinstance(module, kind.layer or Adaptive):
        raise UserError(f"activation {name!r}: a learnable activation is a leaf.activations.Adaptive")
    inputs = torch.linspace(-3, 3, 5 * math.prod(shape)).reshape(5, *shape)
    try:
        # Meta tensors suffice for the shape. Real operations would start torch's threads; forked processes then hang.
        outputs = kind.build(shape).to("meta")(inputs.to("meta"))
    except Exception:
        outputs = module(inputs)
    if not isinstance(outputs, Tensor) or outputs.shape != inputs.shape or not outputs.is_floating_point():
        found = f"{list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(
            f"activation {name!r}: gives {found} for inputs of shape {list(inputs.shape)}, not the same shape"
        )
