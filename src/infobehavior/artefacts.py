"""Files that are never half-written, and the hashes that tell one definition from another."""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infobehavior.errors import InputError

DEFINITION_FILE = "_definition.json"
"""What a folder of minutes, of embeddings, or of an evaluation says of itself."""

TRAINING_LOG = "_training_log.jsonl"
"""One JSON object a step; beside a model, and beside the embeddings made by it."""

DAILY_LOG = "_daily.jsonl"
"""One JSON object a stage of each nightly run; beside the embeddings."""

UNFINISHED_FILE = "_unfinished.json"

MARKET_FILE = "_market.json"
"""What a folder of a simulated market says of itself."""

SECONDS_UNTIL_LEFT = 24 * 3_600
"""A temporary file that wasn't written to for so long was left by a kill."""

_TEMPORARY_NAME = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.[0-9a-f]{32}\.tmp")
"""Of a file, the process that writes it, and no other."""

_being_written: set[Path] = set()
"""Temporary files of this process."""


def write_atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its target, then move it into place.

    A kill at any moment leaves the old file or the new one, never half of one.

    Args:
        target: the file to make; its folder is created.
        write: is called with the temporary path and must create it.
    """
    with beside(target) as temporary:
        write(temporary)
        move_into_place(temporary, target)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A place for a file that `move_into_place` may make the target, or for a folder; it is gone afterwards.

    The temporary name starts with a dot, so that no reader of a partitioned folder takes it for data; what an earlier
    kill left behind is removed.

    Args:
        target: the file to make; its folder is created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    temporary = target.parent / f".{target.name}.{_writer()}.{uuid.uuid4().hex}.tmp"
    _being_written.add(temporary)
    try:
        yield temporary
    except OSError as error:
        # A full disk doesn't say which file was too much, and the temporary name says nothing to anyone.
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename = str(target)
        raise
    finally:
        _remove(temporary)
        _being_written.discard(temporary)


def remove_leftovers(target: Path) -> None:
    """Remove what a kill left `beside` a file, but nothing that a process may be writing."""
    _remove_unused(target.parent.glob(f".{target.name}.*.tmp"))


def remove_all_leftovers(folder: Path) -> None:
    """Remove what kills left beside any file of a folder of days, also beside those that no later run may write."""
    found = (path for pattern in (".*.tmp", "*/.*.tmp") for path in folder.glob(pattern))
    _remove_unused(path for path in found if _TEMPORARY_NAME.fullmatch(path.name))


def _remove_unused(leftovers: Iterable[Path]) -> None:
    for leftover in leftovers:
        *_, writer, _, _ = leftover.name.split(".")
        if not _may_be_at_work(writer, leftover):
            _remove(leftover)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def _writer() -> str:
    """The process, in the name of a temporary file."""
    return f"{os.getpid()}-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"


def _may_be_at_work(writer: str, temporary: Path) -> bool:
    """Whether the process that began a temporary file may still be writing it."""
    if writer == _writer():
        return temporary in _being_written
    process, _, machine = writer.partition("-")
    if not process.isdigit() or not _is_recent(temporary):
        return False
    return machine != _writer().partition("-")[2] or _is_alive(int(process))


def _is_recent(temporary: Path) -> bool:
    with suppress(OSError):
        return time.time() - temporary.stat().st_mtime < SECONDS_UNTIL_LEFT
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def move_into_place(temporary: Path, target: Path) -> None:
    """Make a file that is whole the target, at once, and see it to disk."""
    _flush(temporary)
    temporary.replace(target)
    _flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_atomically(target, lambda path: _write_bytes(path, text.encode()))


def as_json(content: Any) -> str:
    """Readable JSON with sorted keys."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_together(texts: Mapping[Path, str]) -> None:
    """Write several files of UTF-8 text, all of them beside their targets before the first is moved.

    Each is the old one or the new one at any moment, and in the order given: whoever finds the last one new finds all.

    Args:
        texts: by file; those of a later one are moved later.
    """
    with ExitStack() as stack:
        temporary = {target: stack.enter_context(beside(target)) for target in texts}
        for target, text in texts.items():
            _write_bytes(temporary[target], text.encode())
        for target in texts:
            move_into_place(temporary[target], target)


def write_bytes(target: Path, content: bytes) -> None:
    """Write bytes, atomically."""
    write_atomically(target, lambda path: _write_bytes(path, content))


