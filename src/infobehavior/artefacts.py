"""Files that are never half-written, and the hashes that tell one definition from another."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infobehavior.errors import InputError


def write_atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its target, then move it into place.

    A kill at any moment leaves the old file or the new one, never half of one. The temporary name starts with a
    dot, so that no reader of a partitioned folder takes it for data; what an earlier kill left behind is removed.

    Args:
        target: the file to make; its folder is created.
        write: is called with the temporary path and must create it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        error.filename = error.filename or str(target)  # a full disk doesn't say which file was too much
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _flush(target.parent)


def write_json(target: Path, content: Any) -> None:
    """Write `content` as readable JSON with sorted keys, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(target, lambda path: _write_text(path, text))


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file of ours.

    Args:
        path: the file.
        what: what the reader wanted, for the message: "a folder of minutes".

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not {what}: it has no {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged, not JSON ({error}); make it again") from None


def definition_hash(definition: Any) -> str:
    """Sixteen hexadecimal digits that name a definition: the SHA-256 of its canonical JSON.

    Example:
        >>> definition_hash({"a": 1, "b": 2}) == definition_hash({"b": 2, "a": 1})
        True
    """
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
