"""Other learnable activations, with which LEAF is compared in the same grid.

In ``ACTIVATIONS`` they share parameters as in their sources: PReLU per channel, Swish and the rational function per
layer.
"""

from torch import Tensor, ones_like
from torch.nn.functional import prelu

from leaf.adaptive import Adaptive, GatedLine
from leaf.names import PReLUFamily, RationalFamily, SwishFamily


class PReLU(PReLUFamily, Adaptive):
    r"""Parametric rectified linear unit, :math:`\max(u, 0) + a \min(u, 0)`, initially with a = 0.25.

    Args:
        shape, channel_dim, device, dtype: as in ``Adaptive``.
        form: ``"relu"``, the base function in comparisons. The initial function is a leaky ReLU.
        sharing: ``"channel"`` in the source. A feature of a linear layer is a channel.

    Shape: as in ``Adaptive``.
    Source: He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", 2015, Eq. 1.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        return prelu(u, *parameters)


class Swish(SwishFamily, GatedLine):
    r"""Swish with a learnable slope, :math:`u\,\sigma(\beta u)`.

    Args:
        shape, channel_dim, device, dtype: as in ``Adaptive``.
        form: ``"silu"``, the initial function.
        sharing: not specified in the source; commonly one β per ``"layer"``.

    Shape: as in ``GatedLine``.
    Source: Ramachandran, Zoph & Le, "Searching for Activation Functions", 2017.
    """

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        (beta,) = parameters
        return ones_like(beta), None, beta, None


class Rational(RationalFamily, Adaptive):
    r"""A rational (Padé) function of type (3, 2), :math:`(a_3 u^3 + a_2 u^2 + a_1 u + a_0) / (b_2 u^2 + b_1 u + b_0)`.

    The initial function is the best approximation of ReLU on [-1, 1]. The denominator may become 0.

    Args:
        shape, channel_dim, device, dtype: as in ``Adaptive``.
        form: ``"relu"``, which the initial function approximates.
        sharing: ``"layer"`` in the source.

    Shape: as in ``Adaptive``.
    Source: Boullé, Nakatsukasa & Townsend, "Rational neural networks", 2020; initial values from its code.
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        a0, a1, a2, a3, b0, b1, b2 = parameters
        return (((a3 * u + a2) * u + a1) * u + a0) / ((b2 * u + b1) * u + b0)
