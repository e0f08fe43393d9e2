"""Base classes of learnable activations: parameters, sharing and input shapes."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from leaf.kernels import gated_line
from leaf.kernels.reference import in_memory_order, symbolic
from leaf.names import Family, GatedLineFamily

SHARING = ("element", "channel", "layer")
"""Values of ``sharing``. ``"shared"`` is the former name of ``"layer"``."""


def _sizes(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """Check the shape of one sample's input and return it as a tuple."""
    sizes = (shape,) if isinstance(shape, Integral) else shape
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name}: shape must be that of one sample's input, such as (500,), not {shape!r}")
    if not all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"{name}: shape must consist of integers, not {shape!r}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"{name}: shape must have at least one size, all positive, not {shape!r}")
    return tuple(map(int, sizes))


class Adaptive(Family, nn.Module):
    """Base class of learnable activations, which initially equal or approximate a base function.

    A subclass defines the names and initial values of its parameters, and ``formula``.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int is a single size.
        form: the initial function, one of the keys of ``forms``.
        sharing: which elements use the same parameter set: each ``"element"`` has its own as in the paper, those of a
            ``"channel"`` share one, or all of the ``"layer"``.
        channel_dim: dimension of the channels in the input: 1 for ``(N, C, H, W)``, -1 for ``(N, tokens, features)``.
            Only sharing per channel uses it.
        device, dtype: device and dtype of the parameters, as in ``torch.nn``.

    Shape: input and output ``(*, *shape)``, where ``*`` is any number of dimensions, including none. With sharing per
    channel, only the size of dimension ``channel_dim`` must be that of ``shape``. This dimension is counted in the
    input: one sample without a batch dimension needs a negative one. With sharing per layer, any shape is accepted.

    Raises:
        ValueError: if ``form`` or ``sharing`` is unknown, a size is not positive, or inputs ``(N, *shape)`` have no
            dimension ``channel_dim``.
        TypeError: if an argument has another type, or an input is not a dense floating-point tensor.
        RuntimeError: if an input has another size.
    """

    reference = False
    """``True`` selects the reference kernel even if a faster one is available."""

    def __init__(
        self,
        shape: int | Sequence[int],
        form: str,
        sharing: str = "element",
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for option, value, kind in (("form", form, str), ("sharing", sharing, str), ("channel_dim", channel_dim, int)):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name}: {option} must be of type {kind.__name__}, not {value!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"{name}: parameters must be floating point, not {dtype}")
        sharing = "layer" if sharing == "shared" else sharing
        if form not in self.forms:
            raise ValueError(f"{name} has no form {form!r}; its forms are: {', '.join(self.forms)}")
        if sharing not in SHARING:
            raise ValueError(f"{name} has no sharing {sharing!r}; the values are: {', '.join(SHARING)}")
        self.shape, self.form, self.sharing, self.channel_dim = _sizes(name, shape), form, sharing, channel_dim
        own = self.shape if sharing == "element" else tuple(1 for _ in self.shape)
        if sharing == "channel":
            dimensions = len(own) + 1
            if channel_dim not in (*range(1, dimensions), *range(1 - dimensions, 0)):
                raise ValueError(f"{name}: inputs (N, *{self.shape}) have no dimension {channel_dim} for channels")
            channels = channel_dim % dimensions - 1
            own = tuple(size if axis == channels else 1 for axis, size in enumerate(self.shape))
        for name in self.parameter_names:
            self.register_parameter(name, nn.Parameter(torch.empty(own, device=device, dtype=dtype)))
        self.reset_parameters()

    def initial_values(self) -> dict[str, float]:
        """Initial value of each parameter, by name."""
        return dict(zip(self.parameter_names, self.forms[self.form], strict=True))

    def reset_parameters(self) -> None:
        """Reset the parameters to their initial values."""
        for name, value in self.initial_values().items():
            parameter = getattr(self, name)
            nn.init.constant_(parameter, min(value, torch.finfo(parameter.dtype).max))

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        """Compute the activation elementwise.

        Args:
            u: ``(N, elements)``.
            parameters: ``(elements,)`` each, in the order of ``parameter_names``.
        """
        raise NotImplementedError

    def forward(self, u: Tensor) -> Tensor:
        samples = self.samples(u)
        y = in_memory_order(self.formula, samples, *self.parameters_for(samples))
        return y if samples is u else y.reshape(u.shape)

    def samples(self, u: Tensor) -> Tensor:
        """Reshape an input to a batch ``(N, *rest)`` to which the parameters broadcast; usually returns the input."""
        if not isinstance(u, Tensor) or not u.is_floating_point() or u.layout is not torch.strided or u.is_nested:
            raise TypeError(f"{type(self).__name__} takes dense floating-point tensors, not {_described(u)}")
        usual = u.ndim == len(self.shape) + 1
        if usual and symbolic():
            return u
        if self.sharing == "element":
            if u.shape[-len(self.shape) :] != self.shape:
                raise self._wrong_size(u, f"(*, {', '.join(map(str, self.shape))})")
            return u if usual else u.reshape(-1, *self.shape)
        if self.sharing == "layer":
            return u if u.ndim > 1 else u.reshape(1, -1)
        channels = self.shape[self.channel_dim % (len(self.shape) + 1) - 1]
        if not -u.ndim <= self.channel_dim < u.ndim or u.shape[self.channel_dim] != channels:
            raise self._wrong_size(u, f"with {channels} channels in dimension {self.channel_dim}")
        if usual:
            return u
        if self.channel_dim == -1:
            return u.reshape(-1, channels)
        return u if self.channel_dim % u.ndim else u[None]

    def _wrong_size(self, u: Tensor, wanted: str) -> RuntimeError:
        return RuntimeError(
            f"{type(self).__name__} of shape {self.shape} takes inputs {wanted}, not of size {tuple(u.shape)}"
        )

    def parameters_for(self, u: Tensor) -> Sequence[Tensor]:
        """Return the parameters in shapes that broadcast to a sample of ``u``, which is the result of ``samples``."""
        try:  # access to attributes of a module takes ten times as long
            own = self._parameters
            parameters: Sequence[Any] = [own[name] for name in self.parameter_names]
        except KeyError:  # torch.nn.utils replaces pruned and parametrized parameters by other attributes
            parameters = [getattr(self, name) for name in self.parameter_names]
        if self.sharing == "element" or u.ndim == len(self.shape) + 1:
            return parameters
        sizes = [1] * u.ndim
        if self.sharing == "channel":
            sizes[self.channel_dim] = -1
        return [p.reshape(sizes[1:]) for p in parameters]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adaptive":
        """Convert parameters as ``to(memory_format=…)`` converts weights, and clamp them to a new dtype's range.

        The slope of the form ReLU overflows in float16, and would remain infinite in a later conversion to float32.
        """

        def convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor[None])[0]
            if converted.dtype == tensor.dtype or not isinstance(tensor, nn.Parameter):
                return converted
            largest = min(torch.finfo(dtype).max for dtype in (tensor.dtype, converted.dtype))
            return converted.clamp(-largest, largest)

        return super()._apply(convert, recurse)

    def extra_repr(self) -> str:
        sharing = "" if self.sharing == "element" else f", sharing={self.sharing!r}"
        channels = f", channel_dim={self.channel_dim}" if self.sharing == "channel" and self.channel_dim != 1 else ""
        return f"shape={self.shape}, form={self.form!r}{sharing}{channels}"


