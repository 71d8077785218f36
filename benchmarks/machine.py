"""What a figure was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "duckdb", "pyarrow", "numpy")


def machine() -> dict[str, Any]:
    """Processor, versions and commit, for people who want to compare; and how threads wait that share a product."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "spins": int(os.environ.get("GOMP_SPINCOUNT", 0)),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "commit": _commit(),
    }


def in_words(described: dict[str, Any]) -> str:
    """One line for a page."""
    versions = ", ".join(f"{name} {described[name]}" for name in ("python", *LIBRARIES))
    wait = f"threads wait {described.get('spins', 0):,} spins, then sleep"
    return f"{described['cores']} cores ({described['processor']}; {wait}), {versions}, commit {described['commit']}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _commit() -> str:
    """The commit; "dirty" where the code isn't the commit's, whatever the pages are that a benchmark has written."""
    commit, changed = _git("describe", "--always"), _git("status", "--porcelain", "--", ":!docs", ":!README.md")
    return f"{commit}-dirty" if any(not line.startswith("??") for line in changed.splitlines()) else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
