"""Errors of the experiment that are reported in one line, without a traceback."""

from leaf.errors import UserError as UserError


class DamagedError(UserError):
    """A finished cell's files are not as its run left them; the message names the file."""
