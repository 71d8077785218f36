"""The command line: one command a step of the path, each the Python call of the same name."""

import logging
import os
import sys
from collections.abc import Sequence

from infobehavior.cli.commands import app
from infobehavior.cli.error_lines import error_line
from infobehavior.errors import DEBUG_VARIABLE, BusyError
from infobehavior.pretraining.launch import tell_once
from infobehavior.threads import spin_briefly

EXIT_BAD_INPUT = 2
EXIT_BUSY = 75
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Whatever a user can put right ends in one line on standard error; with `INFOBEHAVIOR_DEBUG=1` in the
    environment it ends in a traceback.

    Args:
        arguments: what follows the program's name; by default the process's own arguments.

    Returns:
        The exit code: 0, 2 after bad input, 3 where `daily` finds that the data have drifted or `fuse train` that the
        required precision can't be reached, 75 where another process is at work, 130 after an interruption.
    """
    spin_briefly()
    _log_to_stderr()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(app(args=given or ["--help"], prog_name="infobehavior", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        line = error_line(error)
        if line is None or os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        tell_once(lambda: print(f"infobehavior: error: {line}", file=sys.stderr, flush=True))
        return EXIT_BUSY if isinstance(error, BusyError) else EXIT_BAD_INPUT


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("infobehavior")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
