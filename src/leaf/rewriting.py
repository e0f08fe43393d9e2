"""Rewrite a module's ``forward`` to call submodules in place of the activations in its code.

``torch.fx`` traces the module's own ``forward`` but not those of its submodules. The module remains the same object.
Its class becomes a subclass that only overrides ``forward``.
"""

import copy
import functools
import random
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from leaf.channels import parts
from leaf.uses import KIND_OF_FUNCTION, KIND_OF_MODULE, is_learnable, run


class _Tracer(fx.Tracer):
    """Tracer of one module's own ``forward``: submodules are leaf calls, and buffers are attribute look-ups."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            raise ValueError("it turns gradients or autocast on or off")
        return super().create_node(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:
        with torch.enable_grad():
            self.modes = _modes()
            return super().trace(*args, **kwargs)


def _modes() -> tuple[bool, ...]:
    """Return the modes that blocks such as ``torch.no_grad()`` set. A graph does not record them."""
    autocast = (torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast


def _generator_states() -> tuple[Any, ...]:
    """Return the states of the random number generators whose use the tracer does not notice."""
    return random.getstate(), torch.get_rng_state(), np.random.get_state()


def _drawn_since(states: tuple[Any, ...]) -> bool:
    """Reset the generators to earlier states; return whether they had been used since."""
    python, of_torch, numpy = states
    drawn = python != random.getstate() or not torch.equal(of_torch, torch.get_rng_state())
    drawn |= any(not np.array_equal(*pair) for pair in zip(numpy, np.random.get_state(), strict=True))
    random.setstate(python)
    torch.set_rng_state(of_torch)
    np.random.set_state(numpy)
    return drawn


def trace(module: nn.Module, training: bool) -> fx.Graph:
    """Trace a module's ``forward`` in training or evaluation mode.

    Raises:
        ValueError: if ``forward`` cannot be traced; the message is the reason.
    """
    if isinstance(module, fx.GraphModule):
        return copy.deepcopy(module.graph)
    if "forward" in vars(module):
        raise ValueError("its forward is an attribute of the module, not a method of its class")
    own_class, attributes = type(module), vars(module).copy()
    states = _generator_states()
    calls: dict[int, str] = attributes.get("_calls", {})
    during = attributes | {
        "training": training,
        # A forward that iterates over its children must not find the inserted activations.
        "_modules": {name: child for name, child in module._modules.items() if name not in calls.values()},
    }
    try:
        module.__class__ = _written_class(module)
        vars(module).update(during)
        graph = _Tracer().trace(module)
        arguments = signature(type(module).forward).parameters.values()
        optional = [argument.name for argument in arguments if argument.default is None]
        asked = [name for name in optional if _depends_on(name, graph, module)]
        kept = [name for name, value in vars(module).items() if value is not during.get(name, ...)]
    except Exception as error:
        raise ValueError(f"its forward cannot be traced: {str(error).splitlines()[0]}") from error
    finally:
        vars(module).clear()
        vars(module).update(attributes)
        module.__class__ = own_class
    if asked:
        raise ValueError(f"its forward depends on whether {', '.join(asked)} is given")
    if kept:
        raise ValueError("its forward makes or keeps tensors that do not come from its input")
    if _drawn_since(states):
        raise ValueError("its forward draws random numbers")
    _redirect(module, graph, calls)
    return graph


def _depends_on(name: str, graph: fx.Graph, module: nn.Module) -> bool:
    """Check whether a ``forward`` has another graph if an optional argument is ``None``."""
    without = _Tracer().trace(module, concrete_args={name: None})
    return _steps(without, name) != _steps(graph, name)


def _steps(graph: fx.Graph, absent: str) -> list[tuple[Any, ...]]:
    """List the operations of a graph as comparable values, with ``None`` in place of the argument ``absent``."""

    def described(argument: Any) -> str:
        return repr(fx.map_arg(argument, lambda node: None if node.target == absent else node.name))

    steps = [node for node in graph.nodes if node.op != "placeholder" and "_assert_is_none" not in node.name]
    return [(node.op, node.target, described(node.args), described(node.kwargs)) for node in steps]


def _redirect(module: nn.Module, graph: fx.Graph, calls: Mapping[int, str]) -> None:
    nodes = activation_nodes(module, graph)
    for place, name in calls.items():
        _, node = nodes[place]
        (u, *_) = (*node.args, *node.kwargs.values())
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_module(name, (u,)))
        graph.erase_node(node)


def activation_nodes(module: nn.Module, graph: fx.Graph) -> list[tuple[str, fx.Node]]:
    """List the activations in a graph, in order: name in ``KINDS`` (``""`` for a learnable one) and node."""
    found: list[tuple[str, fx.Node]] = []
    for node in graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            child = module.get_submodule(target)
            if type(child) in KIND_OF_MODULE or is_learnable(child):
                found.append((KIND_OF_MODULE.get(type(child), ""), node))
        elif node.op in ("call_function", "call_method"):
            function = getattr(Tensor, target, None) if node.op == "call_method" else node.target
            if function in KIND_OF_FUNCTION:
                found.append((KIND_OF_FUNCTION[function][0], node))
    return found


def compiled(module: nn.Module, graph: fx.Graph) -> Callable[..., Any]:
    """Compile a graph to a function of the module and the arguments of its ``forward``."""
    return type(fx.GraphModule(module, graph)).forward


def misread(model: nn.Module, example: Any, graphs: Mapping[nn.Module, fx.Graph]) -> set[nn.Module]:
    """Run a model on an example; return the modules whose graph and ``forward`` have different outputs.

    The tracer follows one path through a ``forward``. Real tensors may follow another one.
    """
    expected: list[Any] = []
    wrong: set[nn.Module] = set()
    busy = False  # a graph is running: the modules that it calls are not compared

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            args, kwargs = copy.deepcopy((args, kwargs))
            expected.append(compiled(module, graphs[module])(module, *args, **kwargs))
        except Exception as error:
            expected.append(error)
        finally:
            busy = False

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not busy and not _alike(expected.pop(), output):
            wrong.add(module)

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in graphs]
    handles += [module.register_forward_hook(after, prepend=True) for module in graphs]
    try:
        run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return wrong


def _alike(found: Any, expected: Any) -> bool:
    """Check whether two outputs are equal up to rounding."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, Tensor):
        same_kind = found.shape == expected.shape and found.dtype == expected.dtype
        return same_kind and torch.allclose(found, expected, equal_nan=True)
    if isinstance(expected, Mapping) and list(found) != list(expected):
        return False
    held = parts(expected)
    if held is not None:
        held_by_found = parts(found) or []
        return len(held_by_found) == len(held) and all(map(_alike, held_by_found, held))
    return bool(found == expected)


