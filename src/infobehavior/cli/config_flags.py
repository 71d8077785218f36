"""One flag for each field of the configuration, and what a preset, a file and flags make together."""

import inspect
import tomllib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from infobehavior.cli.error_lines import error_line
from infobehavior.errors import InputError
from infobehavior.pretraining.config import PretrainConfig, preset

Command = Callable[..., None]


def with_config_flags(model: type[BaseModel], *, shows_defaults: bool = False) -> Callable[[Command], Command]:
    """Replace a command's `**fields` by one flag for each field of a configuration.

    Args:
        model: of the configuration.
        shows_defaults: whether the help tells the model's defaults; where there are presets, it can't.
    """

    def add_flags(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        flags = [_flag(path[-1], field, shows_defaults) for path, field in config_fields(model)]
        command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        return command

    return add_flags


def resolve_config(name: str, file: Path | None, flags: dict[str, Any]) -> PretrainConfig:
    """Settle the configuration: a preset, what a file replaces of it, and what flags replace of both.

    Args:
        name: the preset.
        file: a TOML file with fields of `PretrainConfig`; those of the encoder in a table of their own.
        flags: fields by name, wherever they belong; None and an empty list mean "not given".

    Raises:
        InputError: the file can't be read as TOML or has a fault, or there is no such preset.
        ValidationError: a value is not one that its field can have; it lists all faults.
    """
    values = preset(name).model_dump()
    if file is not None:
        values = _merged(values, _read_toml(file))
        _check_values(values, file)
    return PretrainConfig.model_validate(replaced_by_flags(PretrainConfig, values, flags))


def replaced_by_flags(model: type[BaseModel], values: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Values of a configuration, some of them replaced by flags; None and an empty list mean "not given"."""
    for path, _ in config_fields(model):
        given = flags.get(path[-1])
        if given is not None and given != []:
            values = _merged(values, _nested(path, given))
    return values


def config_fields(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Walk through the scalar and list fields of a model and of the models in it, each with its path."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from config_fields(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}") from None


def _check_values(values: dict[str, Any], file: Path) -> None:
    """Name the file of a fault that no flag has to do with."""
    try:
        PretrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{file}: {error_line(error)}") from None


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Replace values by changes, table by table."""
    both = {**values, **changes}
    for name, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(name), dict):
            both[name] = _merged(values[name], change)
    return both


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _flag(name: str, field: FieldInfo, shows_default: bool) -> inspect.Parameter:
    """The command-line flag of a field; what isn't given comes from the preset, or is the default."""
    kind = _flag_type(field.annotation)
    flag, metavar = f"--{name.replace('_', '-')}", None
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    elif typing.get_origin(kind) is list:
        metavar = f"<{typing.get_args(kind)[0].__name__}>..."
    default = str(field.default) if shows_default else False
    option = typer.Option(flag, help=field.description, metavar=metavar, show_default=default)
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag_type(annotation: Any) -> Any:
    """What a flag of a field holds: `tuple[PositiveInt, ...]` is a list of int, `X | None` is X."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _flag_type(parts[0])
    if origin in (typing.Union, UnionType):
        return _flag_type(next(part for part in parts if part is not type(None)))
    if origin in (tuple, list):
        return list[_flag_type(parts[0])]  # type: ignore[misc]
    if origin is typing.Literal or annotation in (bool, int, float, Path):
        return annotation
    return str
