"""CPU kernel of the gated line. Numba compiles it on first use, without a C compiler, and caches it on disk.

Memory is read and written once. Each thread processes some of the features, block by block, and loops over the batch
for each block, so that parameters and sums over the batch stay in cache. The order of every sum is fixed: any number of
threads gives the same bits. The backward pass recomputes the sigmoid. With 2×2 max-pooling in the same pass the
full-size activation map is never written, and the backward pass computes only the selected one of four elements.

Numba compiles the loops over blocks and threads. The computation of a block is emitted as vector instructions
(``Vector``), since the compiler does not vectorize loops with so many arrays. An array that is ``None`` (a constant
parameter 0, an unused gradient) generates no code. Everything is in one file, since numba's cache checks only that one.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from torch import Tensor

from leaf.kernels import threads
from leaf.kernels.operands import Broken, Operands

# Numba must use torch's OpenMP threads, since two thread pools would compete for the cores. The file name of torch's
# library differs from the one that numba expects. If it were not loaded first, numba would load a second library.
if threads.may_start:
    for openmp in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

one_at_a_time = threading.RLock()
"""Lock that is held while threads compute: numba's ``workqueue`` ends the process if two Python threads start them."""

# A process that is forked while another thread compiles inherits numba's lock in the locked state, and would deadlock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

WIDTHS = (16, 8, 4, 2, 1)
"""Numbers of features per vector: 16 fill 512 bits, the smaller ones cover the end of a row."""

SAMPLES = (8, 1)
"""Numbers of samples per iteration: parameters and sums are read and written once for all of them."""

BLOCK = 4096
"""Features per block: their parameters and sums, 8 × 4 bytes each, fit into a core's fastest caches."""

SERIAL = 2**15
"""Number of elements up to which starting threads costs more than it saves."""


# --- vectors ----------------------------------------------------------------------------------------------------------


class Vector:
    """A vector in the generated code. Operators emit instructions with IEEE 754 rounding."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def all(self, number: float) -> "Vector":
        """A vector of the same type with equal elements."""
        kind = self.value.type
        return Vector(self.builder, ir.Constant(kind, [number] * kind.count))

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.fmul(self.value, other.value))

    def __truediv__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.fdiv(self.value, other.value))

    def __neg__(self) -> "Vector":
        return Vector(self.builder, self.builder.fneg(self.value))

    def __gt__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.fcmp_ordered(">", self.value, other.value))

    def is_nan(self) -> "Vector":
        return Vector(self.builder, self.builder.fcmp_unordered("uno", self.value, self.value))

    def __or__(self, other: "Vector") -> "Vector":
        return Vector(self.builder, self.builder.or_(self.value, other.value))

    def is_whole(self, number: int) -> "Vector":
        """Mask of the elements of an integer vector that equal a number."""
        return Vector(self.builder, self.builder.icmp_signed("==", self.value, self.all(number).value))

    def where(self, mask: "Vector", otherwise: "Vector") -> "Vector":
        """This vector where a mask is set, ``otherwise`` elsewhere."""
        return Vector(self.builder, self.builder.select(mask.value, self.value, otherwise.value))


def fused(a: Vector, b: Vector, c: Vector) -> Vector:
    """a·b + c, rounded once if the processor supports it."""
    kind = a.value.type
    name, function = f"llvm.fmuladd.v{kind.count}f32", ir.FunctionType(kind, [kind] * 3)
    multiply_add = cgutils.get_or_insert_function(a.builder.module, function, name)
    return Vector(a.builder, a.builder.call(multiply_add, [a.value, b.value, c.value]))


def times_power_of_two(mantissa: Vector, whole: Vector) -> Vector:
    """mantissa · 2^whole; the integer is in the lowest bits of ``whole``."""
    builder, kind = whole.builder, whole.value.type
    integers = ir.VectorType(ir.IntType(32), kind.count)
    shift = ir.Constant(integers, [23] * kind.count)
    exponent = builder.shl(builder.bitcast(whole.value, integers), shift)
    return Vector(builder, builder.bitcast(builder.add(builder.bitcast(mantissa.value, integers), exponent), kind))


class Memory:
    """An array at an address, in the generated code."""

    def __init__(self, builder: ir.IRBuilder, address: ir.Value, element: ir.Type, alignment: int) -> None:
        self.builder, self.element, self.alignment = builder, element, alignment
        self.start = builder.inttoptr(address, element.as_pointer())

    def _pointer(self, index: ir.Value, width: int) -> ir.Value:
        pointer = self.builder.gep(self.start, [index])
        return self.builder.bitcast(pointer, ir.VectorType(self.element, width).as_pointer())

    def load(self, index: ir.Value, width: int) -> Vector:
        """Load ``width`` elements from an index on."""
        return Vector(self.builder, self.builder.load(self._pointer(index, width), align=self.alignment))

    def store(self, index: ir.Value, vector: Vector) -> None:
        """Store a vector's elements from an index on."""
        pointer = self._pointer(index, vector.value.type.count)
        self.builder.store(vector.value, pointer, align=self.alignment)


