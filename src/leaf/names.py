"""Names and properties of all activations and networks, without importing torch, which takes seconds.

Commands that only list or count cells need no more. Classes are given by their import paths and imported on first use.
They inherit or copy the properties from this module.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from leaf.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from leaf.adaptive import Adaptive
    from leaf.networks import Network

ImageShape = tuple[int, int, int]
"""Channels, height and width of one image."""


@dataclass(frozen=True)
class Imported:
    """A class or function by its import path, such as ``torch.nn:ReLU``. A call imports and calls it."""

    path: str

    @property
    def __name__(self) -> str:
        return self.path.rpartition(":")[2]

    def load(self) -> Any:
        """Import the class or function."""
        return resolve_name(self.path)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.load()(*args, **kwargs)


# --- families of learnable activations --------------------------------------------------------------------------------

STEP_SLOPE = 2.0**16
"""Slope inside a sigmoid that makes it the step function of ReLU. It overflows in float16."""


class Family:
    """Properties of a family of learnable activations. The family's class derives from this one."""

    implementation: ClassVar[Imported]
    """The family's class, if that is not this class itself."""

    family: ClassVar[str]
    parameter_names: ClassVar[tuple[str, ...]]
    forms: ClassVar[dict[str, tuple[float, ...]]]
    """Initial values of the parameters, in the order of ``parameter_names``, for each form."""
    slow_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that P24Sl trains at a lower learning rate."""
    usual_sharing: ClassVar[str] = "element"
    """The sharing in the family's source, and in ``ACTIVATIONS`` unless a name states another one."""
    fused: ClassVar[bool] = False
    """``True`` if ``leaf.kernels`` computes the family. Its ``forward`` can then include max-pooling."""


class GatedLineFamily(Family):
    fused = True


class AHAFFamily(GatedLineFamily):
    implementation = Imported("leaf.activations:AHAF")
    family = "ahaf"
    parameter_names = ("beta", "gamma")
    forms = {"relu": (1.0, STEP_SLOPE), "silu": (1.0, 1.0)}


class LEAFFamily(GatedLineFamily):
    implementation = Imported("leaf.activations:LEAF")
    family = "leaf"
    parameter_names = ("p1", "p2", "p3", "p4")
    forms = {
        "relu": (1.0, 0.0, STEP_SLOPE, 0.0),
        "silu": (1.0, 0.0, 1.0, 0.0),
        "tanh": (0.0, 2.0, 2.0, -1.0),
        "sigmoid": (0.0, 1.0, 1.0, 0.0),
    }
    slow_parameters = ("p2", "p4")


class AffineFamily(Family):
    implementation = Imported("leaf.activations:Affine")
    family = "affine"
    parameter_names = ("scale", "shift")
    forms = dict.fromkeys(("relu", "silu", "tanh", "sigmoid"), (1.0, 0.0))


class PReLUFamily(Family):
    implementation = Imported("leaf.peers:PReLU")
    family = "prelu"
    usual_sharing = "channel"
    parameter_names = ("slope",)
    forms = {"relu": (0.25,)}


class SwishFamily(GatedLineFamily):
    implementation = Imported("leaf.peers:Swish")
    family = "swish"
    usual_sharing = "layer"
    parameter_names = ("beta",)
    forms = {"silu": (1.0,)}


class RationalFamily(Family):
    implementation = Imported("leaf.peers:Rational")
    family = "rational"
    usual_sharing = "layer"
    parameter_names = ("a0", "a1", "a2", "a3", "b0", "b1", "b2")
    forms = {"relu": (0.0218, 0.5, 1.5957, 1.1915, 1.0, 0.0, 2.383)}


CENTRES = tuple(-4 + 8 * i / 17 for i in range(18))
"""Centres of the F-neuron's membership functions, 8/17 apart."""

_HARD_SIGMOID = tuple(min(max(centre + 3, 0), 6) / 6 for centre in CENTRES)


