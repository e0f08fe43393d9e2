"""Replacements of activations: families of learnable activations, and other modules that the user makes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leaf.activations import ACTIVATIONS, SHARING, Adaptive
from leaf.uses import MARK, Input

NEAREST = {"gelu": ("silu", 1.702), "hardswish": ("silu", 1.0), "hardsigmoid": ("sigmoid", 1.0)}
"""The nearest form of functions that are not forms themselves, and the slope of its gate.

GELU(u) ≈ u·σ(1.702 u) is from Hendrycks & Gimpel (arXiv 1606.08415). The other two were designed to approximate u·σ(u)
and σ(u) (Howard et al., arXiv 1905.02244).
"""

GATE_SLOPE = {"ahaf": "gamma", "leaf": "p3", "swish": "beta"}
"""The name of the parameter ``slope`` in families with a gate σ(slope · u)."""

EXACT = 1e-5
"""Smaller differences are not reported: rounding, and the error of the form ReLU near 0, 4.3e-6."""


def families() -> dict[str, type[Adaptive]]:
    """Return the families of all registered learnable activations, by name."""
    return {kind.layer.family: kind.layer for kind in ACTIVATIONS.values() if kind.layer is not None}


def replacement(with_: Any, sharing: str | None, channel_dim: int | None, nearest: bool) -> "Replacement":
    """Make the replacement from the arguments of ``replace_activations``.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or an unknown value.
    """
    if isinstance(with_, str):
        known = families()
        if with_ not in known:
            raise ValueError(f"unknown family {with_!r}; known: {', '.join(known)}")
        with_ = known[with_]
    if not callable(with_) or isinstance(with_, nn.Module):
        raise TypeError(f"with_ must be a family's name, a class or a function that makes a module, not {with_!r}")
    if not isinstance(channel_dim, int | None) or isinstance(channel_dim, bool):
        raise TypeError(f"channel_dim must be 1 or -1, or None to infer it, not {channel_dim!r}")
    if not (isinstance(with_, type) and issubclass(with_, Adaptive)):
        if (sharing, channel_dim, nearest) != (None, None, False):
            raise ValueError("sharing, channel_dim and nearest apply only to families of learnable activations")
        return Made(with_)
    sharing = with_.usual_sharing if sharing is None else sharing
    if not isinstance(sharing, str):
        raise TypeError(f"sharing must be one of {', '.join(SHARING)}, not {sharing!r}")
    sharing = "layer" if sharing == "shared" else sharing
    if sharing not in SHARING:
        raise ValueError(f"unknown sharing {sharing!r}; known: {', '.join(SHARING)}")
    return Learnable(with_, sharing, channel_dim, nearest)


@dataclass(frozen=True)
class Learnable:
    """A family of learnable activations."""

    family: type[Adaptive]
    sharing: str
    channel_dim: int | None
    nearest: bool

    faithful = True
    """It initially computes the replaced function, so that the model's output should not change."""

    @property
    def title(self) -> str:
        """Name in reports."""
        return self.family.__name__

    def check(self, kind: str) -> None:
        """Raise a ``ValueError`` with the reason if activations of this kind cannot be replaced."""
        if kind in self.family.forms:
            return
        form, slope = NEAREST.get(kind, ("", 1.0))
        near = form in self.family.forms and (slope == 1 or self.family.family in GATE_SLOPE)
        if not near or not self.nearest:
            hint = f"; with nearest=True it starts as {form}, which is close" if near else ""
            forms = ", ".join(self.family.forms)
            raise ValueError(f"{self.title} cannot start as {kind}; it starts as: {forms}{hint}")

    def check_inputs(self, inputs: list[Input]) -> None:
        """Raise a ``ValueError`` with the reason if one module cannot process all these inputs."""
        _check_tensors(inputs)
        shapes = [one.shape for one in inputs]
        if () in shapes:
            raise ValueError("its input has only the batch dimension")
        channel_dim, *others = {self._channels(one) for one in inputs}
        if channel_dim is None or others:
            raise ValueError("the channel dimension of its input cannot be inferred; pass channel_dim")
        if any(channel_dim not in (*range(1, len(s) + 1), *range(-len(s), 0)) for s in shapes):
            raise ValueError(f"its input has no channel dimension {channel_dim} after the batch")
        same: dict[str, Callable[[tuple[int, ...]], Any]] = {
            "element": lambda shape: shape,
            "channel": lambda shape: (len(shape), (0, *shape)[channel_dim]),
            "layer": len,
        }
        _check_shapes(inputs, same[self.sharing])

    def build(self, kind: str, given: Input) -> nn.Module:
        """Make the module for an input."""
        layer = self._starting_as(kind, given.shape, self.sharing, self._channels(given) or 1)
        layer.to(given.device, given.dtype)
        return layer.to(memory_format=torch.channels_last) if given.channels_last else layer

    def error(self, kind: str, original: Callable[[Tensor], Tensor]) -> float | None:
        """Largest initial difference from the original on [-15, 15]; ``None`` below ``EXACT``."""
        u = torch.linspace(-15, 15, 100_001, dtype=torch.float64)[:, None]
        with torch.no_grad():
            error = (self._starting_as(kind, (1,)).double()(u) - original(u)).abs().max().item()
        return None if error < EXACT else error

    def _starting_as(self, kind: str, shape: tuple[int, ...], *sharing: Any) -> Adaptive:
        if kind in self.family.forms:
            return self.family(shape, kind, *sharing)
        form, slope = NEAREST[kind]
        layer = self.family(shape, form, *sharing)
        if slope != 1:
            nn.init.constant_(getattr(layer, GATE_SLOPE[self.family.family]), slope)
        return layer

    def _channels(self, given: Input) -> int | None:
        """Dimension of an input's channels; 1 if parameters are not shared per channel."""
        if self.sharing != "channel":
            return 1
        return given.channel_dim if self.channel_dim is None else self.channel_dim