def rewrite(module: nn.Module, calls: Mapping[int, str]) -> None:
    """Make a module's ``forward`` call submodules in place of activations.

    Args:
        calls: names of the submodules to call, by the place of the activation, as in ``Use``.

    Raises:
        ValueError: if ``forward`` cannot be traced.
    """
    if isinstance(module, fx.GraphModule):
        _redirect(module, module.graph, calls)
        module.recompile()
        return
    vars(module)["_calls"] = {**getattr(module, "_calls", {}), **calls}
    vars(module)["_forwards"] = {training: compiled(module, trace(module, training)) for training in (True, False)}
    module.__class__ = _rewritten(_written_class(module))


def _written_class(module: nn.Module) -> Any:
    """Return the class of a module, or the original one if its ``forward`` has been rewritten."""
    return vars(type(module)).get("written", type(module))


@functools.cache
def _rewritten(original: Any) -> Any:
    """Make a subclass whose instances have two compiled forwards, for training and for evaluation."""

    class Rewritten(original):  # type: ignore[misc]
        written = original

        @functools.wraps(original.forward)
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self._forwards[self.training](self, *args, **kwargs)

        def __reduce_ex__(self, protocol: Any) -> Any:
            # Pickles and copies contain only ``_calls``, from which the forwards are compiled again.
            kept: Any = self.__getstate__()
            state = {name: value for name, value in kept.items() if name != "_forwards"}
            return _blank, (original,), state

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__(state)
            rewrite(self, self._calls)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Rewritten, name, getattr(original, name))
    return Rewritten


def _blank(original: Any) -> Any:
    rewritten = _rewritten(original)
    return rewritten.__new__(rewritten)
