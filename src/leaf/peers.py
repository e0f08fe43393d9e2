r"""LEAF's rivals, as cells of the same grid.

What a parameter belongs to differs between them, as their sources have it: PReLU has one for each channel; Swish and
the rational function have one set for each layer; LEAF and AHAF one for each element.
"""

from torch import Tensor, ones_like
from torch.nn.functional import prelu

from leaf.adaptive import Adaptive, GatedLine
from leaf.names import PReLUFamily, RationalFamily, SwishFamily


class PReLU(PReLUFamily, Adaptive):
    r"""Parametric rectified linear unit, :math:`\max(u, 0) + a \min(u, 0)`, which starts with a = 0.25.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"relu"``, which it is compared with; it starts as a leaky one.
        sharing: the source has one parameter for each ``"channel"``, a linear layer's features counting as such.

    Shape: input and output ``(N, *shape)``.
    Source: He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", 2015, Eq. 1.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        return prelu(u, *parameters)


class Swish(SwishFamily, GatedLine):
    r"""Swish with a slope that learns, :math:`u\,\sigma(\beta u)`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"silu"``, which it starts as.
        sharing: the source leaves open what owns a β; here, as is common, each layer has one, ``"layer"``.

    Shape: input and output ``(N, *shape)``; with ``pooled=True``, 2×2 max-pooling follows in the same pass.
    Source: Ramachandran, Zoph & Le, "Searching for Activation Functions", 2017.
    """

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        (beta,) = parameters
        return ones_like(beta), None, beta, None


class Rational(RationalFamily, Adaptive):
    r"""A rational (Padé) function of type (3, 2), :math:`(a_3 u^3 + a_2 u^2 + a_1 u + a_0) / (b_2 u^2 + b_1 u + b_0)`.

    It starts as the best approximation to ReLU on [-1, 1], and nothing keeps its denominator from 0.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``.
        form: ``"relu"``, which it nearly starts as.
        sharing: the source has one set of parameters for each layer, ``"layer"``.

    Shape: input and output ``(N, *shape)``.
    Source: Boullé, Nakatsukasa & Townsend, "Rational neural networks", 2020; the initial values are its code's.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        a0, a1, a2, a3, b0, b1, b2 = parameters
        return (((a3 * u + a2) * u + a1) * u + a0) / ((b2 * u + b1) * u + b0)
