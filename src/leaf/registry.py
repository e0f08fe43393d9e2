"""Tables of what is known by name; whatever is registered in one is checked first."""

import re
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from leaf.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(@[a-z]+)?")
"""What a name looks like: it becomes a part of paths."""

Thing = TypeVar("Thing")


class Registry(UserDict[str, Thing]):
    """A table of things by name, in the order of their registration.

    Args:
        kind: what the things are, in one word for messages.
        check: called with a name and what is to be registered under it; raises ``UserError`` if that cannot be.
        known: what the table starts with. It is not checked here, where that may need torch, but by the tests.
    """

    def __init__(self, kind: str, check: Callable[[str, Any], None], known: Mapping[str, Thing] | None = None) -> None:
        super().__init__()
        self.kind, self.check = kind, check
        self.data = dict(known or {})

    def register(self, name: str, thing: Thing) -> None:
        """Add something under a name. ``registry[name] = thing`` and ``registry.update(…)`` do the same.

        Raises:
            UserError: if the name is malformed or belongs to something else, or the thing fails its check.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{self.kind} {name!r}: names are made of a to z, 0 to 9, _ and -")
        if name in self and self[name] is not thing:
            raise UserError(f"{self.kind} {name!r} exists already; choose another name")
        self.check(name, thing)
        super().__setitem__(name, thing)

    __setitem__ = register