def write_json(target: Path, content: Any) -> None:
    """Write `content` as readable JSON with sorted keys, atomically."""
    write_text(target, as_json(content))


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
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path.parent} is not {what}: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:  # bytes, form, a number of too many digits, or too many brackets
        raise InputError(f"{path} is damaged, not JSON ({error}); make it again") from None


@contextmanager
def writing(folder: Path, what: str, day: date | None = None, days: Collection[date] = ()) -> Iterator[None]:
    """Mark a folder of several files as unfinished while it is written.

    The mark stays after a kill or an error, so that no reader takes a half for the whole; the same run again removes
    it.

    Args:
        folder: is created.
        what: what is being written, for the message and to know the same run again.
        day: the only day that is written, see `unfinished_day`.
        days: all that are written, where a run of these days and of more may take the place of this one.

    Raises:
        InputError: another run was interrupted here.
    """
    refuse_another_run(folder, what, days)
    told = {"day": day.isoformat()} if day else {}
    write_json(folder / UNFINISHED_FILE, {"what": what} | told | ({"days": sorted(map(str, days))} if days else {}))
    yield
    (folder / UNFINISHED_FILE).unlink()


def mark_days(folder: Path, days: Collection[date]) -> None:
    """Let any run of these days and more end what was begun in a folder, see `writing`."""
    mark = _read_mark(folder)
    assert mark is not None
    write_json(folder / UNFINISHED_FILE, {"what": mark.what, "days": sorted(map(str, days))})


def unfinished_day(folder: Path) -> date | None:
    """The day at which a run that writes a day was interrupted; None if none was."""
    mark = _read_mark(folder)
    return mark.day if mark else None


def unfinished(folder: Path) -> str | None:
    """What is being written to a folder, or was interrupted; None if it is whole."""
    mark = _read_mark(folder)
    return mark.what if mark else None


def refuse_another_run(folder: Path, what: str, days: Collection[date] = ()) -> None:
    """Refuse to write to a folder that another run left unfinished; only that one can bring it to its end.

    Args:
        folder: see `writing`.
        what: likewise.
        days: that will be written; a run that said which ones it writes is brought to its end by one of these and more.

    Raises:
        InputError: see above.
    """
    mark = _read_mark(folder)
    if mark and mark.what != what and not (mark.days and set(mark.days) <= set(days)):
        raise InputError(
            f"{folder} is unfinished: {mark.what} was interrupted; run that again first, or remove the folder"
        )


def refuse_interrupted(folder: Path) -> None:
    """Refuse to read a folder whose writing hasn't come to its end.

    Raises:
        InputError: see above.
    """
    if mark := _read_mark(folder):
        raise InputError(f"{folder} is unfinished: {mark.what} is still running or was interrupted; run it again")


def end_interrupted(folder: Path, what: str) -> None:
    """Remove the mark of a run that was interrupted and has nothing left to write.

    Raises:
        InputError: another run was interrupted here.
    """
    refuse_another_run(folder, what)
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)


class _Mark(BaseModel):
    """What the mark of an unfinished folder says."""

    model_config = ConfigDict(extra="forbid")

    what: str
    day: date | None = None
    days: tuple[date, ...] = ()


def _read_mark(folder: Path) -> _Mark | None:
    path = folder / UNFINISHED_FILE
    if not path.exists():
        return None
    try:
        return _Mark.model_validate(read_json(path, "an unfinished folder"))
    except ValidationError:
        raise InputError(f"{path} is damaged: remove the folder and make it again") from None


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


def is_simulated(*paths: str | Path) -> bool:
    """Whether any of these files and folders is a simulated market's, or lies in its folder, however deep."""
    folders = {folder for path in map(Path, paths) for folder in (path.resolve(), *path.resolve().parents)}
    return any((folder / MARKET_FILE).is_file() for folder in folders)


def simulated_lines(definition: Mapping[str, Any]) -> list[str]:
    """What an artefact of simulated data says first."""
    return ["the data are simulated"] if definition.get("simulated") else []


def definition_hash(definition: Any) -> str:
    """Sixteen hexadecimal digits that name a definition: the SHA-256 of its canonical JSON.

    Example:
        >>> definition_hash({"a": 1, "b": 2}) == definition_hash({"b": 2, "a": 1})
        True
    """
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
