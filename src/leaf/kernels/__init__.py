r"""How a gated line, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, is computed. AHAF and LEAF are made of it.

- ``plain``: torch operations, for any device and dtype and whatever torch does with functions. The reference.
- ``numba``: on a CPU in float32; memory is read and written once, and 2×2 max-pooling goes into the same pass.
- ``triton``: on a GPU in float32; memory is read and written once.

All give the same numbers within rounding. The fast one is taken wherever it can work; that is not in other dtypes,
under ``torch.func`` and ``torch.compile``, for derivatives of derivatives and without numba or triton.
"""

from functools import cache
from importlib import import_module
from subprocess import CalledProcessError
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from leaf.kernels.plain import formula, plain_gated_line, transformed

FAST = {"cpu": ("numba", "leaf.kernels.cpu"), "cuda": ("triton", "leaf.kernels.gpu")}
"""For a type of device its fast kernel: the name, which is that of the package it needs, and the module."""


@cache
def _fast_module(device: str) -> Any:
    """The fast kernel for a type of device; ``None`` if there is none, or what it needs is not there or broken."""
    try:
        module = import_module(FAST[device][1])
        if device == "cuda":
            module.make_ready()
        return module
    except (ImportError, KeyError):
        return None
    except (RuntimeError, OSError, CalledProcessError):  # no place for a cache on disk; for Triton, no C compiler
        return None


def kernel_for(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The name of the kernel that computes on a device in a dtype."""
    return FAST[device.type][0] if dtype == torch.float32 and _fast_module(device.type) else "plain"


def gated_line(
    u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None, pooled: bool = False, plain: bool = False
) -> Tensor:
    """The gated line of ``u``; 2×2 max-pooling of it, if ``pooled``.

    Args:
        u: ``(N, *shape)``; ``(N, C, H, W)`` if pooled.
        p1, p2, p3, p4: ``shape``, or in a graph that is being exported what broadcasts to it; floating point; ``None``
            stands for a constant 0.
        plain: compute it as the reference does.

    Returns:
        ``(N, *shape)``, or ``(N, C, H // 2, W // 2)``, of the promoted dtype, in the memory format of ``u``.
    """
    if p3.dtype is torch.float16:
        # ReLU's 2^16 is infinite there, and 0 · infinity not a number; float16's largest number does as well.
        p3 = p3.clamp(-torch.finfo(torch.float16).max, torch.finfo(torch.float16).max)
    if u.dtype != p1.dtype:
        u = u.to(torch.promote_types(u.dtype, p1.dtype))
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if exporting or plain or not _can_be_fast(u, [p for p in (p1, p2, p3, p4) if p is not None]):
        y = formula(u, p1, p2, p3, p4) if exporting else plain_gated_line(u, p1, p2, p3, p4)
        return max_pool2d(y, 2) if pooled else y
    channels_last = u.ndim == 4 and u.is_contiguous(memory_format=torch.channels_last)
    if not channels_last:
        u = u.contiguous()
    order = u.stride()[1:]
    if any(p is not None and p.stride() != order for p in (p1, p2, p3, p4)):
        # A layer that went through memory as its inputs do would spare this.
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        p1, p2, p3, p4 = (  # type: ignore[assignment]
            None if p is None else p[None].contiguous(memory_format=memory_format)[0] for p in (p1, p2, p3, p4)
        )
    in_one_pass = pooled and channels_last and u.device.type == "cpu" and min(u.shape[2:]) > 1
    y = FusedGatedLine.apply(u, p1, p2, p3, p4, in_one_pass)
    return max_pool2d(y, 2) if pooled and not in_one_pass else y


def _can_be_fast(u: Tensor, parameters: list[Tensor]) -> bool:
    """Whether the fast kernel can: it works on bare addresses, so that nothing unlike may reach it."""
    return (
        not torch.compiler.is_compiling()
        and not transformed()
        and type(u) is Tensor
        and u.dtype is torch.float32
        and u.numel() > 0
        and _fast_module(u.device.type) is not None
        and all(
            type(p) in (Tensor, torch.nn.Parameter) and (p.dtype, p.device, p.shape) == (u.dtype, u.device, u.shape[1:])
            for p in parameters
        )
    )


def _is_batched(tensor: Tensor) -> bool:
    """Whether it stands for several tensors, as in ``torch.func.vmap`` or with ``is_grads_batched``."""
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


class FusedGatedLine(torch.autograd.Function):
    """``gated_line`` by the fast kernel of the tensors' device; all are dense, parameters in one sample's order."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, p1: Tensor, p2: Tensor | None, p3: Tensor, p4: Tensor | None, pooled: bool
    ) -> Tensor:
        kernel = _fast_module(u.device.type)
        if pooled:
            batch, channels, height, width = u.shape
            shape = (batch, channels, height // 2, width // 2)
            y = torch.empty(shape, dtype=u.dtype, device=u.device, memory_format=torch.channels_last)
            window = torch.empty_like(y, dtype=torch.uint8)
            kernel.pooled_forward(u, y, window, p1, p2, p3, p4)
        else:
            y, window = torch.empty_like(u), None
            kernel.forward(u, y, p1, p2, p3, p4)
        ctx.save_for_backward(u, p1, p2, p3, p4, window)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_y,) = grad_outputs
        *inputs, window = ctx.saved_tensors
        u, p1, p2, p3, p4 = inputs
        needed = ctx.needs_input_grad[:5]
        differentiable = torch.is_grad_enabled()  # someone wants this derivative's derivative
        if differentiable or _is_batched(grad_y):  # or several derivatives at once
            with torch.enable_grad():
                # Views, since the input may come from another use of this module, whose share is not asked for here.
                inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
                u, p1, p2, p3, p4 = inputs
                y = plain_gated_line(u, p1, p2, p3, p4)
                y = y if window is None else max_pool2d(y, 2)
            wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(y, wanted, grad_y, create_graph=differentiable))
            return *(next(found) if need else None for need in needed), None
        kernel = _fast_module(u.device.type)
        if window is not None or (u.ndim == 4 and u.stride(1) == 1):
            grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        else:
            grad_y = grad_y.contiguous()
        grad_u = torch.empty_like(u) if needed[0] else None
        grads = [torch.zeros_like(p) if need else None for p, need in zip(inputs[1:], needed[1:], strict=True)]
        if window is None:
            kernel.backward(u, grad_y, grad_u, p1, p2, p3, grads)
        else:
            kernel.pooled_backward(u, grad_y, window, grad_u, p1, p2, p3, grads)
        return grad_u, *grads, None
