"""What goes wrong by a user's hand and is told in one line, without a traceback."""


class UserError(Exception):
    """A mistake in a configuration, a name, a file or a data set; the message says what is wrong and what is right."""


class DamagedError(UserError):
    """A finished cell's files are not as its run left them; the message names the file."""
