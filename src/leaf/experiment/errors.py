"""Errors of the experiment that are reported in one line, without a traceback."""

from leaf.errors import UserError as UserError


class DamagedError(UserError):
    """A file of a finished cell was changed or damaged after its run; the message names the file."""
