"""Replace the activations of any torch module by learnable ones, one for each use."""

import copy
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from leaf.activations import Adaptive
from leaf.channels import tensors
from leaf.replacements import Replacement, replacement
from leaf.rewriting import activation_nodes, misread, rewrite, trace
from leaf.uses import KIND_OF_MODULE, Input, Use, Uses, evaluating, find_uses, is_learnable, join, run

SEALED: dict[type[nn.Module], str] = {
    nn.RNNBase: "its activations are inside",
    nn.RNNCellBase: "its activations are inside",
    nn.TransformerDecoderLayer: "its copies, which torch makes, apply the original activation again",
    torch.jit.ScriptModule: "it is compiled",
}
"""Modules whose activations cannot be replaced, each with the reason."""


@dataclass(frozen=True)
class Replaced:
    """An activation that was replaced.

    Attributes:
        name: name of the new module in the model.
        original: the replaced activation, such as ``ReLU`` or ``F.relu``.
        form: the initial function of an ``Adaptive``; the name of the class of any other module.
        shape: shape of one sample's input.
        parameters: number of parameters.
        error: largest difference from the original on [-15, 15]; ``None`` below 1e-5, and for any module that is not an
            ``Adaptive``.
    """

    name: str
    original: str
    form: str
    shape: tuple[int, ...]
    parameters: int
    error: float | None = None

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape))
        error = "" if self.error is None else f", off by up to {self.error:.2g}"
        return f"{self.name}: {self.original} → {self.form}, {shape}, {self.parameters:,} parameters{error}"


@dataclass(frozen=True)
class Kept:
    """An activation that was not replaced: its name, its class or function, and the reason."""

    name: str
    original: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.original}, {self.reason}"


@dataclass(frozen=True)
class Conversion:
    """Result of ``replace_activations``. ``print`` shows it as a report.

    Attributes:
        model: the given model, modified.
        family: name of the new activations, such as ``"LEAF"``.
        replaced, kept: the activations that were replaced and those that were not, in the order of their first use.
        difference: largest absolute change of the model's output on the example, in evaluation mode.
    """

    model: nn.Module
    family: str
    replaced: list[Replaced]
    kept: list[Kept]
    difference: float

    @property
    def parameters(self) -> int:
        """Number of added parameters."""
        return sum(replaced.parameters for replaced in self.replaced)

    def __str__(self) -> str:
        number = f"{len(self.replaced)} activation{'s' if len(self.replaced) != 1 else ''}"
        lines = [
            f"{number} replaced by {self.family}, {self.parameters:,} parameters added;"
            f" the output on the example changed by at most {self.difference:.1e}",
            *(f"  {replaced}" for replaced in self.replaced),
        ]
        if self.kept:
            lines += [f"{len(self.kept)} not replaced", *(f"  {kept}" for kept in self.kept)]
        return "\n".join(lines)


