"""Whether a folder can be written, asked before the work that would be lost."""

import tempfile
from pathlib import Path

from infobehavior.errors import InputError


def refuse_unwritable(folder: Path, what: str) -> None:
    """Refuse a folder that can't be made or written, and leave no trace of having tried.

    Args:
        folder: need not be there yet.
        what: is to be written, for the message: "embeddings".

    Raises:
        InputError: it is a file, or below one, or the file system doesn't allow it.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            found = "it" if there == folder else there
            raise InputError(f"can't write {what} to {folder}: {found} is a file; give a folder")
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"can't write {what} to {folder}: {error.strerror or error}; give another folder") from None
