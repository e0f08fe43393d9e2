"""GPU kernel of the gated line, in Triton, which torch installs.

Memory is read and written once, with 2×2 max-pooling in the same pass. Each program processes a block of features and
loops over a part of the batch, so that parameters and gradient sums stay in registers. The sums of the parts are added
in a fixed order. Results do not depend on timing, and are equal on GPUs of the same model.

An argument that is ``None`` (a constant parameter 0, an unused gradient) generates no code.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from leaf.kernels.operands import Broken, Operands

BLOCK = 256
"""Number of features of one program."""

PROGRAMS = 1024
"""Approximate number of programs, which is enough to occupy a large GPU."""


@triton.jit
def _windows(lane, height, width, channels):  # type: ignore[no-untyped-def]
    """Compute the indices of 2×2 windows of pixels, channels last.

    Returns the feature of each element, a mask of those inside the image, the pooled feature, and a mask of the whole
    windows. Pooling ignores the others, at the edges.
    """
    columns = (width + 1) // 2
    channel, column, row = lane % channels, lane // channels % columns, lane // channels // columns
    element = tl.arange(0, 4)[:, None]
    x, y = 2 * column[None, :] + element % 2, 2 * row[None, :] + element // 2
    j = (y * width + x) * channels + channel[None, :]
    pooled = (row * (width // 2) + column) * channels + channel
    return j, (x < width) & (y < height), pooled, (column < width // 2) & (row < height // 2)


@triton.jit
def _larger(a, at_a, b, at_b):  # type: ignore[no-untyped-def]
    """Return the larger of two elements and its position. NaN is larger than any number; of equal ones the first."""
    equal = (a == b) | ((a != a) & (b != b))
    is_b = (b > a) | ((b != b) & (a == a)) | (equal & (at_b < at_a))
    return tl.where(is_b, b, a), tl.where(is_b, at_b, at_a)


@triton.jit  # type: ignore[untyped-decorator]
def _forward_part(  # type: ignore[no-untyped-def]
    u, y, window, p1, p2, p3, p4, batch, features, pooled_features, height, width, channels,
    samples: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if window is None:
        j, inside = lane, lane < features
    else:
        j, inside, pooled, whole = _windows(lane, height, width, channels)
        element = tl.broadcast_to(tl.arange(0, 4)[:, None], (4, BLOCK))
    slope, gate_slope = tl.load(p1 + j, inside), tl.load(p3 + j, inside)
    if p2 is not None:
        offset = tl.load(p2 + j, inside)
    if p4 is not None:
        shift = tl.load(p4 + j, inside)
    for step in range(samples):
        sample = tl.program_id(1) * samples + step
        i = sample.to(tl.int64) * features + j
        value = tl.load(u + i, inside & (sample < batch))
        line = slope * value
        if p2 is not None:
            line += offset
        out = line * tl.sigmoid(gate_slope * value)
        if p4 is not None:
            out += shift
        if window is None:
            tl.store(y + i, out, inside & (sample < batch))
        else:
            largest, which = tl.reduce((out, element), 0, _larger)
            at = sample.to(tl.int64) * pooled_features + pooled
            tl.store(y + at, largest, whole & (sample < batch))
            tl.store(window + at, which.to(tl.uint8), whole & (sample < batch))


@triton.jit  # type: ignore[untyped-decorator]
def _backward_part(  # type: ignore[no-untyped-def]
    u, grad_y, window, grad_u, p1, p2, p3, sum1, sum2, sum3, sum4,
    part, batch, features, pooled_features, height, width, channels, samples: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if window is None:
        j, inside = lane, lane < features
    else:
        j, inside, pooled, whole = _windows(lane, height, width, channels)
    slope, gate_slope = tl.load(p1 + j, inside), tl.load(p3 + j, inside)
    if p2 is not None:
        offset = tl.load(p2 + j, inside)
    total1 = tl.zeros(j.shape, tl.float32)
    total2 = tl.zeros(j.shape, tl.float32)
    total3 = tl.zeros(j.shape, tl.float32)
    total4 = tl.zeros(j.shape, tl.float32)
    for step in range(samples):
        sample = tl.program_id(1) * samples + step
        mask = inside & (sample < batch)
        i = sample.to(tl.int64) * features + j
        value = tl.load(u + i, mask, other=0.0)
        if window is None:
            grad = tl.load(grad_y + i, mask, other=0.0)
        else:
            at = sample.to(tl.int64) * pooled_features + pooled
            which = tl.load(window + at, whole & (sample < batch), other=4)
            grad = tl.load(grad_y + at, whole & (sample < batch), other=0.0)
            grad = tl.where(which[None, :] == tl.arange(0, 4)[:, None], grad[None, :], 0.0)
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
    k = tl.program_id(1) * part + j
    if sum1 is not None:
        tl.store(sum1 + k, total1, inside)
    if sum2 is not None:
        tl.store(sum2 + k, total2, inside)
    if sum3 is not None:
        tl.store(sum3 + k, total3, inside)
    if sum4 is not None:
        tl.store(sum4 + k, total4, inside)


def make_ready() -> None:
    """Let Triton compile its launcher, to check that it works.

    Raises:
        RuntimeError, OSError, subprocess.CalledProcessError: without a C compiler or a writable cache directory.
    """
    triton.runtime.driver.active.get_current_target()


def _sizes(u: Tensor, pooled: bool) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Compute the grid (blocks of features or windows, parts of the batch) and a kernel's arguments from ``batch`` on.

    A block has half as many windows as features, since a window has four features.
    """
    batch = len(u)
    features = lanes = u.numel() // batch
    block, sizes = BLOCK, (0, 0, 0, 0)
    if pooled:
        _, channels, height, width = u.shape
        lanes = (height + 1) // 2 * ((width + 1) // 2) * channels
        block, sizes = BLOCK // 2, (height // 2 * (width // 2) * channels, height, width, channels)
    blocks = triton.cdiv(lanes, block)
    samples = triton.cdiv(batch, min(batch, triton.cdiv(PROGRAMS, blocks)))
    return (blocks, triton.cdiv(batch, samples)), (batch, features, *sizes, samples, block)


