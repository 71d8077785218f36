"""Threads that wait spin briefly, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from infobehavior.threads import spin_briefly

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def test_set_where_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    spin_briefly()

    assert [os.environ[name] for name in VARIABLES] == ["PASSIVE", "1000"]


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "0"}])
def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    """GNU's count outranks the policy, so one that isn't the user's must not stand beside the user's policy."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)

    spin_briefly()

    assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == said


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    """OpenMP reads its environment once, when it is loaded."""
    loaded = "import sys; from infobehavior.cli import main; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0
