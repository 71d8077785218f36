"""The benchmarks' commands end in one line where something that was given can't be used."""

import pytest
from ending import exit_with

from infobehavior.errors import InputError


def test_what_cannot_be_used_is_told_in_one_line(monkeypatch, capsys):
    def main() -> int:
        raise InputError("work/market: another market;\n remove it")

    monkeypatch.setattr("sys.argv", ["benchmarks/contest/__main__.py"])
    with pytest.raises(SystemExit, match="2"):
        exit_with(main)
    assert capsys.readouterr().err == "contest: error: work/market: another market; remove it\n"


@pytest.mark.parametrize("code", [0, 1])
def test_else_a_command_ends_with_its_own_code(code):
    with pytest.raises(SystemExit, match=str(code)):
        exit_with(lambda: code)
