"""What each peer reports: the seconds of its stages and the versions it ran on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version


@dataclass
class Stages:
    """Seconds of each stage, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time the stage inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def versions() -> dict[str, str]:
    """Of the packages that decide what a peer does."""
    names = ("pytorch-lifestream", "pytorch-lightning", "torch", "pandas", "numpy")
    return {name: version(name) for name in names}
