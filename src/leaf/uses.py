"""Run a model to find where it uses activation functions."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from leaf.activations import BASE_FUNCTIONS, Adaptive
from leaf.channels import Channels

KINDS: dict[str, type[nn.Module]] = BASE_FUNCTIONS | {
    "celu": nn.CELU, "elu": nn.ELU, "gelu": nn.GELU, "glu": nn.GLU, "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish, "hardtanh": nn.Hardtanh, "leaky_relu": nn.LeakyReLU,
    "logsigmoid": nn.LogSigmoid, "mish": nn.Mish, "prelu": nn.PReLU, "relu6": nn.ReLU6, "rrelu": nn.RReLU,
    "selu": nn.SELU, "softplus": nn.Softplus, "softshrink": nn.Softshrink, "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink, "threshold": nn.Threshold,
}  # fmt: skip
"""The modules of torch's activation functions, by function name."""

KIND_OF_MODULE = {module: kind for kind, module in KINDS.items()}
"""Function names by exact type. A subclass may compute something else; its ``forward`` is examined instead."""

KIND_OF_FUNCTION: dict[Callable[..., Any], tuple[str, str]] = {
    getattr(place, name): (kind, f"{title}.{name}")
    for place, title in ((Tensor, "Tensor"), (torch, "torch"), (functional, "F"))
    for kind in KINDS
    for name in (kind, f"{kind}_")
    if hasattr(place, name)
}
"""The name in ``KINDS`` of each function, and its name in code, such as ``F.relu``."""

MARK = "_replaces"
"""Attribute of a module that replaced an activation and is not an ``Adaptive``."""


def is_learnable(module: nn.Module) -> bool:
    """Check whether a module is a learnable activation or has replaced an activation."""
    return isinstance(module, Adaptive) or MARK in vars(module)


class Input(NamedTuple):
    """Input of an activation.

    Attributes:
        shape: shape of one sample, without the batch.
        dtype, device: those of the tensor.
        channel_dim: dimension of the channels, 1 or -1; ``None`` if it cannot be inferred.
        channels_last: whether the tensor is in channels-last memory format.
        parameter: whether it is a parameter of the model.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channel_dim: int | None = None
    channels_last: bool = False
    parameter: bool = False


@dataclass
class Use:
    """A use of an activation in a module's ``forward``.

    Attributes:
        kind: a name in ``KINDS``.
        caller: name of the module whose ``forward`` applies it.
        place: index among the activations that one call of ``forward`` applies, from 0.
        name: name of the activation module, or of the attribute that holds the function; ``None`` if the code calls the
            function directly.
        original: name in code, such as ``ReLU`` or ``F.relu``.
        function: the activation as a function of its input alone.
        inputs: the inputs, one for each call.
    """

    kind: str
    caller: str
    place: int
    name: str | None
    original: str
    function: Callable[[Tensor], Tensor]
    inputs: list[Input] = field(default_factory=list)


@dataclass
class Uses:
    """Observations from one run of a model.

    Attributes:
        uses: the uses, in the order of their first calls.
        applied: number of activations, including learnable ones, that one call of a module's ``forward`` applies, by
            the module's name; -1 if calls differ.
        output: the model's output.
    """

    uses: list[Use]
    applied: dict[str, int]
    output: Any


def run(model: nn.Module, example: Any) -> Any:
    """Run a model on an example: a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode without gradients, and restore the modes afterwards.

    Only the ``training`` flags are set, since a model may override ``train`` and ``eval`` to do more. Torch's fused
    encoder layer is disabled, since its activation cannot be observed. Learnable activations use the reference kernel,
    so that no kernel is compiled.
    """
    training = {module: module.training for module in model.modules()}
    compiled = [module for module in training if isinstance(module, Adaptive) and not module.reference]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for module in training:
            module.training = False
        for module in compiled:
            module.reference = True
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, flag in training.items():
            module.training = flag
        for module in compiled:
            module.reference = False


def find_uses(model: nn.Module, example: Any) -> Uses:
    """Run a model on an example and record every use of an activation.

    Raises:
        ValueError: if the model does not run on the example.
    """
    watch = _Watch(model)
    with ExitStack() as stack:
        for module in watch.names:
            if isinstance(module, torch.jit.ScriptModule):  # it does not support hooks
                continue
            for handle in (
                module.register_forward_pre_hook(watch.enter, prepend=True, with_kwargs=True),
                module.register_forward_hook(watch.leave, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.callback(vars(module).update, watch.mark(module))
        stack.enter_context(watch)
        try:
            output = run(model, example)
        except Exception as error:
            raise ValueError(f"the model does not run on example_input: {type(error).__name__}: {error}") from error
    return Uses(list(watch.uses.values()), watch.applied, output)


class _Watch(TorchFunctionMode):
    """Observes modules by forward hooks, and functions by ``__torch_function__``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.calls: list[tuple[nn.Module, int]] = []  # running modules, each with its number of activations so far
        self.uses: dict[tuple[str, int, str, str | None], Use] = {}
        self.applied: dict[str, int] = {}
        self.channels = Channels()
        self.held: str | None = None  # attribute whose function is running

    def mark(self, module: nn.Module) -> dict[str, Any]:
        """Wrap the activation functions in a module's attributes, and return the originals.

        Calls of the attribute can then be distinguished from direct calls of the function.
        """
        held = {name: value for name, value in vars(module).items() if _is_activation(value)}
        for name, function in held.items():
            vars(module)[name] = partial(self.call_held, join(self.names[module], name), function)
        return held

    def call_held(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.held = name
        try:
            return function(*args, **kwargs)
        finally:
            self.held = None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if type(module) in KIND_OF_MODULE:
            (u, *_) = (*args, *kwargs.values())
            self.note(KIND_OF_MODULE[type(module)], self.names[module], type(module).__name__, module.forward, u)
        elif is_learnable(module):
            self.next_place()
        self.calls.append((module, 0))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name, applied = self.names[module], self.calls.pop()[1]
        if self.applied.setdefault(name, applied) != applied:
            self.applied[name] = -1
        if isinstance(module, Adaptive):  # its kernels are not torch functions
            self.channels.keep(args, output)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        caller = self.calls[-1][0]
        if func in KIND_OF_FUNCTION and type(caller) not in KIND_OF_MODULE and not isinstance(caller, Adaptive):
            kind, title = KIND_OF_FUNCTION[func]
            (u, *rest), options = (args, kwargs) if args else ((kwargs["input"],), kwargs)
            options = {option: value for option, value in options.items() if option != "input"}
            self.note(kind, self.held, title, lambda u: func(u, *rest, **options), u)
        return self.channels.call(func, args, kwargs)

    def next_place(self) -> tuple[str, int]:
        caller, place = self.calls.pop()
        self.calls.append((caller, place + 1))
        return self.names[caller], place

    def note(self, kind: str, name: str | None, original: str, function: Callable[[Tensor], Tensor], u: Tensor) -> None:
        caller, place = self.next_place()
        use = self.uses.setdefault((caller, place, kind, name), Use(kind, caller, place, name, original, function))
        channels_last = u.ndim == 4 and not u.is_contiguous() and u.is_contiguous(memory_format=torch.channels_last)
        use.inputs.append(
            Input(
                tuple(u.shape[1:]), u.dtype, u.device, self.channels.of(u), channels_last, isinstance(u, nn.Parameter)
            )
        )


def _is_activation(value: Any) -> bool:
    return callable(value) and isinstance(value, Hashable) and value in KIND_OF_FUNCTION


def join(module: str, name: str) -> str:
    """Join the name of a module and that of its submodule or attribute."""
    return f"{module}.{name}" if module else name
