"""The activation of the F-neuron, a variant in the published code."""

import torch
from torch import Tensor

from leaf.adaptive import Adaptive
from leaf.names import CENTRES, FNeuronFamily


class FNeuron(FNeuronFamily, Adaptive):
    r"""The activation of the F-neuron, :math:`\sum_{i=0}^{17} w_i \mu_i(u)`: linear between 18 learnable points.

    :math:`\mu_i(u) = \max(0, 1 - |u - c_i| \cdot 17/8)` with centres :math:`c_i = -4 + 8i/17`. Below -4 the first, and
    above 4 the last of them is 1. The initial weights are the form's values at the centres. As published, the form
    HardTanh has the weights of HardSigmoid.

    Args:
        form: ``"tanh"``, ``"sigmoid"``, ``"hardtanh"`` or ``"hardsigmoid"``.
        shape, sharing, channel_dim, device, dtype: as in ``Adaptive``.

    Shape: as in ``Adaptive``.
    Source: the public implementation of Bodyanskiy & Kostiuk (2023).
    """

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        distance = u.clamp(CENTRES[0], CENTRES[-1])[..., None] - u.new_tensor(CENTRES)
        membership = (1 - distance.abs() * 17 / 8).clamp(min=0)
        return (membership * torch.stack(parameters, -1)).sum(-1)
