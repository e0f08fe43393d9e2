"""Registries of objects by name, which are checked when they are registered."""

import re
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from leaf.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(@[a-z]+)?")
"""Pattern of a name. Names become parts of paths."""

Thing = TypeVar("Thing")


class Registry(UserDict[str, Thing]):
    """Objects by name, in the order of their registration.

    Args:
        kind: word for the objects in error messages.
        check: function of a name and an object that raises ``UserError`` if the object is invalid. It is called before
            each registration.
        known: initial contents. They are checked by tests only, since a check may import torch.
    """

    def __init__(self, kind: str, check: Callable[[str, Any], None], known: Mapping[str, Thing] | None = None) -> None:
        super().__init__()
        self.kind, self.check = kind, check
        self.data = dict(known or {})

    def register(self, name: str, thing: Thing) -> None:
        """Register an object under a name. ``registry[name] = thing`` and ``registry.update(…)`` do the same.

        Raises:
            UserError: if the name is malformed or belongs to another object, or if the check fails.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{self.kind} {name!r}: names consist of a to z, 0 to 9, _ and -")
        if name in self and self[name] is not thing:
            raise UserError(f"{self.kind} {name!r} exists already; choose another name")
        self.check(name, thing)
        super().__setitem__(name, thing)

    __setitem__ = register
