"""Errors of the experiment that are reported in one line, without a traceback."""

import difflib
from collections.abc import Collection

from leaf.errors import UserError as UserError


class DamagedError(UserError):
    """A file of a finished cell was changed or damaged after its run. The message names the file."""


def unknown(kind: str, name: object, known: Collection[str]) -> str:
    """Return the message for an unknown name, with the most similar known name and all known names."""
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1)
    hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
    return f"unknown {kind} {name!r}{hint}; known: {', '.join(known)}"


def check_known(kind: str, name: str, known: Collection[str]) -> str:
    """Return ``name`` if it is known.

    Raises:
        UserError: if it is not.
    """
    if name not in known:
        raise UserError(unknown(kind, name, known))
    return name