def replace_activations(
    model: nn.Module,
    with_: str | Callable[..., nn.Module] = "leaf",
    *,
    example_input: Any,
    sharing: str | None = None,
    channel_dim: int | None = None,
    nearest: bool = False,
) -> Conversion:
    """Replace a model's activations by learnable ones that initially compute the same functions.

    Every use of an activation gets its own module. This includes each call of a module that is called several times (as
    in the blocks of a ResNet) and of a function such as ``F.relu``. The model is modified in place; its other modules
    keep their classes, parameters and names. Use ``copy.deepcopy`` first to keep the original. A new module keeps the
    hooks of the module that it replaces. Create optimizers afterwards.

    LEAF, AHAF, Swish and the affine functions initially equal the originals up to rounding. The form of ReLU,
    u·σ(2^16 u), differs by up to 4.3e-6 near 0. The report gives the error of all others.

    Only activations that the example reaches in evaluation mode are replaced. ``torch.fx`` traces the modules that use
    an activation twice or call it as a function. Tracing fixes the attributes that their ``forward`` reads. If tracing
    fails, an activation module that is used twice is replaced by one module for all its uses, and a function is kept.

    Args:
        model: any module that is not itself an activation. Pass a submodule to convert only this part of a model.
        with_: a family of learnable activations: ``"leaf"``, ``"ahaf"``, ``"prelu"``, ``"swish"``, ``"rational"`` or
            any other whose activations are in ``leaf.ACTIVATIONS``, or a class derived from ``Adaptive``. Otherwise a
            module class, such as ``nn.PReLU``, which is called without arguments, or a function that returns a module.
            The function is called with the shape of one sample's input and the name of the replaced function, such as
            ``(64, 8, 8)`` and ``"relu"``. Such a class or function replaces every activation.
        example_input: input of the model: a tensor, a tuple of arguments, or a mapping of keyword arguments. The first
            dimension of each activation's input is the batch.
        sharing: which elements use the same parameter set: each ``"element"`` has its own (the model then accepts only
            inputs of the example's size), those of a ``"channel"`` share one, or all of the ``"layer"``. The default is
            that of the family's source: element for LEAF and AHAF, channel for PReLU, layer for Swish and the rational
            function.
        channel_dim: dimension of the channels: 1 for ``(N, C, H, W)``, -1 for ``(N, tokens, features)``. By default it
            is inferred at each activation from the preceding layers: 1 after a convolution, -1 after a linear layer.
            Activations for which it cannot be inferred are kept. Only sharing per channel uses it.
        nearest: whether to replace GELU, hard-swish and hard-sigmoid by the nearest form if the family has no form that
            equals them.

    Returns:
        A report of the replaced activations, and of the others with the reasons.

    Raises:
        TypeError: if an argument has the wrong type, or ``with_`` does not return a module.
        ValueError: if the family or the sharing is unknown, or the model does not run on the example.

    Example:
        >>> model = torchvision.models.resnet18()
        >>> print(leaf.replace_activations(model, "leaf", example_input=torch.randn(1, 3, 32, 32), sharing="channel"))
        17 activations replaced by LEAF, 15,616 parameters added; the output on the example changed by at most 1.2e-06
          relu: ReLU → relu, 64×16×16, 256 parameters
          layer1.0.relu: ReLU → relu, 64×8×8, 256 parameters
          layer1.0.relu_2: ReLU → relu, 64×8×8, 256 parameters
          …
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, not {model!r}")
    if type(model) in KIND_OF_MODULE or is_learnable(model):
        raise ValueError(f"the model is itself an activation, {type(model).__name__}; pass a module that contains it")
    wanted = replacement(with_, sharing, channel_dim, nearest)
    _separate(model)
    with evaluating(model):
        found = find_uses(model, example_input)
        sites, kept = _plan(model, found, example_input, wanted)
    replaced = _install(model, sites, wanted)
    with evaluating(model):
        difference, size = _difference(found.output, run(model, example_input))
    faithful = wanted.faithful and all(one.error is None for one in replaced)
    if faithful and not difference <= 1e-3 + 0.01 * size:
        warnings.warn(
            f"the output on the example changed by {difference:.2g}: either the model is random in evaluation mode, or"
            " it relies on an activation that modifies its input in place",
            stacklevel=2,
        )
    return Conversion(model, wanted.title, replaced, kept, difference)


def _separate(model: nn.Module) -> None:
    """Copy each activation module that is registered under several names, so that each name has its own module."""
    seen = set()
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None and type(child) in KIND_OF_MODULE and not list(child.parameters()):
                if child in seen:
                    setattr(parent, name, copy.deepcopy(child))
                seen.add(child)


@dataclass(frozen=True)
class _Site:
    """Location of a new activation.

    It replaces the module or function with the given name, or, if the name is ``None``, one use in the ``forward`` of
    the caller.
    """

    use: Use
    inputs: list[Input]
    name: str | None


def _plan(model: nn.Module, found: Uses, example: Any, wanted: Replacement) -> tuple[list[_Site], list[Kept]]:
    """Decide which uses to replace and which to keep. The model is not changed."""
    groups: dict[Any, list[Use]] = {}  # all uses of one module, or a single call of a function such as F.relu
    for use in found.uses:
        if not isinstance(model.get_submodule(use.caller), tuple(SEALED)):
            groups.setdefault(use.name or (use.caller, use.place), []).append(use)
    kept, formed = _out_of_reach(model, found), []
    for uses in groups.values():
        try:
            wanted.check(uses[0].kind)
        except ValueError as error:
            kept.append(_kept(uses[0], str(error)))
        else:
            formed.append(uses)
    faults = _faults(model, found, example, [use for uses in formed for use in _in_forward(uses)])
    sites: list[_Site] = []
    for uses in formed:
        first, in_forward = uses[0], _in_forward(uses)
        faulty = list(dict.fromkeys(faults[use.caller] for use in in_forward if use.caller in faults))
        if not faulty:
            new = [_Site(use, use.inputs, None if use in in_forward else use.name) for use in uses]
        elif first.name is not None:  # one new module for all its uses
            new = [_Site(first, [given for use in uses for given in use.inputs], first.name)]
        else:
            kept.append(_kept(first, faulty[0]))
            continue
        try:
            for site in new:
                wanted.check_inputs(site.inputs)
        except ValueError as error:
            kept.append(_kept(first, "; ".join([str(error), *faulty])))
        else:
            sites += new
    return sites, kept


def _in_forward(uses: list[Use]) -> list[Use]:
    """The uses of a group that get modules of their own only if the caller's ``forward`` is rewritten."""
    return uses if uses[0].name is None else uses[1:]


def _kept(use: Use, reason: str) -> Kept:
    return Kept(use.name or join(use.caller, use.kind), use.original, reason)


def _out_of_reach(model: nn.Module, found: Uses) -> list[Kept]:
    """List the modules in ``SEALED``, and the activations that the example does not reach."""
    reached = {use.name for use in found.uses}
    kept: list[Kept] = []
    for name, module in model.named_modules():
        reasons = [reason for kind, reason in SEALED.items() if isinstance(module, kind)]
        if type(module) in KIND_OF_MODULE and name not in reached:
            reasons.append("the example does not reach it in evaluation")
        if reasons and not any(name.startswith(f"{other.name}.") for other in kept):
            kept.append(Kept(name, type(module).__name__, reasons[0]))
    return kept


