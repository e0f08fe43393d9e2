"""Two custom activations: a fixed function, and a learnable one with this initial function.

With plugins: [examples/my_activation.py] in the configuration, their names are `mish` and `beta-mish`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from leaf.activations import ACTIVATIONS, Adaptive, fixed, learnable

# Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019
ACTIVATIONS.register("mish", fixed("mish", nn.Mish))


class BetaMish(Adaptive):
    r"""Mish with a learnable slope, :math:`u \tanh(\mathrm{softplus}(\beta u))`; one per element."""

    family = "beta-mish"
    parameter_names = ("beta",)
    forms = {"mish": (1.0,)}

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        (beta,) = parameters
        return u * torch.tanh(softplus(beta * u))


ACTIVATIONS.register("beta-mish", learnable(BetaMish, "mish"))
