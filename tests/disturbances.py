"""Disturbances of AHAF and LEAF between construction and backward pass, each for a separate process.

A disturbance changes the layer, its input, or the incoming gradient. The only correct outcome is the gradient of the
formula in float64, or an error where that is impossible.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from test_kernels import formula, inputs, layer_of
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import max_pool2d

from leaf import AHAF, LEAF
from leaf.activations import Adaptive

CASES = list(itertools.product([AHAF, LEAF], ["element", "channel"], [False, True]))
"""Family, sharing, pooled."""

SHAPE = (6, 4, 4)


def same(value: Any) -> Any:
    return value


def nothing(layer: Adaptive, u: Tensor) -> None:
    pass


@dataclass
class Disturbance:
    """A disturbance, its time, and the correct outcomes."""

    before: Callable[[Adaptive, Tensor], None] = nothing
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    between: Callable[[Adaptive, Tensor], None] = nothing
    input: Callable[[Tensor], Tensor] = same
    gradient: Callable[[Tensor], Tensor] = same
    error: str = ""
    """Text of an error that is also a correct outcome, if no copy of the disturbed values was kept."""
    rounded: Callable[[Tensor], Tensor] = same
    """The parameters' values after the disturbance."""
    rounded_input: Callable[[Tensor], Tensor] = same
    tolerance: float = 1e-4


def pack_to(dtype: torch.dtype) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: saved_tensors_hooks(lambda tensor: tensor.to(dtype), same)


def to_half(tensor: Tensor) -> Tensor:
    return tensor.half().to(tensor.dtype)


def resize_storages(share: float, which: str) -> Callable[[Adaptive, Tensor], None]:
    def resize(layer: Adaptive, u: Tensor) -> None:
        for tensor in layer.parameters() if which == "parameters" else [u]:
            storage = tensor.untyped_storage()
            storage.resize_(int(storage.nbytes() * share))

    return resize


def replace_data(change: Callable[[Tensor], Tensor]) -> Callable[[Adaptive, Tensor], None]:
    def replace(layer: Adaptive, u: Tensor) -> None:
        for parameter in layer.parameters():
            parameter.data = change(parameter.data)

    return replace


def reversed_memory(tensor: Tensor) -> Tensor:
    """The same values, in the opposite memory order."""
    return tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0)


def pack_in_other_memory() -> AbstractContextManager[Any]:
    """Saved tensors come back with the same values, in another memory order."""
    return saved_tensors_hooks(lambda tensor: tensor.mT.contiguous().mT, same)


def misaligned(tensor: Tensor) -> Tensor:
    """The same values, one byte after an aligned float32 address."""
    flat = torch.frombuffer(bytearray(1 + 4 * tensor.numel()), dtype=torch.float32, offset=1, count=tensor.numel())
    return flat.view(tensor.shape).copy_(tensor)


@contextmanager
def dual_level() -> Iterator[None]:
    with forward_ad.dual_level():
        yield


FREED = "storage"
DISTURBANCES = {
    "none": Disturbance(),
    "saved-as-float16": Disturbance(during=pack_to(torch.float16), rounded=to_half, rounded_input=to_half),
    "saved-as-float64": Disturbance(during=pack_to(torch.float64)),
    "saved-in-other-memory": Disturbance(during=pack_in_other_memory),
    "half-in-between": Disturbance(between=lambda layer, u: layer.half(), tolerance=0.05),  # rounded, or earlier copies
    "double-in-between": Disturbance(between=lambda layer, u: layer.double()),
    "channels-last-in-between": Disturbance(between=lambda layer, u: layer.to(memory_format=torch.channels_last)),
    "other-memory-in-between": Disturbance(between=replace_data(reversed_memory)),
    "meta-in-between": Disturbance(between=lambda layer, u: layer.to("meta")),
    "smaller-in-between": Disturbance(between=replace_data(lambda data: data[..., :0]), error="shape|size"),
    "broadcast-in-between": Disturbance(between=replace_data(lambda data: data[..., :1].clone()), error="shape|size"),
    "freed-before": Disturbance(before=resize_storages(0, "parameters"), error=FREED),
    "shrunk-before": Disturbance(before=resize_storages(0.5, "parameters"), error=FREED),
    "freed-in-between": Disturbance(between=resize_storages(0, "parameters"), error=FREED),
    "input-freed-before": Disturbance(before=resize_storages(0, "input"), error=FREED),
    "input-freed-in-between": Disturbance(between=resize_storages(0, "input"), error=FREED),
    "zero-input": Disturbance(input=lambda u: torch._efficientzerotensor(u.shape)),
    "zero-gradient": Disturbance(gradient=lambda grad: torch._efficientzerotensor(grad.shape)),
    "negated-input": Disturbance(input=lambda u: torch._neg_view(-u)),
    "expanded-gradient": Disturbance(gradient=lambda grad: grad[:1, :1].expand(grad.shape)),
    "misaligned-input": Disturbance(input=misaligned),
    "misaligned-parameters": Disturbance(before=replace_data(misaligned)),
    "forward-mode": Disturbance(during=dual_level),
}


def outcome(disturbance: Disturbance, family: type[Adaptive], sharing: str, pooled: bool) -> str:
    """``right``, or a description of the error."""
    layer = layer_of(family, SHAPE, sharing=sharing)
    u = disturbance.input(inputs(SHAPE, channels_last=pooled)).requires_grad_()
    leaves = [u, *layer.parameters()]
    generator = torch.Generator().manual_seed(3)
    weights = disturbance.gradient(torch.randn((9, 6, 2, 2) if pooled else u.shape, generator=generator))
    values = [disturbance.rounded_input(u.detach().clone()), *(disturbance.rounded(p) for p in layer.parameters())]
    exact_u, *exact_p = exact = [tensor.detach().double().requires_grad_() for tensor in values]
    exact_y = formula(layer, exact_u, exact_p)
    (max_pool2d(exact_y, 2) if pooled else exact_y).backward(weights.clone().double())
    try:
        disturbance.before(layer, u)
        with disturbance.during():
            y = layer(u, pooled)
        disturbance.between(layer, u)
        y.backward(weights)
    except (RuntimeError, NotImplementedError) as error:
        right = disturbance.error and re.search(disturbance.error, str(error))
        return "right" if right else f"error: {error}"
    for found, true in zip(leaves, exact, strict=True):
        try:
            torch.testing.assert_close(
                found.grad.double(), true.grad, rtol=disturbance.tolerance, atol=disturbance.tolerance
            )
        except AssertionError as error:
            return str(error)
    return "right"


def report(name: str, results: Connection) -> None:
    """Send a line for each case of a disturbance."""
    for family, sharing, pooled in CASES:
        found = outcome(DISTURBANCES[name], family, sharing, pooled)
        results.send(f"{family.__name__} per {sharing}{', pooled' if pooled else ''}: {' '.join(found.split())}")