def _described(value: Any) -> str:
    """Describe an invalid input for an error message."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_nested:
        return "a nested tensor"
    return f"a tensor of {value.dtype}" if value.layout is torch.strided else f"a tensor of {value.layout}"


class GatedLine(GatedLineFamily, Adaptive):
    r"""Base class of the special cases of :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, which ``leaf.kernels`` computes.

    Args:
        slope: initial slope inside the sigmoid, only for the form ``"relu"``. With the default 2^16, float32 loses
            updates below 0.002. A smaller slope can learn, but the initial function differs from ReLU by up to
            0.28 / slope.
        shape, form, sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: as in ``Adaptive``. With ``pooled=True``, 2×2 max-pooling follows in the same pass: input ``(N, C, H, W)``,
    output ``(N, C, H // 2, W // 2)``.
    """

    slope_parameter: ClassVar[str] = ""
    """Name of the parameter that is the slope inside the sigmoid; empty in a family without the form ReLU."""
    slope: float | None = None

    def __init__(
        self,
        shape: int | Sequence[int],
        form: str,
        sharing: str = "element",
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        slope: float | None = None,
    ) -> None:
        super().__init__(shape, form, sharing, channel_dim, device, dtype)
        if slope is None:
            return
        name = type(self).__name__
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise TypeError(f"{name}: slope must be a number, not {slope!r}")
        if form != "relu" or not self.slope_parameter:
            raise ValueError(f"{name}: slope applies only to the form 'relu', not to {form!r}")
        if not 0 < slope < math.inf:
            raise ValueError(f"{name}: slope must be positive and finite, not {slope!r}")
        self.slope = float(slope)
        self.reset_parameters()

    def initial_values(self) -> dict[str, float]:
        return super().initial_values() | ({} if self.slope is None else {self.slope_parameter: self.slope})

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.slope is None else f", slope={self.slope:g}")

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Return p1, p2, p3 and p4 for the family's parameters; ``None`` is a constant 0."""
        raise NotImplementedError

    def forward(self, u: Tensor, pooled: bool = False) -> Tensor:
        samples = self.samples(u)
        if pooled and (u.ndim != 4 or samples is not u):
            raise self._wrong_size(u, "(N, C, H, W) with pooled=True")
        y = gated_line(samples, *self.line(*self.parameters_for(samples)), pooled, self.reference)
        return y if samples is u else y.reshape(u.shape)
