"""The one error that a user is meant to read, in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def refusing_long_paths() -> Iterator[None]:
    """Turn what the system says of a path that is too long for it into an `InputError`; decorates functions too."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"{one_line(str(error.filename))}: {error.strerror}; give a shorter path") from None


def one_line(error: Exception | str) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())