@dataclass(frozen=True)
class Made:
    """Any module: an instance of a class, made without arguments, or the result of a function of shape and form.

    Its methods are those of ``Learnable``. No error is computed.
    """

    make: Callable[..., nn.Module]

    faithful = False

    @property
    def title(self) -> str:
        return getattr(self.make, "__name__", type(self.make).__name__)

    def check(self, kind: str) -> None:
        if kind == "glu":
            raise ValueError("its output has half the size of its input")

    def check_inputs(self, inputs: list[Input]) -> None:
        _check_tensors(inputs)
        _check_shapes(inputs, lambda shape: shape)

    def build(self, kind: str, given: Input) -> nn.Module:
        made: Any = self._made_of_class() if isinstance(self.make, type) else self.make(given.shape, kind)
        if not isinstance(made, nn.Module):
            raise TypeError(f"with_ must make a torch module; for {kind} it made {made!r}")
        vars(made)[MARK] = kind
        return made.to(given.device, given.dtype)

    def _made_of_class(self) -> nn.Module:
        try:
            return self.make()
        except TypeError as error:
            raise TypeError(f"{error}; with_ may also be a function of shape and form that makes a module") from error

    def error(self, kind: str, original: Callable[[Tensor], Tensor]) -> float | None:
        return None


Replacement = Learnable | Made
"""A way to replace activations, chosen by the arguments of ``replace_activations``."""


def _check_tensors(inputs: list[Input]) -> None:
    if any(one.parameter for one in inputs):
        raise ValueError("its input is a parameter of the model")
    if not inputs[0].dtype.is_floating_point:
        raise ValueError(f"its input is {inputs[0].dtype}")


def _check_shapes(inputs: list[Input], same: Callable[[tuple[int, ...]], Any]) -> None:
    shapes = dict.fromkeys(one.shape for one in inputs)
    if len({same(shape) for shape in shapes}) > 1:
        raise ValueError(f"it is applied to inputs of shapes {', '.join(map(str, shapes))}")
