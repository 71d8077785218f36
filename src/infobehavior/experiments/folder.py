"""The folder of an experiment: one that holds something else is left alone."""

from importlib.metadata import version
from pathlib import Path

from infobehavior.artefacts import refuse_unwritable, write_json
from infobehavior.errors import InputError

EXPERIMENT_FILE = "_experiment.json"
"""What a folder of an experiment says of itself."""


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an experiment; leaves no trace.

    Args:
        folder: need not be there yet.

    Raises:
        InputError: it has files and no mark of an experiment, or it can't be written.
    """
    refuse_unwritable(folder, "an experiment")
    is_ours = (folder / EXPERIMENT_FILE).exists() or not folder.exists()
    if not is_ours and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise InputError(
            f"{folder} has files that aren't an experiment's, or are an older version's (no {EXPERIMENT_FILE}); give "
            "a new folder"
        )


def mark_folder(folder: Path) -> None:
    """Say, before anything else is written to it, that it is an experiment's."""
    if not (folder / EXPERIMENT_FILE).exists():
        write_json(folder / EXPERIMENT_FILE, {"kind": "experiment", "made by": version("infobehavior")})
