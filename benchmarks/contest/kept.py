"""What was measured of a task, in a file of the repository."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from contest.judging import Asked, Measured
from infobehavior.artefacts import read_json, write_json


@dataclass(frozen=True)
class Run:
    """One training of a contestant, judged by one task.

    Attributes:
        name: of the contestant, or of what stands in its rows.
        seed: of its training, the folds and the classifiers.
        key: hash of what decides it.
    """

    name: str
    seed: int
    key: str


@dataclass(frozen=True)
class Kept:
    """The file of a task and a part of the accounts.

    Attributes:
        file: JSON; it needn't be there yet.
    """

    file: Path

    def has(self, run: Run) -> bool:
        """Whether a run was measured, and nothing that decides it has changed since."""
        found = self._content().get("runs", {}).get(run.name, {}).get(str(run.seed), {})
        return bool(found) and found["report"].get("decided_by") == run.key

    def add(self, run: Run, measured: Measured, report: dict[str, Any], windows: Asked, grouped: bool) -> None:
        """Write what was measured, and tell it.

        Args:
            run: whose it is.
            measured: its metrics.
            report: how it was trained.
            windows: of all accounts that might be asked about.
            grouped: whether a group is never on both sides of a split.
        """
        content = self._content() | windows.of_part().size()
        told = {
            "measured": measured,
            "report": report | {"decided_by": run.key},
            "split": windows.split(run.seed, grouped),
            "machine": machine(),
        }
        content.setdefault("runs", {}).setdefault(run.name, {})[str(run.seed)] = told
        write_json(self.file, content)
        for classifier, metrics in measured.items():
            means = ", ".join(f"{metric} {np.mean(values):.3f}" for metric, values in metrics.items())
            task, part = self.file.stem, self.file.parent.name
            print(f"{task} ({part}), seed {run.seed}, {run.name}, {classifier}: {means}", flush=True)

    def _content(self) -> dict[str, Any]:
        return read_json(self.file, "results") if self.file.exists() else {}