def _faults(model: nn.Module, found: Uses, example: Any, uses: list[Use]) -> dict[str, str]:
    """Return the callers whose ``forward`` cannot be rewritten, with the reasons."""
    faults: dict[str, str] = {}
    graphs: dict[str, fx.Graph] = {}
    for caller in dict.fromkeys(use.caller for use in uses):
        try:
            graphs[caller] = _graph(model.get_submodule(caller), caller, found)
        except ValueError as error:
            faults[caller] = str(error)
    wrong = misread(model, example, {model.get_submodule(caller): graph for caller, graph in graphs.items()})
    for caller in graphs:
        if model.get_submodule(caller) in wrong:
            faults[caller] = "its forward computes something else when traced"
    return faults


def _graph(module: nn.Module, name: str, found: Uses) -> fx.Graph:
    """Trace a module's ``forward`` in evaluation mode, and check the graph against the observed uses.

    Raises:
        ValueError: if ``forward`` cannot be traced, or applies other activations in training mode.
    """
    for training in (True, False):
        graph = trace(module, training)
        kinds = [kind for kind, _ in activation_nodes(module, graph)]
        seen = [use for use in found.uses if use.caller == name]
        if len(kinds) != found.applied[name] or any(kinds[use.place] != use.kind for use in seen):
            raise ValueError("its forward does not always apply the same activations")
    return graph


def _install(model: nn.Module, sites: list[_Site], wanted: Replacement) -> list[Replaced]:
    """Build the activations and insert them into the model."""
    replaced = []
    calls: dict[str, dict[int, str]] = {}
    layers = [_build(model, site, wanted) for site in sites]  # before any change of the model, since one may fail
    errors = [wanted.error(site.use.kind, site.use.function) for site in sites]
    for site, layer, error in zip(sites, layers, errors, strict=True):
        use = site.use
        if site.name is None:
            place, name = use.caller, _new_name(model.get_submodule(use.caller), use)
            calls.setdefault(place, {})[use.place] = name
        else:
            place, _, name = site.name.rpartition(".")
        parent = model.get_submodule(place)
        setattr(parent, name, layer.train(parent.training))
        size = sum(parameter.numel() for parameter in layer.parameters())
        form = layer.form if isinstance(layer, Adaptive) else type(layer).__name__
        replaced.append(Replaced(join(place, name), use.original, form, site.inputs[0].shape, size, error))
    for caller, its_calls in calls.items():
        rewrite(model.get_submodule(caller), its_calls)
    _turn_fused_evaluation_off(model)
    return replaced


def _build(model: nn.Module, site: _Site, wanted: Replacement) -> nn.Module:
    layer = wanted.build(site.use.kind, site.inputs[0])
    if site.use.name is not None:
        place, _, name = site.use.name.rpartition(".")
        original = getattr(model.get_submodule(place), name)
        if isinstance(original, nn.Module):
            _take_hooks(layer, original, in_its_place=site.name is not None)
    return layer


def _take_hooks(layer: nn.Module, original: nn.Module, in_its_place: bool) -> None:
    """Give a new module the hooks of the original.

    With ``in_its_place`` both have the same dictionaries of hooks, so that a hook's handle removes it from the new one.
    """
    for name, held in vars(original).items():
        if "hook" in name and "state_dict" not in name and held and not vars(layer).get(name):
            vars(layer)[name] = held if in_its_place else copy.copy(held)


def _turn_fused_evaluation_off(model: nn.Module) -> None:
    """Disable the fast path of torch's encoder, which bypasses the new modules in evaluation mode."""
    for module in model.modules():
        layers = [layer for layer in module.modules() if isinstance(layer, nn.TransformerEncoderLayer)]
        if any(isinstance(layer.activation, Adaptive) for layer in layers):
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
            elif isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0


def _new_name(module: nn.Module, use: Use) -> str:
    """Find the first unused name for a new submodule: ``relu``, ``relu_2``, …"""
    base = (use.name or use.kind).rpartition(".")[2]
    names = (base if number == 1 else f"{base}_{number}" for number in itertools.count(1))
    return next(name for name in names if not hasattr(module, name))


def _difference(before: Any, after: Any) -> tuple[float, float]:
    """Compare two outputs of a model.

    Returns:
        The largest absolute difference, infinite if the tensors differ in number or shape; and the largest magnitude in
        ``before``.
    """
    pairs = list(itertools.zip_longest(tensors(before), tensors(after)))
    if any(a is None or b is None or a.shape != b.shape for a, b in pairs):
        return math.inf, 0.0
    values = [(a.double(), b.double()) for a, b in pairs if a.numel()]
    difference = max(((b - a).abs().max().item() for a, b in values), default=0.0)
    return difference, max((a.abs().max().item() for a, _ in values), default=0.0)
