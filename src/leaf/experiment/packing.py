"""An optimizer for packed parameters, whose step needs as many kernels for a group as for a single parameter.

Otherwise a capturable step of Adam has 19 kernels per parameter, which are most kernels of a training step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

ALIGNMENT = 128
"""Alignment of parameters in float32 numbers: 512 bytes, as in memory that torch allocates on a GPU. cuDNN selects
algorithms by alignment."""


class PackedOptimizer(torch.optim.Optimizer):
    """An elementwise optimizer, such as Adam, with one tensor per group.

    Parameters that require a gradient are moved into this tensor, and must have a gradient at every step. Values,
    groups and ``state_dict`` are bitwise equal to those of the same optimizer for separate parameters.

    Args:
        groups: groups of float32 parameters that are dense in memory; each has parameters that require a gradient.
        build: returns the optimizer for groups.
    """

    def __init__(
        self, groups: list[dict[str, Any]], build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    ) -> None:
        super().__init__(groups, {})
        self.packs = [Pack([p for p in group["params"] if p.requires_grad]) for group in self.param_groups]
        packed = [{**group, "params": [pack.values]} for group, pack in zip(self.param_groups, self.packs, strict=True)]
        self.inner = build(packed)
        for group in self.param_groups:
            group.update({**self.inner.defaults, **group})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, pack, packed in zip(self.param_groups, self.packs, self.inner.param_groups, strict=True):
            pack.gather()
            packed.update({**group, "params": packed["params"]})
        self.inner.step()
        if not self.state:
            self._share_state()

    def _share_state(self) -> None:
        """Make the state of each parameter a view of the packed one."""
        for pack in self.packs:
            for key, packed in self.inner.state[pack.values].items():
                for parameter, part in zip(pack.parameters, pack.parts(packed), strict=True):
                    self.state[parameter][key] = part

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        # one step counter per parameter, as in the state of an optimizer for separate parameters
        state["state"] = {
            index: {key: part if part.dim() else part.clone() for key, part in parts.items()}
            for index, parts in state["state"].items()
        }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.inner.state.clear()
        if not self.state:
            return
        for pack in self.packs:
            for key, value in self.state[pack.parameters[0]].items():
                packed = torch.zeros_like(pack.values) if value.dim() else torch.zeros_like(value)
                for parameter, part in zip(pack.parameters, pack.parts(packed), strict=True):
                    part.copy_(self.state[parameter][key])
                self.inner.state[pack.values][key] = packed
        self._share_state()


class Pack:
    """Parameters that are moved into one tensor, ``values``, with the tensor of their gradients."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        sizes = [-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in parameters]
        self.starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self.values = nn.Parameter(parameters[0].new_zeros(sum(sizes)))
        self.values.grad = torch.zeros_like(self.values)
        self._gradients = [flat(part) for part in self.parts(self.values.grad)]
        for parameter, part in zip(parameters, self.parts(self.values.detach()), strict=True):
            parameter.data = part.copy_(parameter.detach())

    def parts(self, packed: Tensor) -> Iterator[Tensor]:
        """Yield the view of each parameter in a tensor like ``values``. A scalar is shared by all parameters."""
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            yield packed.as_strided(parameter.shape, parameter.stride(), start) if packed.dim() else packed

    def gather(self) -> None:
        """Copy the parameters' gradients, which have the strides of the parameters, to the gradient of ``values``."""
        torch._foreach_copy_(self._gradients, [flat(parameter.grad) for parameter in self.parameters])


def flat(tensor: Any) -> Tensor:
    """Return a view of a dense tensor's elements in memory order, ``(elements,)``."""
    view: Tensor = tensor.as_strided((tensor.numel(),), (1,))
    return view
