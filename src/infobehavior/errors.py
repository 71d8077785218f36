"""The one error that a user is meant to read, in one line."""

DEBUG_VARIABLE = "INFOBEHAVIOR_DEBUG"
"""Where this is 1 in the environment, an error ends in a traceback."""


class InputError(ValueError):
    """Something that the caller gave can't be used.

    The message is one line: it names the file, column or flag, says what was expected and what came, and what
    to do. The command line prints it and exits with 2; Python callers catch it as a ``ValueError``.
    """


class NoEventsError(InputError):
    """No window has any events."""


class BusyError(RuntimeError):
    """Another process is at work where this one would write; later it may not be.

    The command line prints the message, one line, and exits with 75, as programs do that are to be tried again.
    """


def one_line(error: Exception | str) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())
