"""Infer the channel dimension of tensors in a model's ``forward``.

Functions such as ``F.linear`` or ``F.conv2d`` determine the dimension in their output. Elementwise functions keep it.
Views, transpositions and means move it. Its new place is found by applying them to a tensor of channel indices.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

LAST = {
    "bilinear", "embedding", "embedding_bag", "gru", "linear", "lstm", "multi_head_attention_forward", "rms_norm",
    "rnn_relu", "rnn_tanh",
}  # fmt: skip
"""Functions, by name in torch, whose output has its features in the last dimension."""

FIRST = {"batch_norm", "group_norm", "instance_norm", "interpolate", "local_response_norm"}
"""Functions whose output has its channels in dimension 1."""

SPATIAL = re.compile(r"(?:conv|conv_transpose|\w*pool)([123])d")
"""Functions whose output has its channels before the 1, 2 or 3 spatial dimensions."""

MIXING = {"baddbmm", "bmm", "cdist", "einsum", "tensordot"}
"""Functions whose output has other dimensions than the inputs, even if its shape is that of an input."""

PRODUCTS = {"__matmul__", "__rmatmul__", "inner", "matmul"}
"""As ``MIXING``, except that a matrix as the second argument determines the last dimension."""

MOVES = {
    "H", "T", "__getitem__", "adjoint", "amax", "amin", "as_strided", "broadcast_to", "cat", "chunk", "concat",
    "concatenate", "diagonal", "expand", "expand_as", "flatten", "index_select", "mH", "mT", "mean", "moveaxis",
    "movedim", "narrow", "permute", "repeat", "repeat_interleave", "reshape", "reshape_as", "rot90", "select", "split",
    "split_with_sizes", "squeeze", "stack", "sum", "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose",
    "unbind", "unflatten", "unsqueeze", "view", "view_as",
}  # fmt: skip
"""Functions that move, merge, split or remove dimensions of their first argument, or of each tensor in it."""

Dims = frozenset[int]
"""Dimensions that together index the channels. A view such as ``(N, L, heads, features)`` has several."""

UNKNOWN: Dims = frozenset()


class Channels:
    """Channel dimensions of the tensors that ``call`` has returned."""

    def __init__(self) -> None:
        self._dims = WeakTensorKeyDictionary()

    def of(self, u: Tensor) -> int | None:
        """Channel dimension of ``u``, 1 or -1; ``None`` if it cannot be inferred."""
        dims = self._dims.get(u, UNKNOWN)
        if u.ndim == 2 or dims == {1}:
            return 1
        return -1 if dims == {u.ndim - 1} else None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a torch function and record the channel dimensions of its output."""
        property_name = getattr(getattr(function, "__self__", None), "__name__", "")  # of Tensor.T and the like
        name = getattr(function, "__name__", "")
        name = property_name if name == "__get__" else name
        if name in MOVES or name.removesuffix("_") in MOVES:
            moved = self._moved(function, args, kwargs)  # before the call, which may change its input in place
            output = function(*args, **kwargs)
            for place, tensor in enumerate(tensors(output)):
                self._dims[tensor] = moved[place] if moved else UNKNOWN
            return output
        output = function(*args, **kwargs)
        for tensor in tensors(output):
            self._dims[tensor] = self._made(name, tensor, args, kwargs)
        return output

    def keep(self, given: Any, output: Any) -> None:
        """Record the channel dimensions of the output of an elementwise function."""
        for tensor in tensors(output):
            self._dims[tensor] = self._kept(tensor, given)

    def _made(self, name: str, output: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dims:
        last, second = frozenset({output.ndim - 1}), args[1] if len(args) > 1 else None
        if name in LAST or (name == "layer_norm" and len([*args, *kwargs.values()][1]) == 1):
            return last
        if name in FIRST:
            return frozenset({1})
        if spatial := SPATIAL.match(name):
            return frozenset({output.ndim - int(spatial[1]) - 1})
        if name in MIXING:
            return UNKNOWN
        if name in PRODUCTS:
            return last if isinstance(second, Tensor) and second.ndim == 2 else UNKNOWN
        if name == "pad" and output.ndim == args[0].ndim:
            return self._dims.get(args[0], UNKNOWN)
        return self._kept(output, (args, kwargs))

    def _kept(self, output: Tensor, given: Any) -> Dims:
        return self._agreed([tensor for tensor in tensors(given) if tensor.shape == output.shape])

    def _agreed(self, given: list[Tensor]) -> Dims:
        """Channel dimensions on which the tensors agree. Tensors without a record, such as parameters, are ignored."""
        known = {self._dims[tensor] for tensor in given if tensor in self._dims} - {UNKNOWN}
        return known.pop() if len(known) == 1 else UNKNOWN

    def _moved(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Dims]:
        """Channel dimensions of each tensor that a call of a function in ``MOVES`` returns."""
        name, first = (None, args[0]) if args else next(iter(kwargs.items()))
        dims = self._agreed([*tensors(first)])
        if not dims:
            return []
        try:
            numbers = _numbers(first, dims) if isinstance(first, Tensor) else [_numbers(u, dims) for u in first]
            output = function(numbers, *args[1:], **kwargs) if name is None else function(**kwargs | {name: numbers})
            return [_varying(tensor) for tensor in tensors(output)]
        except Exception:  # the indices have another dtype, or the call itself will fail
            return []


def _numbers(u: Tensor, dims: Dims) -> Tensor:
    """Channel index of each element of ``u``, as float32 with the shape and strides of ``u``."""
    sizes = [size if dim in dims else 1 for dim, size in enumerate(u.shape)]
    numbers = torch.arange(math.prod(sizes), dtype=torch.float32, device=u.device).reshape(sizes)
    return torch.empty_like(u, dtype=torch.float32, requires_grad=False).copy_(numbers)


def _varying(numbers: Tensor) -> Dims:
    """Dimensions along which the channel index changes, by at least 1."""
    if not numbers.numel():
        return UNKNOWN
    spans = (numbers.amax(dim) - numbers.amin(dim) for dim in range(numbers.ndim))
    return frozenset(dim for dim, span in enumerate(spans) if span.max() > 0.5)


def tensors(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in an argument or output, in order."""
    if isinstance(value, Tensor):
        yield value
    for part in parts(value) or ():
        yield from tensors(part)


def parts(value: Any) -> list[Any] | None:
    """List the values of a mapping, list, tuple or dataclass instance, in order; ``None`` for other types."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return None
