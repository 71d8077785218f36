"""The README's source tree: each file of the package with the first sentence of its docstring.

Run as a script (`make tree`), it writes the tree into the README; the tests compare.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "infobehavior"
README = ROOT / "README.md"
DATA_FLOW = ["data", "model", "pretext", "pretraining", "embedding", "downstream", "fusion", "apps", "cli"]
BLOCK = re.compile(r"(<!-- source tree: .* -->\n```\n)(.*?)(```\n<!-- end of source tree -->)", re.DOTALL)


def source_tree() -> str:
    """One line a file: its path inside `src/infobehavior`, and a phrase."""
    files = [str(path.relative_to(PACKAGE)) for path in package_files()]
    width = max(map(len, files)) + 2
    return "".join(f"{file:{width}}{phrase_of(PACKAGE / file)}\n" for file in files)


def package_files() -> list[Path]:
    """The package's files: the folders in the order in which data flows, then the files of none."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and not _is_cache(path))
    return sorted(files, key=_place)


def _is_cache(path: Path) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(PACKAGE).parts)


def _place(path: Path) -> tuple[int, str]:
    folder = path.relative_to(PACKAGE).parts[0]
    return (DATA_FLOW.index(folder) if folder in DATA_FLOW else len(DATA_FLOW), str(path))


def phrase_of(path: Path) -> str:
    """What a file is for: the first sentence of its docstring, or of its first comment, up to the line's end."""
    if path.name == "py.typed":
        return "says that the package has types"
    text = path.read_text(encoding="utf-8")
    lines = (ast.get_docstring(ast.parse(text)) or "" if path.suffix == ".py" else text).strip().splitlines()
    return re.split(r"\. (?=[A-Z])", lines[0].strip(" {#}-./*"))[0] if lines else ""


def readme_tree(readme: str) -> str:
    """The tree as the README has it."""
    block = BLOCK.search(readme)
    assert block, "the README has lost the markers of its source tree"
    return block[2]


if __name__ == "__main__":
    README.write_text(
        BLOCK.sub(lambda block: block[1] + source_tree() + block[3], README.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
