"""The files of a log, as they were when it was opened: one that shrinks while it is read would cost events."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

from infobehavior.errors import InputError


@dataclass(frozen=True)
class WholeFiles:
    """Sizes of files. They may grow, as logs do that are written to; what comes meanwhile is for the next run.

    Attributes:
        sizes: in bytes.
    """

    sizes: Mapping[Path, int]

    @classmethod
    def of(cls, files: Iterable[Path]) -> Self:
        """Their sizes now."""
        return cls({file: stat_of_listed(file).st_size for file in files})

    def accept(self, _day: date, _num_events: int) -> None:
        """See `day_files.Accept`: no day is replaced once a file has shrunk, whose events may have been lacking."""
        self.refuse_shrunk()

    def refuse_shrunk(self) -> None:
        """Refuse what was read of files that are smaller now.

        Raises:
            InputError: a file has shrunk, or is gone.
        """
        for file, size in self.sizes.items():
            if (now := stat_of_listed(file).st_size) < size:
                raise InputError(
                    f"{file} has shrunk from {size:,} to {now:,} bytes while the log was read: let nobody write to it, "
                    "and run again"
                )


def stat_of_listed(file: Path) -> os.stat_result:
    """What the system says of a file that was there when the log's files were listed.

    Raises:
        InputError: it isn't any more, or can't be looked at.
    """
    try:
        return file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{file} has gone since the log's files were listed; run again") from None
    except OSError as error:
        raise InputError(f"can't look at {file} of the log: {error.strerror}; run again") from None
