"""The activation functions of the experiment: AHAF, LEAF and the base functions they start from.

Source: Bodyanskiy & Kostiuk, "Learnable Extended Activation Function for Deep Neural Networks",
International Journal of Computing 22(3), 2023, doi 10.47839/ijc.22.3.3225.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

BASE_FUNCTIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

# As a slope inside the sigmoid it turns it into the step function that ReLU needs. Not for float16: it overflows there.
STEP_SLOPE = 2.0**16


class _GatedLine(torch.autograd.Function):
    r"""A line behind a sigmoid gate, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, with analytic gradients.

    ``u`` is ``(N, M)``, the parameters are ``(M,)``; ``p2`` and ``p4`` may be ``None``, which stands for a constant 0.
    Only ``u`` and the parameters are kept for the backward pass: the gate is cheaper to compute again than to store.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None) -> Tensor:
        line = p1 * u if p2 is None else p1 * u + p2
        y = line * torch.sigmoid(p3 * u)
        return y if p4 is None else y + p4

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, p1, p2, p3, _ = inputs
        ctx.save_for_backward(u, p1, p2, p3)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = grad_outputs
        u, p1, p2, p3 = ctx.saved_tensors
        need_u, need_p1, need_p2, need_p3, need_p4 = ctx.needs_input_grad
        grad_u = grad_p1 = grad_p2 = grad_p3 = grad_p4 = None
        gate = torch.sigmoid(p3 * u)
        through_gate = grad_output * gate
        if need_u or need_p3:
            line = p1 * u if p2 is None else p1 * u + p2
            into_gate = through_gate * (1 - gate) * line  # the gradient of p3 * u
            if need_u:
                grad_u = through_gate * p1 + into_gate * p3
            if need_p3:
                grad_p3 = (into_gate * u).sum(0)
        if need_p1:
            grad_p1 = (through_gate * u).sum(0)
        if need_p2:
            grad_p2 = through_gate.sum(0)
        if need_p4:
            grad_p4 = grad_output.sum(0)
        return grad_u, grad_p1, grad_p2, grad_p3, grad_p4


def _gated_line(u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None) -> Tensor:
    """``_GatedLine`` for ``u`` of shape ``(N, *shape)`` and parameters of shape ``shape``.

    Works through memory in its own order: a sum over the batch of channels-last tensors is 30 times as fast this way.
    """
    parameters: tuple[Tensor | None, ...] = (p1, p2, p3, p4)
    channels_last = u.ndim == 4 and u.stride(1) == 1
    if channels_last:
        u = u.movedim(1, 3)
        parameters = tuple(None if p is None else p.movedim(0, 2) for p in parameters)
    y = _GatedLine.apply(u.flatten(1), *(None if p is None else p.flatten() for p in parameters)).view(u.shape)
    return y.movedim(3, 1) if channels_last else y


class Adaptive(nn.Module):
    """What AHAF and LEAF share: learnable parameters that start as a known function.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; one parameter set per element.
        form: the function it starts as, one of the keys of ``forms``.

    Raises:
        ValueError: if the family has no such form.
    """

    family: ClassVar[str]
    parameter_names: ClassVar[tuple[str, ...]]
    forms: ClassVar[dict[str, tuple[float, ...]]]
    """Initial values of the parameters, in the order of ``parameter_names``, for each form."""
    slow_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that P24Sl trains at a lower learning rate."""

    def __init__(self, shape: Sequence[int], form: str) -> None:
        super().__init__()
        if form not in self.forms:
            name = type(self).__name__
            raise ValueError(f"{name} has no form {form!r}; its forms are: {', '.join(self.forms)}")
        self.shape, self.form = tuple(shape), form
        for name, value in zip(self.parameter_names, self.forms[form], strict=True):
            self.register_parameter(name, nn.Parameter(torch.full(self.shape, value)))

    def extra_repr(self) -> str:
        return f"shape={self.shape}, form={self.form!r}"


class AHAF(Adaptive):
    r"""Adaptive Hybrid Activation Function, :math:`\beta u\,\sigma(\gamma u)`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; one parameter set per element.
        form: the function it starts as: ``"relu"`` or ``"silu"``.

    Shape: input and output ``(N, *shape)``.
    Source: Bodyanskiy & Kostiuk (2023); introduced by the same authors in 2022.
    """

    family = "ahaf"
    parameter_names = ("beta", "gamma")
    forms = {"relu": (1.0, STEP_SLOPE), "silu": (1.0, 1.0)}

    beta: nn.Parameter
    gamma: nn.Parameter

    def forward(self, u: Tensor) -> Tensor:
        return _gated_line(u, self.beta, None, self.gamma, None)


class LEAF(Adaptive):
    r"""Learnable Extended Activation Function, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; one parameter set per element.
        form: the function it starts as: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.

    Shape: input and output ``(N, *shape)``.
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

    p1: nn.Parameter
    p2: nn.Parameter
    p3: nn.Parameter
    p4: nn.Parameter

    def forward(self, u: Tensor) -> Tensor:
        return _gated_line(u, self.p1, self.p2, self.p3, self.p4)


@dataclass(frozen=True)
class Activation:
    """All that the rest of the project knows of an activation, under its name in ``ACTIVATIONS``.

    Attributes:
        family: ``"base"`` for a plain function, else the family of the learnable one.
        form: the function it is or starts as.
        build: makes the module for inputs of one sample's shape.
        adaptive: whether it has parameters to train.
        slow_parameters: those of them that P24Sl slows down; empty where P24Sl has no meaning.
    """

    family: str
    form: str
    build: Callable[[Sequence[int]], nn.Module]
    adaptive: bool = False
    slow_parameters: tuple[str, ...] = ()


def _base(form: str) -> Activation:
    return Activation("base", form, lambda shape: BASE_FUNCTIONS[form]())


def _adaptive(family: type[Adaptive], form: str) -> Activation:
    return Activation(family.family, form, lambda shape: family(shape, form), True, family.slow_parameters)


ACTIVATIONS: dict[str, Activation] = {
    **{form: _base(form) for form in BASE_FUNCTIONS},
    **{f"{family.family}-{form}": _adaptive(family, form) for family in (AHAF, LEAF) for form in family.forms},
}
"""Every activation that a network can be built with, by name: ``relu``, ``ahaf-silu``, ``leaf-tanh``, …"""