def loops(
    builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, steps: Sequence[int]
) -> Iterator[tuple[ir.Value, int]]:
    """Emit loops over the indices ``[start, stop)``, one per step, a power of two; yield the index and the step."""
    for step in steps:
        rest = builder.and_(builder.sub(stop, start), ir.Constant(start.type, step - 1))
        end = builder.sub(stop, rest)
        with cgutils.for_range_slice(builder, start, end, ir.Constant(start.type, step)) as (index, _):
            yield index, step
        start = end


# --- the gated line ---------------------------------------------------------------------------------------------------


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + e^-x), accurate to a few units in the last place; exactly 0 where e^-x overflows float32."""
    limit = x.all(87.0)
    negative = -x
    beyond = negative > limit
    negative = limit.where(beyond, negative)
    negative = (-limit).where(-limit > negative, negative)
    rounding = x.all(1.5 * 2**23)  # adding it rounds to an integer, which is in the lowest bits
    power = fused(negative, x.all(LOG2_E), rounding)
    whole = power - rounding
    part = fused(negative, x.all(LOG2_E_REST), fused(negative, x.all(LOG2_E), -whole))
    mantissa = x.all(POWER_OF_TWO[-1])
    for coefficient in reversed(POWER_OF_TWO[:-1]):
        mantissa = fused(mantissa, part, x.all(coefficient))
    one = x.all(1.0)
    return x.all(0.0).where(beyond, one / (one + times_power_of_two(mantissa, power)))


LOG2_E, LOG2_E_REST = 1.44269502162933349609375, 1.9259629911e-8
"""log₂ e in float32, and the remainder."""

POWER_OF_TWO = (1.0, 0.693147182, 0.240226477, 0.0555033237, 0.00961843692, 0.00133988739, 0.00015353362)
"""Minimax polynomial for 2^t on [-1/2, 1/2], with a relative error of at most 2e-9."""

ZERO = ir.Constant(ir.IntType(64), 0)

Parameters = dict[str, Vector]


def parameters(memories: dict[str, Memory], index: ir.Value, width: int) -> Parameters:
    """Load the parameters, as far as they exist, of the features from an index on."""
    return {name: memories[name].load(index, width) for name in ("p1", "p2", "p3", "p4") if name in memories}


def line(u: Vector, p: Parameters) -> Vector:
    """p1·u + p2."""
    return fused(p["p1"], u, p["p2"]) if "p2" in p else p["p1"] * u


def activate(u: Vector, p: Parameters) -> Vector:
    """(p1·u + p2)·σ(p3·u) + p4."""
    gate = sigmoid(p["p3"] * u)
    return fused(line(u, p), gate, p["p4"]) if "p4" in p else line(u, p) * gate


def backpropagate(u: Vector, grad_y: Vector, p: Parameters) -> tuple[Vector, dict[str, Callable[[Vector], Vector]]]:
    """Compute the gradient of ``u``; return it and, for each parameter, a function that adds this sample to a sum."""
    gate = sigmoid(p["p3"] * u)
    through_gate = grad_y * gate
    into_gate = through_gate * (u.all(1.0) - gate) * line(u, p)  # the gradient of p3·u
    grad_u = fused(through_gate, p["p1"], into_gate * p["p3"])
    return grad_u, {
        "grad_p1": lambda total: fused(through_gate, u, total),
        "grad_p2": lambda total: total + through_gate,
        "grad_p3": lambda total: fused(into_gate, u, total),
        "grad_p4": lambda total: total + grad_y,
    }


def forward_block(builder: Any, memories: Any, batch: Any, features: Any, start: Any, stop: Any) -> None:
    """Compute the features ``[start, stop)`` of all samples."""
    for sample, samples in loops(builder, ZERO, batch, SAMPLES):
        for j, width in loops(builder, start, stop, WIDTHS):
            p = parameters(memories, j, width)
            i = builder.add(builder.mul(sample, features), j)
            for _ in range(samples):
                memories["y"].store(i, activate(memories["u"].load(i, width), p))
                i = builder.add(i, features)


def backward_block(builder: Any, memories: Any, batch: Any, features: Any, start: Any, stop: Any) -> None:
    """Backward pass of ``forward_block``; adds to the gradients of parameters."""
    for sample, samples in loops(builder, ZERO, batch, SAMPLES):
        for j, width in loops(builder, start, stop, WIDTHS):
            p = parameters(memories, j, width)
            totals = {name: memories[name].load(j, width) for name in SUMS if name in memories}
            i = builder.add(builder.mul(sample, features), j)
            for _ in range(samples):
                u, grad_y = memories["u"].load(i, width), memories["grad_y"].load(i, width)
                grad_u, shares = backpropagate(u, grad_y, p)
                if "grad_u" in memories:
                    memories["grad_u"].store(i, grad_u)
                totals = {name: shares[name](total) for name, total in totals.items()}
                i = builder.add(i, features)
            for name, total in totals.items():
                memories[name].store(j, total)


SUMS = ("grad_p1", "grad_p2", "grad_p3", "grad_p4")


def windows(
    builder: Any, batch: Any, columns: Any, channels: Any, row: Any, size: Any, pooled_size: Any, start: Any, stop: Any
) -> Iterator[tuple[int, int, list[Any], Any, Any]]:
    """Emit loops over samples, pooled pixels ``[start, stop)`` and channels.

    Args:
        columns: number of pooled pixels in a row.
        row, size, pooled_size: numbers of elements of a row and of a sample, and of a pooled sample.

    Yields:
        The number of samples; the vector width; the first feature in each of the window's four
        pixels; the index of the first sample's first feature; and the index of the first pooled feature.
    """
    for sample, samples in loops(builder, ZERO, batch, SAMPLES):
        for pixel, _ in loops(builder, start, stop, (1,)):
            upper = builder.mul(builder.mul(builder.sdiv(pixel, columns), ir.Constant(pixel.type, 2)), row)
            left = builder.mul(builder.mul(builder.srem(pixel, columns), ir.Constant(pixel.type, 2)), channels)
            out = builder.add(builder.mul(sample, pooled_size), builder.mul(pixel, channels))
            for c, width in loops(builder, ZERO, channels, WIDTHS):
                corner = builder.add(builder.add(upper, left), c)
                right, lower = builder.add(corner, channels), builder.add(corner, row)
                corners = [corner, right, lower, builder.add(right, row)]
                yield samples, width, corners, builder.mul(sample, size), builder.add(out, c)


def pooled_forward_block(builder: Any, memories: Any, *sizes: Any) -> None:
    """Compute the pooled pixels of ``windows(builder, *sizes)``.

    The position of the maximum in the window, 0 to 3, is stored in ``window``: the first of equal ones, or the last
    NaN, as in torch.
    """
    *_, size, pooled_size, _, _ = sizes
    for samples, width, corners, i, out in windows(builder, *sizes):
        p = [parameters(memories, corner, width) for corner in corners]
        for _ in range(samples):
            four = [
                activate(memories["u"].load(builder.add(i, corner), width), its_p)
                for corner, its_p in zip(corners, p, strict=True)
            ]
            numbers = ir.VectorType(ir.IntType(8), width)
            best, which = four[0], Vector(builder, ir.Constant(numbers, [0] * width))
            for k, y in enumerate(four[1:], start=1):
                wins = (y > best) | y.is_nan()
                best, which = y.where(wins, best), which.all(k).where(wins, which)
            memories["y"].store(out, best)
            memories["window"].store(out, which)
            i, out = builder.add(i, size), builder.add(out, pooled_size)


def pooled_backward_block(builder: Any, memories: Any, *sizes: Any) -> None:
    """Backward pass of ``pooled_forward_block``; adds to the gradients of parameters."""
    *_, size, pooled_size, _, _ = sizes
    for samples, width, corners, i, out in windows(builder, *sizes):
        p = [parameters(memories, index, width) for index in corners]
        totals = [{name: memories[name].load(index, width) for name in SUMS if name in memories} for index in corners]
        for _ in range(samples):
            window = memories["window"].load(out, width)
            taken = [window.is_whole(k) for k in range(4)]

            def pick(vectors: Sequence[Vector], taken: Sequence[Vector] = taken) -> Vector:
                picked = vectors[0]
                for mask, vector in zip(taken[1:], vectors[1:], strict=True):
                    picked = vector.where(mask, picked)
                return picked

            indices = [builder.add(i, corner) for corner in corners]
            u = pick([memories["u"].load(index, width) for index in indices])
            its_p = {name: pick([one[name] for one in p]) for name in p[0]}
            grad_u, shares = backpropagate(u, memories["grad_y"].load(out, width), its_p)
            for k, index in enumerate(indices):
                if "grad_u" in memories:
                    memories["grad_u"].store(index, grad_u.where(taken[k], u.all(0.0)))
                totals[k] = {name: shares[name](t).where(taken[k], t) for name, t in totals[k].items()}
            i, out = builder.add(i, size), builder.add(out, pooled_size)
        for index, its_totals in zip(corners, totals, strict=True):
            for name, total in its_totals.items():
                memories[name].store(index, total)


# --- loops ------------------------------------------------------------------------------------------------------------

ARRAYS = (
    "u", "p1", "p2", "p3", "p4", "y", "window", "grad_y", "grad_u", "grad_p1", "grad_p2", "grad_p3", "grad_p4",
)  # fmt: skip
"""Names of the arrays, in the order of their addresses. ``window`` has bytes, the others float32."""


@intrinsic  # type: ignore[untyped-decorator]
def compute_block(typing_context: Any, addresses: Any, numbers: Any) -> Any:
    """Emit the computation of a block of features, or of pooled pixels if ``window`` is given.

    It is the backward pass if ``grad_y`` is given.

    Args:
        addresses: addresses of ``ARRAYS``, ``None`` for missing ones; missing ones at the end may be omitted.
        numbers: integers, the last arguments of the emitting function.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memories = {
            name: Memory(builder, builder.extract_value(arguments[0], place), *(BYTE if name == "window" else FLOAT))
            for place, (name, kind) in enumerate(zip(ARRAYS, addresses, strict=False))
            if not isinstance(kind, types.NoneType)
        }
        values = [
            context.cast(builder, builder.extract_value(arguments[1], place), kind, types.int64)
            for place, kind in enumerate(numbers)
        ]
        if "window" in memories:
            emit = pooled_backward_block if "grad_y" in memories else pooled_forward_block
        else:
            emit = backward_block if "grad_y" in memories else forward_block
        emit(builder, memories, *values)
        return context.get_dummy_value()

    return types.void(addresses, numbers), generate


