"""Which model's space the vectors of joined tables are in: to a classifier, those of another model mean nothing"""

from collections.abc import Mapping
from pathlib import Path

from infobehavior.artefacts import DEFINITION_FILE, read_json, refuse_interrupted
from infobehavior.data.events import connect, open_events, readable
from infobehavior.errors import InputError
from infobehavior.fusion.config import Group
from infobehavior.fusion.joining import DAY_FOLDER, EMBEDDING

MODEL_ID = "model_id"


def embedding_spaces(groups: Mapping[str, Group], *, is_trained: bool = False) -> dict[str, str]:
    """Of each group that is joined from embeddings, which model's space they are in; none where nothing tells.

    Args:
        groups: by name.
        is_trained: whether a group may have another table than that of the training, or be left out.

    Raises:
        InputError: a table isn't there, is unfinished or damaged, or has embeddings of several models.
    """
    for name, group in groups.items():
        if group.table and not group.table.exists():
            raise InputError(_not_there(group.table, name, is_trained))
    spaces = {name: _space(group.table, group) for name, group in groups.items() if group.table}
    return {name: space for name, space in spaces.items() if space}


def _not_there(table: Path, name: str, is_trained: bool) -> str:
    """A path is kept in a model as it was given, and is another place in another working directory."""
    where = "" if table.is_absolute() else f" in {Path.cwd()}, the working directory"
    advice = f"; --table {name}=PATH names another, and --without {name} goes on without" if is_trained else ""
    return f"there is no table {table} for group {name}{where}{advice}"


def refuse_other_spaces(groups: Mapping[str, Group], spaces: Mapping[str, str], trained: Mapping[str, str]) -> None:
    """Refuse embeddings that are in another space than those of the training.

    Raises:
        InputError: see above.
    """
    for name, space in spaces.items():
        if space != trained.get(name, space):
            raise InputError(
                f"group {name} was trained on embeddings of model {trained[name]}, but {groups[name].table} has those "
                f"of {space}: `infobehavior align` them, or train again"
            )


def unknown_spaces(groups: Mapping[str, Group], *known: Mapping[str, str]) -> list[str]:
    """A line for each group of embeddings of which it isn't known, now or in the training, which model made them."""
    return [
        f"warning: nothing tells which model made the embeddings of {name}, so those of another one aren't noticed"
        for name, group in groups.items()
        if group.table and (any(name in spaces for spaces in known) or _takes_embeddings(group.table, group))
        if not all(name in spaces for spaces in known)
    ]


def embedding_space(table: Path) -> str | None:
    """Which model's space the vectors of a table are in; None if the table doesn't say so.

    Raises:
        InputError: the table is unfinished or damaged.
    """
    if not (table / DEFINITION_FILE).exists():
        return None
    space = _defined(table)
    refuse_interrupted(table)
    return space


def _defined(table: Path) -> str | None:
    """What the definition says; what `align` made is in the older model's space."""
    definition = read_json(table / DEFINITION_FILE, "a table")
    if not isinstance(definition, dict):
        raise InputError(f"{table / DEFINITION_FILE} is damaged; make the table again")
    aligned = definition.get("aligned")
    space = aligned.get("old_model") if isinstance(aligned, dict) else definition.get(MODEL_ID)
    return str(space) if space else None


def _space(table: Path, group: Group) -> str | None:
    """What the table says of itself, or the one that it is a day of, or its rows."""
    space = embedding_space(table)
    if space or not _takes_embeddings(table, group):
        return space
    return _space_of_day(table) or _space_of_rows(table)


def _takes_embeddings(table: Path, group: Group) -> bool:
    """Whether a group's vectors are embeddings; of other columns, such as pictures, `model_id` tells nothing."""
    if group.kind != "vector" or group.columns:
        return group.kind == "representation" or EMBEDDING in group.columns
    with connect() as connection, readable(str(table)):
        return EMBEDDING in open_events(connection, table).columns


def _space_of_day(path: Path) -> str | None:
    """Of a day of a table, its folder or its file."""
    day = path.absolute() if path.is_dir() else path.absolute().parent
    is_of_table = DAY_FOLDER.fullmatch(day.name) and (day.parent / DEFINITION_FILE).exists()
    return _defined(day.parent) if is_of_table else None


def _space_of_rows(table: Path) -> str | None:
    with connect() as connection, readable(str(table)):
        source = open_events(connection, table)
        if MODEL_ID not in source.columns:
            return None
        sql = f"SELECT DISTINCT {MODEL_ID}::VARCHAR AS name FROM {source.sql} WHERE {MODEL_ID} IS NOT NULL"
        names = [name for (name,) in connection.sql(f"{sql} ORDER BY name LIMIT 2").fetchall()]
    if len(names) > 1:
        raise InputError(f"{table} has embeddings of several models, such as {' and '.join(names)}; keep those of one")
    return names[0] if names else None