class FNeuronFamily(Family):
    implementation = Imported("leaf.variants:FNeuron")
    family = "fneuron"
    parameter_names = tuple(f"w{i}" for i in range(18))
    forms = {
        "tanh": tuple(map(math.tanh, CENTRES)),
        "sigmoid": tuple(1 / (1 + math.exp(-centre)) for centre in CENTRES),
        "hardtanh": _HARD_SIGMOID,
        "hardsigmoid": _HARD_SIGMOID,
    }


# --- activations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """Description of an activation in ``ACTIVATIONS``.

    Attributes:
        family: ``"base"`` for a base function, else the family of the learnable activation.
        title: name of the family in tables.
        form: name in ``ACTIVATIONS`` of the base function itself or of the initial function, with which tables compare.
        make: returns the module for inputs whose samples have the given shape.
        adaptive: whether it has parameters; the module is then an ``Adaptive``.
        slow_parameters: parameters that P24Sl trains at a lower learning rate; empty if P24Sl does not apply.
        fused: whether ``leaf.kernels`` computes it.
        start: name of the initial function in tables, if it only approximates ``form``.
        fully_connected_only: whether only activations after linear layers are learnable; those after convolutions are
            the base function ``form``.
        learns: class of the learnable module; ``None`` for a base function.
    """

    family: str
    title: str
    form: str
    make: "Callable[[Sequence[int]], nn.Module]"
    adaptive: bool = False
    slow_parameters: tuple[str, ...] = ()
    fused: bool = False
    start: str = ""
    fully_connected_only: bool = False
    learns: "type[Adaptive] | Imported | None" = None

    @property
    def layer(self) -> "type[Adaptive] | None":
        """The class ``learns``, imported."""
        return self.learns.load() if isinstance(self.learns, Imported) else self.learns

    def build(self, shape: Sequence[int]) -> "nn.Module":
        """Build the module for inputs whose samples have the given shape, ``(C, H, W)`` or ``(features,)``.

        Random numbers that the module draws do not advance torch's generator, so that the weights of a network do not
        depend on its activations.
        """
        from torch.random import fork_rng

        with fork_rng(devices=[]):
            return self.make(shape)


def fixed(name: str, function: "Callable[[], nn.Module]") -> Activation:
    """Describe a base function, such as ``fixed("mish", nn.Mish)``; ``name`` is its name in ``ACTIVATIONS``."""
    return Activation("base", "base", name, lambda shape: function())


def plain(name: str, function: "Callable[[], nn.Module]") -> Activation:
    """Former name of ``fixed``."""
    warnings.warn("plain is now fixed; rename it", DeprecationWarning, stacklevel=2)
    return fixed(name, function)


def learnable(
    family: "type[Adaptive] | type[Family]", form: str, sharing: str | None = None, start: str = ""
) -> Activation:
    """Describe a learnable activation of a family with the initial function ``form``.

    Args:
        sharing: sharing of parameters; the family's usual one if not given.
        start: see ``Activation``.
    """
    learns: Any = vars(family).get("implementation", family)  # only if the family itself states it
    name, title = family.family, learns.__name__
    sharing = sharing or family.usual_sharing
    if sharing != family.usual_sharing:
        name, title = f"{sharing}-{name}", f"{title} per {sharing}"
    make = partial(learns, form=form, sharing=sharing)
    return Activation(name, title, form, make, True, family.slow_parameters, family.fused, start, learns=learns)


def in_fully_connected_part(kind: Activation) -> Activation:
    """Restrict a learnable activation to linear layers. After convolutions, use the base function ``form``."""

    def make(shape: Sequence[int]) -> "nn.Module":
        return (kind if len(shape) == 1 else ACTIVATIONS[kind.form]).make(shape)

    return replace(kind, family=f"{kind.family}@ffn", make=make, fully_connected_only=True)


def with_frozen(kind: Activation, *names: str) -> Activation:
    """Freeze parameters of a learnable activation, by name, at their initial values."""

    def make(shape: Sequence[int]) -> "nn.Module":
        layer = kind.make(shape)
        for name in names:
            layer.get_parameter(name).requires_grad_(False)
        return layer

    return replace(
        kind,
        family=f"frozen_{'_'.join(names)}-{kind.family}",
        title=f"{kind.title} ({', '.join(names)} frozen)",
        make=make,
        slow_parameters=tuple(name for name in kind.slow_parameters if name not in names),
    )


BASE_FUNCTIONS = {
    "relu": Imported("torch.nn:ReLU"),
    "silu": Imported("torch.nn:SiLU"),
    "tanh": Imported("torch.nn:Tanh"),
    "sigmoid": Imported("torch.nn:Sigmoid"),
}
"""The paper's base functions, by name in ``ACTIVATIONS``."""