FLOAT, BYTE = (ir.FloatType(), 4), (ir.IntType(8), 1)
"""Element types of arrays, with their alignments."""


def compiled(**options: Any) -> Any:
    """Numba's compiler, with the options that all loops need."""
    return njit(cache=True, nogil=True, error_model="numpy", **options)


@compiled()
def compute(addresses, sizes, block, first, end):  # type: ignore[no-untyped-def]
    """Compute the features or pooled pixels ``[first, end)``, block by block."""
    for start in range(first, end, block):
        compute_block(addresses, (*sizes, start, min(start + block, end)))


@compiled(parallel=True)
def compute_in_threads(threads, addresses, sizes, block, units):  # type: ignore[no-untyped-def]
    """Divide all features or pooled pixels among threads."""
    for t in prange(threads):
        compute(addresses, sizes, block, units * t // threads, units * (t + 1) // threads)


# --- for tensors ------------------------------------------------------------------------------------------------------


def run(u: Tensor, pooled: bool, *addresses: int | None) -> None:
    """Compute all features or pooled pixels. More than ``SERIAL`` elements are computed by torch's number of threads.

    Args:
        addresses: as in ``compute_block``.

    Raises:
        Broken: if numba cannot compile the code or cache it on disk. Compiled code itself raises nothing.
    """
    batch, elements = u.shape[0], u.numel()
    sizes: tuple[int, ...]
    if pooled:
        _, channels, height, width = u.shape
        row, columns = width * channels, width // 2
        block, units = max(1, BLOCK // (4 * channels)), (height // 2) * columns
        sizes = (batch, columns, channels, row, height * row, units * channels)
    else:
        block, units = BLOCK, elements // batch
        sizes = (batch, units)
    count = threads.allowed() if elements > SERIAL else 1
    try:
        if count == 1:
            compute(addresses, sizes, block, 0, units)
        else:
            with one_at_a_time:
                numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
                compute_in_threads(count, addresses, sizes, block, units)
    except Exception as error:
        raise Broken(str(error)) from error


def forward(operands: Operands) -> Tensor:
    """Compute the gated line of ``u``, in its memory order."""
    y = torch.empty_like(operands.u)
    run(operands.u, False, *operands.addresses, y.data_ptr())
    return y


def pooled_forward(operands: Operands) -> tuple[Tensor, Tensor]:
    """Compute ``forward`` and 2×2 max-pooling, in channels-last memory; and the positions of the maxima (uint8)."""
    u = operands.u
    batch, channels, height, width = u.shape
    shape = (batch, channels, height // 2, width // 2)
    y = torch.empty(shape, dtype=u.dtype, device=u.device, memory_format=torch.channels_last)
    window = torch.empty_like(y, dtype=torch.uint8)
    run(u, True, *operands.addresses, y.data_ptr(), window.data_ptr())
    return y, window


def backward(operands: Operands, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Compute the gradients of ``u``, p1, p2, p3 and p4; ``None`` for those that are not needed."""
    u, p1, pooled = operands.u, operands.parameters[0], operands.window is not None
    *inputs, at_grad_y, at_window = operands.addresses if pooled else (*operands.addresses, None)
    grad_u = torch.empty_like(u) if needed[0] else None
    grads = [torch.zeros_like(p1) if need else None for need in needed[1:]]  # type: ignore[arg-type] # p1 is there
    outputs = [None if grad is None else grad.data_ptr() for grad in (grad_u, *grads)]
    run(u, pooled, *inputs, None, at_window, at_grad_y, *outputs)
    if pooled and grad_u is not None:  # a last row or column that pooling ignores
        if u.shape[2] % 2:
            grad_u[:, :, -1].zero_()
        if u.shape[3] % 2:
            grad_u[:, :, :, -1].zero_()
    return grad_u, *grads
