"""The exception for a user's mistakes, which are reported in one line without a traceback."""


class UserError(ValueError):
    """A mistake in a configuration, name, file or data set. The message says what is wrong and what would be right."""
