"""One line for whatever a user can get wrong."""

from concurrent.futures import BrokenExecutor
from typing import Any

import typer
from pydantic import BaseModel, ValidationError

from infobehavior.errors import BusyError, InputError, one_line
from infobehavior.pretraining.launch import ProcessLostError


def error_line(error: Exception) -> str | None:
    """Say in one line what went wrong, or return None if the error is a fault of this program."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if isinstance(error, ValidationError):
        return "; ".join(_fault(fault) for fault in error.errors(include_url=False))
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        return one_line(error.format_message()) + (f" (see {context.command_path} --help)" if context else "")
    if isinstance(error, InputError | BusyError):
        return one_line(str(error))
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return one_line(f"not enough memory: {error}")
    if isinstance(error, BrokenExecutor):
        return (
            "a process was killed, probably since memory ran out: give fewer --workers; what is finished is kept, and "
            "the same command goes on from there"
        )
    if isinstance(error, ProcessLostError):
        return "another process of the training has ended; the same command with --resume goes on from its checkpoint"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, OSError) or libraries & {"pyarrow", "safetensors", "safetensors_rust"}:
        return one_line(str(error))
    if libraries & {"duckdb", "_duckdb"}:
        return one_line(str(error).partition("\n")[0])
    return None


def _fault(fault: Any) -> str:
    """One fault that pydantic found: where, what was expected, and what came."""
    where = ".".join(str(part) for part in fault["loc"])
    expected = fault["msg"].removeprefix("Value error, ")
    came = "" if isinstance(fault["input"], dict | BaseModel) else f" (got {fault['input']!r})"
    return one_line(f"{where}: {expected}{came}" if where else f"{expected}{came}")
