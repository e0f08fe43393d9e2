"""Reference kernel of the gated line: torch operations, used where no faster kernel is available."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active
from torch.autograd import forward_ad
from torch.compiler import is_exporting


def formula(u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None) -> Tensor:
    """Compute the gated line of ``u`` with parameters that broadcast to it."""
    line = p1 * u if p2 is None else p1 * u + p2
    y = line * torch.sigmoid(p3 * u)
    return y if p4 is None else y + p4


class _GatedLine(torch.autograd.Function):
    r"""The gated line, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, with analytic gradients.

    ``u`` is ``(N, M)``, the parameters are ``(M,)``; ``p2`` and ``p4`` may be ``None``, a constant 0.
    The backward pass recomputes the gate, which is faster than storing it.
    """

    @staticmethod
    def forward(u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None) -> Tensor:
        return formula(u, p1, p2, p3, p4)

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


def reference_gated_line(u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None) -> Tensor:
    """Compute the gated line of ``u``, ``(N, *shape)``, with parameters that broadcast to ``shape``."""
    return in_memory_order(formula if transformed() else _GatedLine.apply, u, p1, p2, p3, p4)


def transformed() -> bool:
    """Check whether torch.func or forward-mode differentiation is active; both support only torch's own operations."""
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def symbolic() -> bool:
    """Check whether a graph is exported or traced: sizes may be symbols, and copies would be recorded."""
    return is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def in_memory_order(function: Callable[..., Tensor], u: Tensor, *parameters: Tensor | None) -> Tensor:
    """Apply a function of ``(N, M)`` and ``(M,)`` to ``(N, *shape)`` and ``shape``, in the memory order of ``u``.

    Parameters may also broadcast to ``shape``. Sums over the batch of channels-last tensors are then 30 times faster.
    """
    parameters = tuple(None if p is None else p.expand(u.shape[1:]) for p in parameters)
    channels_last = u.ndim == 4 and u.stride(1) == 1
    if channels_last:
        u = u.movedim(1, 3)
        parameters = tuple(None if p is None else p.movedim(0, 2) for p in parameters)
    y = function(u.flatten(1), *(None if p is None else p.flatten() for p in parameters)).view(u.shape)
    return y.movedim(3, 1) if channels_last else y