def _activations() -> dict[str, Activation]:
    known = {name: fixed(name, function) for name, function in BASE_FUNCTIONS.items()}
    per_element: tuple[type[Family], ...] = (AHAFFamily, LEAFFamily, AffineFamily)
    for families, sharing in ((per_element, "element"), (per_element[:2], "channel")):
        for family in families:
            for form in family.forms:
                kind = learnable(family, form, sharing)
                known[f"{kind.family}-{form}"] = kind
    # Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016; not its approximation by tanh
    known["gelu"] = fixed("gelu", Imported("torch.nn:GELU"))
    known["prelu"] = learnable(PReLUFamily, "relu", start="leaky ReLU")
    known["swish"] = learnable(SwishFamily, "silu")
    known["rational"] = learnable(RationalFamily, "relu", start="ReLU (nearly)")
    known["hardtanh"] = fixed("hardtanh", Imported("torch.nn:Hardtanh"))
    known["hardsigmoid"] = fixed("hardsigmoid", Imported("torch.nn:Hardsigmoid"))
    published: tuple[type[Family], ...] = (AHAFFamily, LEAFFamily, FNeuronFamily)
    for family in published:
        for form in family.forms:
            kind = in_fully_connected_part(learnable(family, form))
            known[f"{family.family}-{form}@ffn"] = replace(kind, title=kind.title.replace("FNeuron", "F-neuron"))
    for frozen in (("p2", "p4"), ("p2",)):
        kind = with_frozen(known["leaf-tanh"], *frozen)
        known[f"{kind.family}-tanh"] = kind
    return known


ACTIVATIONS: Registry[Activation] = Registry("activation", Imported("leaf.activations:check"), _activations())
"""Activations by name, such as ``relu``, ``ahaf-silu`` and ``leaf-tanh``, and controls for the number of parameters,
such as ``affine-tanh`` and ``channel-leaf-tanh``."""


# --- networks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnownNetwork:
    """A network of the package. Calling it builds the network, as calling its class does.

    Attributes:
        layers: its class.
        title, seconds_per_1000_images, megabytes_per_image, batch_norm: as in ``leaf.networks.Network``.
    """

    layers: Imported
    title: str
    seconds_per_1000_images: float
    megabytes_per_image: int = 8
    batch_norm: bool = False

    def __call__(self, image_shape: ImageShape, activation: str, classes: int = 10) -> "Network":
        return self.layers(image_shape, activation, classes)


LENET5 = KnownNetwork(Imported("leaf.networks:LeNet5"), "LeNet-5", 0.36)
KERASNET = KnownNetwork(Imported("leaf.networks:KerasNet"), "KerasNet", 1.3)
RESNET18 = KnownNetwork(Imported("leaf.resnet:ResNet18"), "ResNet-18", 40.0, 16, batch_norm=True)

NETWORKS: "Registry[type[Network] | KnownNetwork]" = Registry(
    "network", Imported("leaf.networks:check"), {"lenet5": LENET5, "kerasnet": KERASNET, "resnet18": RESNET18}
)
"""Networks by name."""