def _launch(kernel: Any, u: Tensor, grid: tuple[int, int], *arguments: Tensor | int | None) -> None:
    """Start a kernel on the GPU of ``u``.

    Raises:
        Broken: if Triton cannot compile the kernel or store it on disk.
    """
    with torch.cuda.device_of(u):
        try:
            kernel[grid](*arguments)
        except Exception as error:
            raise Broken(str(error)) from error


def forward(operands: Operands) -> Tensor:
    """Compute the gated line of ``u``, in its memory order."""
    u, y = operands.u, torch.empty_like(operands.u)
    grid, sizes = _sizes(u, pooled=False)
    _launch(_forward_part, u, grid, u, y, None, *operands.parameters, *sizes)
    return y


def pooled_forward(operands: Operands) -> tuple[Tensor, Tensor]:
    """Compute ``forward`` and 2×2 max-pooling, in channels-last memory; and the positions of the maxima (uint8)."""
    u = operands.u
    batch, channels, height, width = u.shape
    shape = (batch, channels, height // 2, width // 2)
    y = torch.empty(shape, dtype=u.dtype, device=u.device, memory_format=torch.channels_last)
    window = torch.empty_like(y, dtype=torch.uint8)
    grid, sizes = _sizes(u, pooled=True)
    _launch(_forward_part, u, grid, u, y, window, *operands.parameters, *sizes)
    return y, window


def backward(operands: Operands, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Compute the gradients of ``u``, p1, p2, p3 and p4; ``None`` for those that are not needed."""
    u, window, (p1, p2, p3, _) = operands.u, operands.window, operands.parameters
    grid, sizes = _sizes(u, window is not None)
    grad_u = torch.empty_like(u) if needed[0] else None
    sums = u.new_empty(grid[1], sum(needed[1:]), u[0].numel())  # by part of the batch, parameter and feature
    places = iter(sums.unbind(1))
    _launch(
        _backward_part, u, grid,
        u, operands.grad_y, window, grad_u, p1, p2, p3, *(next(places) if need else None for need in needed[1:]),
        sums.stride(0), *sizes,
    )  # fmt: skip
    # One kernel adds the parts for all parameters.
    grads = (grad.as_strided(p1.shape, p1.stride()) for grad in sums.sum(0))  # type: ignore[union-attr] # p1 is there
    return grad_u, *(next(grads) if need else None for need in needed[1:])
