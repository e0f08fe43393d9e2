"""Replace the activations of any torch module by learnable ones, one at each place where one is applied."""

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from leaf.activations import Adaptive
from leaf.channels import parts
from leaf.replacements import Replacement, replacement
from leaf.rewriting import activation_nodes, misread, rewrite, trace
from leaf.uses import KIND_OF_MODULE, Input, Use, Uses, evaluating, find_uses, join, run, stands_in

SEALED: dict[type[nn.Module], str] = {
    nn.RNNBase: "its activations are inside",
    nn.RNNCellBase: "its activations are inside",
    nn.TransformerDecoderLayer: "torch gives copies of it the original activation back",
    torch.jit.ScriptModule: "it is compiled",
}
"""Modules whose activations cannot be replaced, and why."""


@dataclass(frozen=True)
class Replaced:
    """An activation that was replaced.

    Attributes:
        name: of the new module in the model.
        original: what it replaces, such as ``ReLU`` or ``F.relu``.
        form: the function it starts as; the module's class if it is not an ``Adaptive``.
        shape: of one sample's input.
        parameters: how many it has.
        error: where the module does not start exactly as the original: the largest difference on [-15, 15].
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
    """An activation that stays as it was: its name, what it is, and why."""

    name: str
    original: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.original}, {self.reason}"


@dataclass(frozen=True)
class Conversion:
    """What ``replace_activations`` did; printed, it is a report.

    Attributes:
        model: the model that was given, changed.
        family: what replaced them, such as ``"LEAF"``.
        replaced, kept: what became of each activation, in the order in which the example meets them.
        difference: by how much the model's output on the example changed at most, in evaluation.
    """

    model: nn.Module
    family: str
    replaced: list[Replaced]
    kept: list[Kept]
    difference: float

    @property
    def parameters(self) -> int:
        """How many parameters were added."""
        return sum(replaced.parameters for replaced in self.replaced)

    def __str__(self) -> str:
        lines = [
            f"{len(self.replaced)} activations replaced by {self.family}, {self.parameters:,} parameters added;"
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
    """Replace a model's activations by learnable ones that start as what they replace.

    Each place where an activation is applied gets one of its own, also where one module is used at several, as in the
    blocks of a ResNet, or a function such as ``F.relu`` is called. The model is changed in place: its other modules,
    their classes, parameters and names stay (``copy.deepcopy`` it first to keep the original). A new module takes over
    the hooks of the module that it replaces. Make optimizers afterwards.

    LEAF, AHAF, Swish and the affine functions start exactly as what they replace but for rounding, and ReLU's form,
    u·σ(2^16 u), is off by up to 4.3e-6 next to 0. The report gives the error of any other start.

    What the example reaches in evaluation is replaced. A model's own code is followed by torch's tracer only in modules
    that use an activation twice or call it as a function, and what it reads there from attributes is fixed then; if it
    cannot be followed, a module that is used twice gets one activation for all its uses, and a function stays.

    Args:
        model: any module that is not itself an activation. Give a part of a model to convert that part alone.
        with_: a family of learnable activations: ``"leaf"``, ``"ahaf"``, ``"prelu"``, ``"swish"``, ``"rational"`` or
            any other whose activations are in ``leaf.ACTIVATIONS``, or a class derived from ``Adaptive``. Also another
            module class, such as ``nn.PReLU``, which is called without arguments, or a function that makes a module
            from the shape of one sample's input and the name of the replaced function, such as ``(64, 8, 8)`` and
            ``"relu"``. These two replace every activation, whatever it computes.
        example_input: what the model is called with: a tensor, a tuple of arguments, or a mapping of named ones. The
            first axis of what activations see counts as the batch.
        sharing: what owns a set of parameters: every ``"element"`` (the model then takes inputs of the example's
            size only), every ``"channel"``, or the whole ``"layer"``. By default as the family's source does: an
            element for LEAF and AHAF, a channel for PReLU, a layer for Swish and the rational function.
        channel_dim: dimension that holds the channels: 1 for ``(N, C, H, W)``, -1 for ``(N, tokens, features)``. By
            default it follows, at each activation, from the layers before it: 1 after a convolution, -1 after a linear
            layer. Activations for which it cannot be inferred are kept. Only sharing per channel uses it.
        nearest: whether to replace GELU, hard-swish and hard-sigmoid too, where the family cannot start as them, by the
            form that comes nearest.

    Returns:
        What was replaced and what was not, and why.

    Raises:
        TypeError: if an argument is of another type, or ``with_`` makes something else than a module.
        ValueError: if there is no such family or sharing, or the model does not run on the example.

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
        raise TypeError(f"model is a torch module, not {model!r}")
    if type(model) in KIND_OF_MODULE or stands_in(model):
        raise ValueError(f"the model is itself an activation, {type(model).__name__}: it has no place to replace it in")
    wanted = replacement(with_, sharing, channel_dim, nearest)
    _separate(model)
    with evaluating(model):
        found = find_uses(model, example_input)
        sites, kept = _plan(model, found, example_input, wanted)
    replaced = _install(model, sites, wanted)
    with evaluating(model), _plainly(model):
        difference, size = _difference(found.output, run(model, example_input))
    faithful = wanted.faithful and all(one.error is None for one in replaced)
    if faithful and not difference <= 1e-3 + 0.01 * size:
        warnings.warn(
            f"the output on the example changed by {difference:.2g}: either the model is random in evaluation, or"
            " it counts on an activation changing its input in place",
            stacklevel=2,
        )
    return Conversion(model, wanted.title, replaced, kept, difference)


