"""The tensors of one call of a fast kernel, checked: a kernel works on bare addresses, and a wrong one corrupts memory.

The kernels of ``leaf.kernels.cpu`` and ``leaf.kernels.gpu`` take ``Operands`` and nothing else, and allocate what they
return. Making ``Operands`` is the check, so that no kernel runs without it: in the forward pass, and again in the
backward pass, since saved tensors and parameters may have changed in between.
"""

import torch
from torch import Tensor
from torch._C import (
    _dispatch_isTensorSubclassLike,
    _dispatch_tls_is_dispatch_key_included,
    _len_torch_dispatch_stack,
)
from torch.nn import Parameter

from leaf.kernels.plain import transformed

PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


class Unfit(Exception):
    """The fast kernel cannot compute this call; the reference has to."""


class Broken(Unfit):
    """The fast kernel cannot be compiled on this machine."""


class Operands:
    """Float32 tensors of one device that are dense in one memory order.

    Args:
        u: ``(N, *shape)``, not empty.
        parameters: p1 to p4, ``shape`` each or ``None``.
        grad_y: gradient of the output, in the backward pass.
        window: in the backward pass of pooling in the same pass, what the forward pass returned for it.

    A tensor in another memory order is copied, differentiably.

    Raises:
        Unfit: for any other dtype, device or shape, a tensor subclass, a tensor that owns no memory (of
            ``torch.func``, batched, zero, negated, meta, sparse), and while torch traces or dispatches to a mode.
        RuntimeError: if a tensor's storage is smaller than its shape needs, as after FSDP has freed it. Torch's own
            operations would read past its end.
    """

    __slots__ = ("channels_last", "grad_y", "parameters", "u", "window")

    def __init__(
        self,
        u: Tensor,
        parameters: tuple[Tensor | None, ...],
        grad_y: Tensor | None = None,
        window: Tensor | None = None,
    ) -> None:
        if (
            torch.compiler.is_compiling()
            or transformed()
            or _len_torch_dispatch_stack()
            or _dispatch_tls_is_dispatch_key_included(PRE_DISPATCH)
            or type(u) is not Tensor
            or u.layout is not torch.strided
            or not u.numel()
        ):
            raise Unfit
        shape, device = u.shape, u.device
        channels_last = window is not None or (u.ndim == 4 and u.is_contiguous(memory_format=torch.channels_last))
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.channels_last = channels_last
        u = self.u = checked(u, device, shape, memory_format)
        sample, order = shape[1:], u.stride()[1:]
        self.parameters = tuple([
            None if p is None else checked(p, device, sample, memory_format, order) for p in parameters
        ])  # fmt: skip
        self.grad_y, self.window = grad_y, window
        if grad_y is not None:
            if window is not None:
                shape = torch.Size((*shape[:2], shape[2] // 2, shape[3] // 2))
                self.window = checked(window, device, shape, memory_format, dtype=torch.uint8)
            self.grad_y = checked(grad_y, device, shape, memory_format)


def checked(
    tensor: Tensor,
    device: torch.device,
    shape: torch.Size,
    memory_format: torch.memory_format,
    order: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The tensor, or a copy of it in the memory format, safe for a kernel to read.

    Args:
        order: for a parameter, which has no batch dimension, the strides that it needs in this memory format.
    """
    if (
        (type(tensor) is not Tensor and type(tensor) is not Parameter)
        or tensor.dtype is not dtype
        or tensor.device != device
        or tensor.shape != shape
        or _dispatch_isTensorSubclassLike(tensor)
        or tensor.is_neg()
    ):
        raise Unfit
    dense = tensor.is_contiguous(memory_format=memory_format) if order is None else tensor.stride() == order
    if dense:
        extent = tensor.numel()
    else:
        extent = 1 + sum((size - 1) * step for size, step in zip(shape, tensor.stride(), strict=True))
    try:
        present, address = tensor.untyped_storage().nbytes(), tensor.data_ptr()
    except NotImplementedError:  # it has no storage, as in MKL-DNN's layout
        raise Unfit from None
    needed = (tensor.storage_offset() + extent) * tensor.itemsize
    if present < needed:
        raise RuntimeError(
            f"a tensor of shape {tuple(shape)} needs a storage of {needed} bytes, but its storage has {present}: "
            "was it freed or resized, as by FSDP, before this use?"
        )
    if not address or address % tensor.itemsize:  # torch._efficientzerotensor has no memory
        raise Unfit
    if dense:
        return tensor
    if order is None:
        return tensor.contiguous(memory_format=memory_format)
    # A layer that went through memory as its inputs do would spare this.
    return tensor[None].contiguous(memory_format=memory_format)[0]
