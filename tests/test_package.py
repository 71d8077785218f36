import subprocess
import sys
from pathlib import Path

import pytest

import infobehavior

HEAVY = ("torch", "sklearn", "lightgbm", "duckdb", "pyarrow", "pandas", "plotly", "pyspark")


def test_all_matches_the_exports():
    assert sorted(infobehavior.__all__) == sorted(infobehavior._HOMES)
    assert set(infobehavior.__all__) <= set(dir(infobehavior))


@pytest.mark.parametrize("name", infobehavior.__all__)
def test_each_public_name_is_there_and_documented(name):
    public = getattr(infobehavior, name)
    assert public.__name__ == name
    assert public.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'agregate'"):
        infobehavior.agregate  # noqa: B018


def test_the_changelog_tells_of_the_version():
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{infobehavior.__version__}]" in changelog


@pytest.mark.parametrize(
    "statement",
    [
        "import infobehavior",
        "from infobehavior.cli import main; main(['--help'])",
        "from infobehavior.cli import main; main(['pretrain', '--help'])",
    ],
)
def test_importing_and_asking_for_help_load_nothing_heavy(statement):
    program = f"import sys; {statement}; sys.exit(', '.join({set(HEAVY)!r} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.stderr.strip() == ""
