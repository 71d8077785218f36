"""What a figure was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "duckdb", "pyarrow", "numpy")
PEERS = ("polars", "pandas")
DIRTY = "-dirty"
"""Ends a commit's name where the code isn't the commit's."""


def machine() -> dict[str, Any]:
    """Processor, versions and commit, for people who want to compare; and how threads wait that share a product."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "processor": _processor(),
        "spins": int(os.environ.get("GOMP_SPINCOUNT", 0)),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        **{name: version(name) for name in PEERS if find_spec(name)},
        "commit": _commit(),
    }


def in_words(described: dict[str, Any]) -> str:
    """One line for a page; without a commit, if that is left out."""
    named = [name for name in ("python", *LIBRARIES, *PEERS) if name in described]
    versions = ", ".join(f"{name} {described[name]}" for name in named)
    wait = f"threads wait {described.get('spins', 0):,} spins, then sleep"
    memory = f"{described['memory_bytes'] / 1e9:.0f} GB, " if "memory_bytes" in described else ""
    cores = f"{described['cores']} cores ({described['processor']}; {memory}{wait})"
    commit = f", commit {described['commit']}" if "commit" in described else ""
    gpu = f"one {described['card']} and " if "card" in described else ""
    return f"{gpu}{cores}, {versions}{commit}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _commit() -> str:
    """The commit; DIRTY where the code isn't the commit's, whatever the pages are that a benchmark has written."""
    commit, changed = _git("describe", "--always"), _git("status", "--porcelain", "--", ":!docs", ":!README.md")
    return commit + DIRTY if any(not line.startswith("??") for line in changed.splitlines()) else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
