"""Checked tensors for a fast kernel. Kernels use raw addresses, and a wrong address would corrupt memory.

``leaf.kernels.cpu`` and ``leaf.kernels.gpu`` accept only ``Operands``, and allocate their results. The constructor
checks the tensors, so that no kernel runs without a check. The backward pass checks them again, since saved tensors and
parameters may have changed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C import (
    _dispatch_isTensorSubclassLike,
    _dispatch_tls_is_dispatch_key_included,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch.compiler import is_compiling
from torch.nn import Parameter

from leaf.kernels.reference import transformed

PRE_DISPATCH = torch._C.DispatchKey.PreDispatch

OTHERWISE = 0
"""In place of an address: the kernel needs a copy of the tensor in another memory order."""


class Unfit(Exception):
    """The fast kernel does not support a call. The reference kernel is used instead."""


class Broken(Unfit):
    """The fast kernel cannot be compiled on this machine."""


class Operands:
    """Float32 tensors of one device that are dense in one memory order.

    Args:
        u: ``(N, *shape)``, not empty.
        parameters: p1 to p4; each broadcasts to ``shape`` or is ``None``. The backward pass does not read p4.
        grad_y: gradient of the output, in the backward pass.
        window: positions of the maxima from the forward pass, in the backward pass with pooling.

    A tensor in another memory order is copied; for ``u`` the copy is differentiable.

    Attributes:
        addresses: addresses of ``u``, p1 to p4, and of ``grad_y`` and ``window`` if given; ``None`` for a parameter
            that is ``None``.

    Raises:
        Unfit: if a dtype, device or shape differs; for a tensor subclass or a tensor that does not own its memory
            (``torch.func``, batched, zero, negated, meta, sparse); and while torch traces or dispatches to a mode.
        RuntimeError: if a tensor's storage is smaller than its shape requires, for example after FSDP has freed it.
            Torch's own operations would read beyond its end.
    """

    __slots__ = ("addresses", "channels_last", "grad_y", "parameters", "u", "window")

    def __init__(
        self,
        u: Tensor,
        parameters: Sequence[Tensor | None],
        grad_y: Tensor | None = None,
        window: Tensor | None = None,
    ) -> None:
        if (
            is_compiling()
            or _is_tracing()
            or transformed()
            or _len_torch_dispatch_stack()
            or _dispatch_tls_is_dispatch_key_included(PRE_DISPATCH)
            or type(u) is not Tensor
            or u.layout is not torch.strided
        ):
            raise Unfit
        shape, device, elements = u.shape, u.device, u.numel()
        if not elements:
            raise Unfit
        channels_last = len(shape) == 4 and u.is_contiguous(memory_format=torch.channels_last)
        dense = channels_last or (window is None and u.is_contiguous())
        channels_last = channels_last or window is not None
        strides: tuple[int, ...] = u.stride() if dense else ()
        at_u = checked(u, device, shape, strides, elements)
        if at_u == OTHERWISE:
            u, at_u = in_order(u, shape, channels_last)
            strides = u.stride()
        sample, order, features = shape[1:], strides[1:], elements // shape[0]
        at = [None if p is None else checked(p, device, sample, order, features) for p in parameters]
        if OTHERWISE in at:
            parameters = [
                torch.empty_strided(sample, order, dtype=torch.float32, device=device).copy_(p.detach())
                if p is not None and place == OTHERWISE
                else p
                for p, place in zip(parameters, at, strict=True)
            ]
            at = [None if p is None else p.data_ptr() for p in parameters]
        self.u, self.parameters, self.channels_last = u, parameters, channels_last
        self.grad_y, self.window, self.addresses = grad_y, window, [at_u, *at]
        if grad_y is None:
            return
        if window is not None:
            batch, channels, height, width = shape[0], shape[1], shape[2] // 2, shape[3] // 2
            shape = torch.Size((batch, channels, height, width))
            strides = (height * width * channels, 1, width * channels, channels)
            elements = shape.numel()
        at_grad_y = checked(grad_y, device, shape, strides, elements)
        if at_grad_y == OTHERWISE:
            self.grad_y, at_grad_y = in_order(grad_y, shape, channels_last)
        self.addresses.append(at_grad_y)
        if window is not None:
            at_window = checked(window, device, shape, strides, elements, torch.uint8)
            if at_window == OTHERWISE:
                self.window, at_window = in_order(window, shape, channels_last)
            self.addresses.append(at_window)


def checked(
    tensor: Tensor,
    device: torch.device,
    shape: torch.Size,
    strides: tuple[int, ...],
    elements: int,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Check a tensor and return its address, or ``OTHERWISE`` if its shape or strides differ.

    A step of a small layer takes about 100 µs and calls this function ten times. Each property is therefore read once.

    Args:
        elements: number of elements of ``shape``.
    """
    if (
        (type(tensor) is not Tensor and type(tensor) is not Parameter)
        or tensor.dtype is not dtype
        or tensor.device != device
        or _dispatch_isTensorSubclassLike(tensor)
        or tensor.is_neg()
    ):
        raise Unfit
    size, as_asked = tensor.itemsize, tensor.shape == shape and tensor.stride() == strides
    try:
        present, address = tensor.untyped_storage().nbytes(), tensor.data_ptr()
    except NotImplementedError:  # a tensor without storage, such as in MKL-DNN's layout
        raise Unfit from None
    needed = size * (tensor.storage_offset() + (elements if as_asked else _extent(tensor)))
    if present < needed:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} needs a storage of {needed} bytes, but its storage has "
            f"{present}: was it freed or resized, as by FSDP, before this use?"
        )
    if not address or address % size:  # torch._efficientzerotensor has no memory
        raise Unfit
    return address if as_asked else OTHERWISE


def _extent(tensor: Tensor) -> int:
    """Distance from the start of the first element to the end of the last, in elements."""
    return 1 + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))


def in_order(tensor: Tensor, shape: torch.Size, channels_last: bool) -> tuple[Tensor, int]:
    """Return a checked tensor in the required memory order, copied if necessary, and its address."""
    if tensor.shape != shape:
        raise Unfit
    tensor = tensor.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return tensor, tensor.data_ptr()
