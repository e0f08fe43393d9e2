"""The gated line on a GPU, in Triton, which comes with torch.

Memory is read and written once. A program owns a block of features and walks a part of the batch, so that parameters
and gradient sums stay in registers; the parts' sums are added up in a fixed order. Nothing depends on timing: results
repeat on GPUs of one model.

An argument that is ``None`` (a parameter that is a constant 0, a gradient that nobody needs) is compiled away.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from leaf.kernels.operands import Broken, Operands

BLOCK = 256
"""Features of one program."""

PROGRAMS = 1024
"""Programs to aim at: enough to fill a large GPU."""


@triton.jit  # type: ignore[untyped-decorator]
def _forward_part(  # type: ignore[no-untyped-def]
    u, y, p1, p2, p3, p4, batch, features, samples: tl.constexpr, BLOCK: tl.constexpr
):
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = j < features
    slope, gate_slope = tl.load(p1 + j, inside), tl.load(p3 + j, inside)
    if p2 is not None:
        offset = tl.load(p2 + j, inside)
    if p4 is not None:
        shift = tl.load(p4 + j, inside)
    for step in range(samples):
        sample = tl.program_id(1) * samples + step
        mask = inside & (sample < batch)
        i = sample.to(tl.int64) * features + j
        value = tl.load(u + i, mask)
        line = slope * value
        if p2 is not None:
            line += offset
        out = line * tl.sigmoid(gate_slope * value)
        if p4 is not None:
            out += shift
        tl.store(y + i, out, mask)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_part(  # type: ignore[no-untyped-def]
    u, grad_y, grad_u, p1, p2, p3, sum1, sum2, sum3, sum4, batch, features, samples: tl.constexpr, BLOCK: tl.constexpr
):
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = j < features
    slope, gate_slope = tl.load(p1 + j, inside), tl.load(p3 + j, inside)
    if p2 is not None:
        offset = tl.load(p2 + j, inside)
    total1 = tl.zeros([BLOCK], tl.float32)
    total2 = tl.zeros([BLOCK], tl.float32)
    total3 = tl.zeros([BLOCK], tl.float32)
    total4 = tl.zeros([BLOCK], tl.float32)
    for step in range(samples):
        sample = tl.program_id(1) * samples + step
        mask = inside & (sample < batch)
        i = sample.to(tl.int64) * features + j
        value, grad = tl.load(u + i, mask, other=0.0), tl.load(grad_y + i, mask, other=0.0)
        gate = tl.sigmoid(gate_slope * value)
        line = slope * value
        if p2 is not None:
            line += offset
        through_gate = grad * gate
        into_gate = through_gate * (1 - gate) * line  # the gradient of p3·u
        if grad_u is not None:
            tl.store(grad_u + i, through_gate * slope + into_gate * gate_slope, mask)
        total1 += through_gate * value
        total2 += through_gate
        total3 += into_gate * value
        total4 += grad
    k = tl.program_id(1) * features + j
    if sum1 is not None:
        tl.store(sum1 + k, total1, inside)
    if sum2 is not None:
        tl.store(sum2 + k, total2, inside)
    if sum3 is not None:
        tl.store(sum3 + k, total3, inside)
    if sum4 is not None:
        tl.store(sum4 + k, total4, inside)


def make_ready() -> None:
    """Let Triton build what it launches kernels with.

    Raises:
        RuntimeError, OSError, subprocess.CalledProcessError: if it can't, for want of a C compiler or a place to write.
    """
    triton.runtime.driver.active.get_current_target()


def _grid(batch: int, features: int) -> tuple[tuple[int, int], int]:
    """Blocks of features and parts of the batch, and the samples of a part."""
    blocks = triton.cdiv(features, BLOCK)
    samples = triton.cdiv(batch, min(batch, triton.cdiv(PROGRAMS, blocks)))
    return (blocks, triton.cdiv(batch, samples)), samples


def _launch(kernel: Any, u: Tensor, grid: tuple[int, int], *arguments: Tensor | int | None) -> None:
    """Start a kernel on the GPU of ``u``."""
    with torch.cuda.device_of(u):
        try:
            kernel[grid](*arguments, BLOCK)
        except Exception as error:  # Triton could not compile it, or not store it on disk
            raise Broken(str(error)) from error


def forward(operands: Operands) -> Tensor:
    """The gated line of ``u``, in its memory order."""
    u, y = operands.u, torch.empty_like(operands.u)
    batch = len(u)
    features = u.numel() // batch
    grid, samples = _grid(batch, features)
    _launch(_forward_part, u, grid, u, y, *operands.parameters, batch, features, samples)
    return y


def backward(operands: Operands, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The gradients of ``u``, p1, p2, p3 and p4; ``None`` where none is needed."""
    u, parameters = operands.u, operands.parameters
    batch = len(u)
    features = u.numel() // batch
    grid, samples = _grid(batch, features)
    grad_u = torch.empty_like(u) if needed[0] else None
    sums = [u.new_empty(grid[1], features) if need else None for need in needed[1:]]
    _launch(
        _backward_part, u, grid,
        u, operands.grad_y, grad_u, *parameters[:3], *sums, batch, features, samples,
    )  # fmt: skip
    grads: list[Tensor | None] = []
    for partial in sums:
        if partial is None:
            grads.append(None)
        else:
            grad = torch.empty_like(parameters[0])  # type: ignore[arg-type] # p1 is there
            torch.sum(partial, 0, out=grad.as_strided((features,), (1,)))
            grads.append(grad)
    return grad_u, *grads
