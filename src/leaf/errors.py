"""The error for a user's mistake, which is reported in one line without a traceback."""


class UserError(ValueError):
    """A mistake in a configuration, a name, a file or a data set; the message says what is wrong and what is right."""
