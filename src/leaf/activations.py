"""The activation functions of the experiment: AHAF, LEAF and the base functions they start from.

Source: Bodyanskiy & Kostiuk, "Learnable Extended Activation Function for Deep Neural Networks",
International Journal of Computing 22(3), 2023, doi 10.47839/ijc.22.3.3225.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from leaf.errors import UserError
from leaf.kernels import gated_line
from leaf.kernels.plain import in_memory_order
from leaf.registry import Registry

BASE_FUNCTIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
"""The paper's base functions, by the names that they have in ``ACTIVATIONS``."""

SHARING = ("element", "channel", "layer")
"""What can own a set of parameters. ``"shared"`` is an older name of ``"layer"``."""

# As a slope inside the sigmoid it turns it into the step function that ReLU needs. Not for float16: it overflows there.
STEP_SLOPE = 2.0**16


def _sizes(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """The shape of one sample's input, checked."""
    sizes = (shape,) if isinstance(shape, Integral) else shape
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name}: shape is that of one sample's input, such as (500,), not {shape!r}")
    if not all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"{name}: shape is made of whole numbers, not {shape!r}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"{name}: shape has one positive size or more, not {shape!r}")
    return tuple(map(int, sizes))


class Adaptive(nn.Module):
    """What learnable activations share: parameters, each of one number per element, that start as a known function.

    A family of them names its parameters and their initial values, and gives its ``formula``.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function it starts as, one of the keys of ``forms``.
        sharing: what has a parameter set of its own: every ``"element"`` as in the paper, every ``"channel"``, or
            the whole ``"layer"``.
        channel_dim: dimension of the input that holds the channels: 1 for ``(N, C, H, W)``, -1 for
            ``(N, tokens, features)``. Only sharing per channel uses it.
        device, dtype: of the parameters, as in ``torch.nn``.

    Shape: input and output ``(*, *shape)``, where ``*`` is any number of dimensions, also none. Per channel, only the
    size of dimension ``channel_dim`` must be that of ``shape``; per layer, inputs may have any shape.

    Raises:
        ValueError: if the family has no such form, there is no such sharing, a size is not positive, or inputs
            ``(N, *shape)`` have no dimension ``channel_dim``.
        TypeError: if an argument has another type, or an input is not a dense floating-point tensor.
        RuntimeError: if an input has another size.
    """

    family: ClassVar[str]
    parameter_names: ClassVar[tuple[str, ...]]
    forms: ClassVar[dict[str, tuple[float, ...]]]
    """Initial values of the parameters, in the order of ``parameter_names``, for each form."""
    slow_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that P24Sl trains at a lower learning rate."""
    usual_sharing: ClassVar[str] = "element"
    """How its source shares parameters; ``ACTIVATIONS`` has it so, under a name that doesn't say it."""
    fused: ClassVar[bool] = False
    """Whether ``leaf.kernels`` computes it; its ``forward`` then does the pooling that follows, if asked to."""
    plain = False
    """Whether to compute as the reference does, with torch operations, even where a faster kernel could."""

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
                raise TypeError(f"{name}: {option} is of type {kind.__name__}, not {value!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"{name}: parameters are floating point, not {dtype}")
        sharing = "layer" if sharing == "shared" else sharing
        if form not in self.forms:
            raise ValueError(f"{name} has no form {form!r}; its forms are: {', '.join(self.forms)}")
        if sharing not in SHARING:
            raise ValueError(f"{name} has no sharing {sharing!r}; there are: {', '.join(SHARING)}")
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

    def reset_parameters(self) -> None:
        """Make it the function that it starts as."""
        for name, value in zip(self.parameter_names, self.forms[self.form], strict=True):
            parameter = getattr(self, name)
            nn.init.constant_(parameter, min(value, torch.finfo(parameter.dtype).max))

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        """The function itself, elementwise.

        Args:
            u: ``(N, elements)``.
            parameters: ``(elements,)`` each, in the order of ``parameter_names``.
        """
        raise NotImplementedError

    def forward(self, u: Tensor) -> Tensor:
        samples = self.samples(u)
        y = in_memory_order(self.formula, samples, *(p.expand(samples.shape[1:]) for p in self.parameters_for(samples)))
        return y if samples is u else y.reshape(u.shape)

    def samples(self, u: Tensor) -> Tensor:
        """The input as a batch of what parameters belong to, ``(N, *rest)``; usually the input itself."""
        if not isinstance(u, Tensor) or not u.is_floating_point() or u.layout is not torch.strided or u.is_nested:
            raise TypeError(f"{type(self).__name__} takes dense floating-point tensors, not {_described(u)}")
        usual = u.ndim == len(self.shape) + 1
        if usual and (torch.compiler.is_exporting() or torch.jit.is_tracing()):  # type: ignore[attr-defined]
            return u  # sizes are symbols there
        if self.sharing == "element":
            if u.shape[-len(self.shape) :] != self.shape:
                raise self._wrong_size(u, f"(*, {', '.join(map(str, self.shape))})")
            return u if usual else u.reshape(-1, *self.shape)
        if self.sharing == "layer":
            return u if u.ndim > 1 else u.reshape(1, -1)
        if u.shape == self.shape:
            u = u[None]  # one sample without a batch dimension
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

    def parameters_for(self, u: Tensor) -> tuple[Tensor, ...]:
        """The parameters as the elements of each of ``u``'s samples see them; ``u`` is what ``samples`` gives."""
        parameters = tuple(getattr(self, name) for name in self.parameter_names)
        if self.sharing != "element" and u.ndim != len(self.shape) + 1:
            sizes = [1] * u.ndim
            if self.sharing == "channel":
                sizes[self.channel_dim] = -1
            parameters = tuple(p.reshape(sizes[1:]) for p in parameters)
        if torch.compiler.is_exporting():  # an exported graph need not hold copies
            return parameters
        return tuple(p if p.shape == u.shape[1:] else p.expand(u.shape[1:]) for p in parameters)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adaptive":
        """Let parameters follow ``to(memory_format=…)`` as weights do, and stay finite in another dtype.

        ReLU's slope overflows in float16; it would be infinite from then on, also back in float32.
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
    """What a module was given, in a few words."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_nested:
        return "a nested tensor"
    return f"a tensor of {value.dtype}" if value.layout is torch.strided else f"a tensor of {value.layout}"


class GatedLine(Adaptive):
    r"""A family that is a case of :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`, which ``leaf.kernels`` computes.

    Shape: as of ``Adaptive``. With ``pooled=True``, 2×2 max-pooling follows in the same pass: input ``(N, C, H, W)``,
    output ``(N, C, H // 2, W // 2)``.
    """

    fused = True

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """The parameters p1 to p4 that the family's own ones stand for; ``None`` stands for a constant 0."""
        raise NotImplementedError

    def forward(self, u: Tensor, pooled: bool = False) -> Tensor:
        samples = self.samples(u)
        if pooled and (u.ndim != 4 or samples is not u):
            raise self._wrong_size(u, "(N, C, H, W) with pooled=True")
        y = gated_line(samples, *self.line(*self.parameters_for(samples)), pooled, self.plain)
        return y if samples is u else y.reshape(u.shape)


class AHAF(GatedLine):
    r"""Adaptive Hybrid Activation Function, :math:`\beta u\,\sigma(\gamma u)`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function it starts as: ``"relu"`` or ``"silu"``.
        sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``; with ``pooled=True``, 2×2 max-pooling of inputs
    ``(N, C, H, W)`` follows in the same pass.
    Source: Bodyanskiy & Kostiuk (2023); introduced by the same authors in 2022.
    """

    family = "ahaf"
    parameter_names = ("beta", "gamma")
    forms = {"relu": (1.0, STEP_SLOPE), "silu": (1.0, 1.0)}

    beta: nn.Parameter
    gamma: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        beta, gamma = parameters
        return beta, None, gamma, None


class LEAF(GatedLine):
    r"""Learnable Extended Activation Function, :math:`(p_1 u + p_2)\,\sigma(p_3 u) + p_4`.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function it starts as: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``; with ``pooled=True``, 2×2 max-pooling of inputs
    ``(N, C, H, W)`` follows in the same pass.
    Source: Bodyanskiy & Kostiuk (2023).
    """

    family = "leaf"
    parameter_names = ("p1", "p2", "p3", "p4")
    forms = {
        "relu": (1.0, 0.0, STEP_SLOPE, 0.0),
        "silu": (1.0, 0.0, 1.0, 0.0),
        "tanh": (0.0, 2.0, 2.0, -1.0),
        "sigmoid": (0.0, 1.0, 1.0, 0.0),
    }
    slow_parameters = ("p2", "p4")

    p1: nn.Parameter
    p2: nn.Parameter
    p3: nn.Parameter
    p4: nn.Parameter

    def line(self, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        p1, p2, p3, p4 = parameters
        return p1, p2, p3, p4


class Affine(Adaptive):
    r"""A base function with a scale and a shift that learn, :math:`a f(u) + b`.

    The control for capacity: as many parameters as AHAF, none of which changes the function's form.

    Args:
        shape: shape of one sample's input, ``(C, H, W)`` or ``(features,)``; an int stands for a single size.
        form: the function, and what it starts as: ``"relu"``, ``"silu"``, ``"tanh"`` or ``"sigmoid"``.
        sharing, channel_dim, device, dtype: as in ``Adaptive``, and so are the errors raised.

    Shape: input and output ``(*, *shape)``, as in ``Adaptive``.
    """

    family = "affine"
    parameter_names = ("scale", "shift")
    forms = dict.fromkeys(("relu", "silu", "tanh", "sigmoid"), (1.0, 0.0))

    scale: nn.Parameter
    shift: nn.Parameter

    def formula(self, u: Tensor, *parameters: Tensor) -> Tensor:
        scale, shift = parameters
        return torch.addcmul(shift, scale, BASE_FUNCTIONS[self.form]()(u))


@dataclass(frozen=True)
class Activation:
    """All that the rest of the project knows of an activation, under its name in ``ACTIVATIONS``.

    Attributes:
        family: ``"base"`` for a plain function, else the family of the learnable one.
        title: the family in tables.
        form: the plain function that it is or starts as, by its name in ``ACTIVATIONS``: what tables compare it with.
        make: makes the module for inputs of one sample's shape.
        adaptive: whether it has parameters to train; the module is an ``Adaptive`` then.
        slow_parameters: those of them that P24Sl slows down; empty where P24Sl has no meaning.
        fused: whether ``leaf.kernels`` computes it.
        start: what it starts as, in words, where that is not quite its form.
        fully_connected_only: whether it learns after linear layers only and is its form after convolutions.
        layer: class of the learnable module, for which conversion of other models looks; ``None`` for a plain function.
    """

    family: str
    title: str
    form: str
    make: Callable[[Sequence[int]], nn.Module]
    adaptive: bool = False
    slow_parameters: tuple[str, ...] = ()
    fused: bool = False
    start: str = ""
    fully_connected_only: bool = False
    layer: type[Adaptive] | None = None

    def build(self, shape: Sequence[int]) -> nn.Module:
        """The module for inputs of one sample's shape, ``(C, H, W)`` or ``(features,)``.

        What it draws for itself it draws from a copy of torch's generator: a network's weights are the same whatever
        its activations are.
        """
        with torch.random.fork_rng(devices=[]):
            return self.make(shape)


def plain(name: str, function: Callable[[], nn.Module]) -> Activation:
    """A plain function, such as ``plain("mish", nn.Mish)``; ``name`` is the one it has in ``ACTIVATIONS``."""
    return Activation("base", "base", name, lambda shape: function())


def learnable(family: type[Adaptive], form: str, sharing: str | None = None, start: str = "") -> Activation:
    """A learnable activation of a family, starting as ``form``; parameters are shared as usual, if not otherwise."""
    name, title = family.family, family.__name__
    sharing = sharing or family.usual_sharing
    if sharing != family.usual_sharing:
        name, title = f"{sharing}-{name}", f"{title} per {sharing}"
    make = partial(family, form=form, sharing=sharing)
    return Activation(name, title, form, make, True, family.slow_parameters, family.fused, start, layer=family)


PROBED_SHAPES = ((2, 4, 6), (3,))
"""Shapes of one sample's input, after a convolution and after a linear layer, that an activation is tried on."""


def _check(name: str, kind: Any) -> None:
    """See that an activation can be registered.

    Raises:
        UserError: if not.
    """
    if not isinstance(kind, Activation):
        raise UserError(f"activation {name!r} is no Activation; make one with plain(…) or learnable(…)")
    if kind.family == "base":
        if kind.form != name:
            raise UserError(f"activation {name!r}: a plain function's form is its own name, not {kind.form!r}")
    elif kind.form not in ACTIVATIONS or ACTIVATIONS[kind.form].family != "base":
        raise UserError(f"activation {name!r}: its form {kind.form!r} is no plain function in ACTIVATIONS")
    same = [n for n, k in ACTIVATIONS.items() if (k.family, k.form) == (kind.family, kind.form) and n != name]
    if same:
        raise UserError(f"activation {name!r}: family {kind.family!r} as {kind.form!r} is {same[0]!r} already")
    if kind.layer is not None:
        try:
            signature(kind.layer).bind((3,), kind.form, sharing="layer", channel_dim=1, device=None, dtype=None)
        except TypeError as error:
            raise UserError(
                f"activation {name!r}: {kind.layer.__name__} lacks arguments of Adaptive: {error}"
            ) from None
    for shape in PROBED_SHAPES:
        _probe(name, kind, shape)


@torch.no_grad()
def _probe(name: str, kind: Activation, shape: tuple[int, ...]) -> None:
    """See that the module of an activation is what it is said to be and keeps its input's shape."""
    module = kind.build(shape)
    learns = any(True for _ in module.parameters())
    if (learns and not kind.adaptive) or (kind.adaptive and not learns and not kind.fully_connected_only):
        raise UserError(f"activation {name!r}: adaptive is {kind.adaptive}, but its parameters say otherwise")
    if learns and not isinstance(module, kind.layer or Adaptive):
        raise UserError(f"activation {name!r}: a learnable activation is a leaf.activations.Adaptive")
    inputs = torch.linspace(-3, 3, 5 * math.prod(shape)).reshape(5, *shape)
    try:
        # Shapes alone where they suffice: operations would start torch's threads, and forked processes hang then.
        outputs = kind.build(shape).to("meta")(inputs.to("meta"))
    except Exception:
        outputs = module(inputs)
    if not isinstance(outputs, Tensor) or outputs.shape != inputs.shape or not outputs.is_floating_point():
        found = f"{list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(
            f"activation {name!r}: gives {found} for inputs of shape {list(inputs.shape)}, not the same shape"
        )


ACTIVATIONS: Registry[Activation] = Registry("activation", _check)
"""Every activation that a network can be built with, by name: ``relu``, ``ahaf-silu``, ``leaf-tanh``, …, and controls
for capacity: ``affine-tanh``, ``channel-leaf-tanh``, …"""

for _name, _function in BASE_FUNCTIONS.items():
    ACTIVATIONS.register(_name, plain(_name, _function))
for _families, _sharing in (((AHAF, LEAF, Affine), "element"), ((AHAF, LEAF), "channel")):
    for _family in _families:
        for _form in _family.forms:
            _kind = learnable(_family, _form, _sharing)
            ACTIVATIONS.register(f"{_kind.family}-{_form}", _kind)
