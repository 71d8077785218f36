"""What a night did, one JSON object a stage, added to a file that grows."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infobehavior.errors import one_line


class StageLog:
    """The log of a run.

    Args:
        path: the file; its folder is created.
        run: what is said in each line, such as the date.
    """

    def __init__(self, path: Path, **run: Any) -> None:
        self._path, self._run = path, run

    @contextmanager
    def stage(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Log a stage when it ends, or fails.

        Args:
            name: of the stage.
            facts: what is known of it before.

        Yields:
            The facts; more may be added.
        """
        started, clock = datetime.now(UTC), time.monotonic()
        error = None
        try:
            yield facts
        except BaseException as raised:
            error = one_line(raised) if isinstance(raised, Exception) else type(raised).__name__
            raise
        finally:
            said = {"stage": name, **self._run, "started": started.isoformat(timespec="seconds")}
            said |= {"seconds": round(time.monotonic() - clock, 3), **facts}
            try:
                self._add(said | ({"error": error} if error is not None else {}))
            except OSError as full:
                if error is None:  # or what went wrong first would not be told
                    full.filename = full.filename or str(self._path)
                    raise

    def _add(self, said: dict[str, Any]) -> None:
        """One write for a line, so that a kill leaves it whole or leaves none; a line that was cut is ended first."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(said, ensure_ascii=False, default=str).encode(errors="backslashreplace") + b"\n")
