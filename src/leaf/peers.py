r"""Other learnable activations to compare LEAF with, as cells of the same grid.

They share parameters as their sources do: PReLU has one per channel, Swish and the rational function have one set per
layer, LEAF and AHAF one set per element.
"""

from torch import Tensor, ones_like
from torch.nn.functional import prelu

from leaf.adaptive import Adaptive, GatedLine
from leaf.names import PReLUFamily, RationalFamily, SwishFamily


class PReLU(PReLUFamily, Adaptive):
    r"""Parametric rectified linear unit, :math:`\max(u, 0) + a \min(u, 0)`, initially with a = 0.25.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"relu"``, the function it is compared with; initially it is a leaky ReLU.
        sharing: as in the source, one parameter per ``"channel"``; a feature of a linear layer is a channel.

    Shape: input and output ``(N, *shape)``.
    Source: He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", 2015, Eq. 1.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        return prelu(u, *parameters)


class Swish(SwishFamily, GatedLine):
    r"""Swish with a learnable slope, :math:`u\,\sigma(\beta u)`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"silu"``, its initial function.
        sharing: the source does not specify it; commonly, and by default, one β per ``"layer"``.

    Shape: input and output ``(N, *shape)``; with ``pooled=True``, 2×2 max-pooling follows in the same pass.
    Source: Ramachandran, Zoph & Le, "Searching for Activation Functions", 2017.
    """

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        (beta,) = parameters
        return ones_like(beta), None, beta, None


class Rational(RationalFamily, Adaptive):
    r"""A rational (Padé) function of type (3, 2), :math:`(a_3 u^3 + a_2 u^2 + a_1 u + a_0) / (b_2 u^2 + b_1 u + b_0)`.

    Initially it is the best approximation to ReLU on [-1, 1]. The denominator is not prevented from becoming 0.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"relu"``, approximately its initial function.
        sharing: as in the source, one set of parameters per ``"layer"``.

    Shape: input and output ``(N, *shape)``.
    Source: Boullé, Nakatsukasa & Townsend, "Rational neural networks", 2020; initial values from its code.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        a0, a1, a2, a3, b0, b1, b2 = parameters
        return (((a3 * u + a2) * u + a1) * u + a0) / ((b2 * u + b1) * u + b0)
