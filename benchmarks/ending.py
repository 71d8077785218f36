"""How the benchmarks' commands end."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from infobehavior.errors import InputError, one_line


def exit_with(main: Callable[[], int]) -> NoReturn:
    """End the process with what `main` returns; where something that was given can't be used, with one line and 2."""
    try:
        code = main()
    except InputError as error:
        named = Path(sys.argv[0])
        name = named.parent.name if named.name == "__main__.py" else named.stem
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)