def _separate(model: nn.Module) -> None:
    """Make of one activation module under several names as many modules."""
    seen = set()
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None and type(child) in KIND_OF_MODULE and not list(child.parameters()):
                if child in seen:
                    setattr(parent, name, copy.deepcopy(child))
                seen.add(child)


@dataclass(frozen=True)
class _Site:
    """Where one activation goes: in place of the module or function of that name, or of a use of it in a forward."""

    use: Use
    inputs: list[Input]
    name: str | None


def _plan(model: nn.Module, found: Uses, example: Any, wanted: Replacement) -> tuple[list[_Site], list[Kept]]:
    """What to put where, and what to leave; nothing is changed yet."""
    groups: dict[Any, list[Use]] = {}  # all uses of one module, or a single one of a function that the code names
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
        elif first.name is not None:  # one for all of its uses
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
    """Those of a group's uses to which only a change of the caller's forward can give an activation of their own."""
    return uses if uses[0].name is None else uses[1:]


def _kept(use: Use, reason: str) -> Kept:
    return Kept(use.name or join(use.caller, use.kind), use.original, reason)


def _out_of_reach(model: nn.Module, found: Uses) -> list[Kept]:
    """The modules whose activations cannot be replaced, and the activations that the example doesn't reach."""
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
    """Which callers' forwards cannot be changed, and why."""
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
    """What a module's forward does in evaluation, held against what was seen of it.

    Raises:
        ValueError: if it cannot be told, or if training applies other activations.
    """
    for training in (True, False):
        graph = trace(module, training)
        kinds = [kind for kind, _ in activation_nodes(module, graph)]
        seen = [use for use in found.uses if use.caller == name]
        if len(kinds) != found.applied[name] or any(kinds[use.place] != use.kind for use in seen):
            raise ValueError("its forward does not always apply the same activations")
    return graph


def _install(model: nn.Module, sites: list[_Site], wanted: Replacement) -> list[Replaced]:
    """Build the activations and put them where they belong."""
    replaced = []
    calls: dict[str, dict[int, str]] = {}
    layers = [_build(model, site, wanted) for site in sites]  # nothing is changed yet if one fails
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
    """Give a new module the hooks of what it replaces; one that comes in its place obeys their handles too."""
    for name, held in vars(original).items():
        if "hook" in name and "state_dict" not in name and held and not vars(layer).get(name):
            vars(layer)[name] = held if in_its_place else copy.copy(held)


def _turn_fused_evaluation_off(model: nn.Module) -> None:
    """Torch's encoder has a path for evaluation that computes ReLU and GELU itself, whatever its layers hold."""
    for module in model.modules():
        layers = [layer for layer in module.modules() if isinstance(layer, nn.TransformerEncoderLayer)]
        if any(isinstance(layer.activation, Adaptive) for layer in layers):
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
            elif isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0


def _new_name(module: nn.Module, use: Use) -> str:
    """A name for a new submodule: ``relu``, or ``relu_2`` where there is one, …"""
    base = (use.name or use.kind).rpartition(".")[2]
    names = (base if number == 1 else f"{base}_{number}" for number in itertools.count(1))
    return next(name for name in names if not hasattr(module, name))


@contextmanager
def _plainly(model: nn.Module) -> Iterator[None]:
    """The activations compute as the reference does, so that no kernel need be compiled."""
    layers = [layer for layer in model.modules() if isinstance(layer, Adaptive) and not layer.plain]
    for layer in layers:
        layer.plain = True
    try:
        yield
    finally:
        for layer in layers:
            layer.plain = False


def _difference(before: Any, after: Any) -> tuple[float, float]:
    """The largest difference between two outputs' tensors, infinite if shapes differ; the first's largest number."""
    if isinstance(before, Tensor):
        if before.shape != after.shape:
            return math.inf, 0.0
        if not before.numel():
            return 0.0, 0.0
        return (after.double() - before.double()).abs().max().item(), before.double().abs().max().item()
    before, after = parts(before) or [], parts(after) or []
    if len(before) != len(after):
        return math.inf, 0.0
    pairs = [_difference(*pair) for pair in zip(before, after, strict=True)]
    return max((pair[0] for pair in pairs), default=0.0), max((pair[1] for pair in pairs), default=0.0)
