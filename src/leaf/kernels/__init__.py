r"""Kernels of the gated line, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, of which AHAF and LEAF are special cases.

- ``reference``: torch operations, for any device, dtype and transformation.
- ``numba``: on a CPU in float32. It reads and writes memory once, and includes 2×2 max-pooling in the same pass.
- ``triton``: the same on a GPU.

They agree up to rounding. For each call, ``Operands`` decides whether the fast kernel is used. It is not used for other
dtypes; under ``torch.func``, ``torch.compile``, ``make_fx`` or other dispatch modes; for higher derivatives; for
tensors that changed between the forward and the backward pass; or without numba or triton.
"""

import warnings
from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from subprocess import CalledProcessError
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from leaf.kernels.operands import Broken, Operands, Unfit
from leaf.kernels.reference import formula, reference_gated_line, symbolic

FAST = {"cpu": ("numba", "leaf.kernels.cpu"), "cuda": ("triton", "leaf.kernels.gpu")}
"""The fast kernel of each type of device: its name, which is that of the required package, and its module."""

_modules: dict[str, Any] = {}
"""The imported modules by type of device; ``None`` for a kernel that does not work."""


def _fast_module(device: str) -> Any:
    """Import the fast kernel for a type of device; ``None`` if none exists or its requirements are not met."""
    if device not in _modules:
        try:
            module = import_module(FAST[device][1])
            if device == "cuda":
                module.make_ready()
        except (ImportError, KeyError, RuntimeError, OSError, CalledProcessError):  # also: no cache, no C compiler
            module = None
        _modules[device] = module
    return _modules[device]


def _device_type(tensor: Tensor) -> str:
    """Type of a tensor's device. Reading ``device.type`` takes 0.3 µs, a third of the time of all checks."""
    return "cpu" if tensor.is_cpu else tensor.device.type


def _give_up(device: str, reason: Broken) -> None:
    """Use the reference kernel from now on, and warn once."""
    if _modules[device] is not None:
        _modules[device] = None
        warnings.warn(
            f"leaf computes with torch operations, which are slower: {FAST[device][0]} failed ({reason})", stacklevel=2
        )


def kernel_for(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Name of the kernel for a device and dtype."""
    return FAST[device.type][0] if dtype == torch.float32 and _fast_module(device.type) else "reference"


def gated_line(
    u: Tensor,
    p1: Tensor,
    p2: Tensor | None,
    p3: Tensor,
    p4: Tensor | None,
    pooled: bool = False,
    reference: bool = False,
) -> Tensor:
    """Compute the gated line of ``u``, followed by 2×2 max-pooling if ``pooled``.

    Args:
        u: ``(N, *shape)``; ``(N, C, H, W)`` if pooled.
        p1, p2, p3, p4: broadcastable to ``shape``, floating point; ``None`` is a constant 0.
        reference: whether to use the reference kernel.

    Returns:
        ``(N, *shape)``, or ``(N, C, H // 2, W // 2)``, of the promoted dtype, in the memory format of ``u``.
    """
    p3 = _finite(p3)
    if u.dtype is not p1.dtype:
        u = u.to(torch.promote_types(u.dtype, p1.dtype))
    device = _device_type(u)
    kernel = None if reference else _fast_module(device)
    if kernel is not None:
        try:
            operands = Operands(u, (p1, p2, p3, p4))
            in_one_pass = pooled and operands.channels_last and min(u.shape[2:]) > 1
            y = FusedGatedLine.apply(operands.u, p1, p2, p3, p4, operands, kernel, in_one_pass)
            return max_pool2d(y, 2) if pooled and not in_one_pass else y
        except Broken as reason:
            _give_up(device, reason)
        except Unfit:
            pass
    y = (formula if symbolic() else reference_gated_line)(u, p1, p2, p3, p4)
    return max_pool2d(y, 2) if pooled else y


def _finite(p3: Tensor) -> Tensor:
    """Replace infinity in float16, to which ReLU's 2^16 overflows, by the largest number, since 0 · infinity is NaN."""
    if p3.dtype is not torch.float16:
        return p3
    limit = torch.finfo(torch.float16).max
    return p3.clamp(-limit, limit)


class FusedGatedLine(torch.autograd.Function):
    """``gated_line`` with a fast kernel, and ``operands`` made from the tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        p1: Tensor,
        p2: Tensor | None,
        p3: Tensor,
        p4: Tensor | None,
        operands: Operands,
        kernel: Any,
        pooled: bool,
    ) -> Tensor:
        y, window = kernel.pooled_forward(operands) if pooled else (kernel.forward(operands), None)
        ctx.save_for_backward(u, p1, p2, p3, p4, window)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_y,) = grad_outputs
        u, p1, p2, p3, p4, window = ctx.saved_tensors
        needed = ctx.needs_input_grad[:5]
        device = _device_type(grad_y)
        kernel = _fast_module(device)
        if kernel is not None and not torch.is_grad_enabled():  # gradients are enabled for higher derivatives
            try:
                gradients = kernel.backward(Operands(u, (p1, p2, p3, None), grad_y, window), needed)
                if p1.shape != u.shape[1:]:
                    summed = (_summed(grad, p) for grad, p in zip(gradients[1:], (p1, p2, p3, p4), strict=True))
                    gradients = gradients[0], *summed
                return *gradients, None, None, None
            except Broken as reason:
                _give_up(device, reason)
            except Unfit:
                pass
        return *_reference_gradients(u, (p1, p2, p3, p4), grad_y, window is not None, needed), None, None, None


def _summed(grad: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    """Sum the gradient of a broadcast parameter, in an order that is independent of the memory format."""
    return None if grad is None or parameter is None else grad.contiguous().sum_to_size(parameter.shape)


def _reference_gradients(
    u: Tensor, parameters: Sequence[Tensor | None], grad_y: Tensor, pooled: bool, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Compute the needed gradients of ``u`` and the parameters by the reference kernel.

    A saved-tensor hook may have changed dtypes, so all tensors are converted to a common one.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        p1, p2, p3, p4 = parameters
        given: list[Any] = [u, p1, p2, _finite(p3), p4]  # type: ignore[arg-type] # of these only p2 and p4 may be None
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in given if tensor is not None), grad_y.dtype)
        # Views, since the input may come from another use of this module, whose gradient must not be included.
        inputs: list[Any] = [None if tensor is None else tensor.to(dtype).view_as(tensor) for tensor in given]
        y = reference_gated_line(*inputs)
        y = max_pool2d(y, 2) if pooled else y
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, grad_y.to(dtype), create_graph=differentiable))
    return tuple(next(found) if need else None for need in needed)
