from pathlib import Path

import pyarrow as pa
import pytest

from infobehavior.data.tables import read_table
from infobehavior.errors import InputError


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_a_table_of_text(tmp_path: Path, name: str, delimiter: str) -> None:
    (tmp_path / name).write_text("entity_id,risky,grp\n007,1,\n8,0,x\n".replace(",", delimiter))
    expected = {"entity_id": ["007", "8"], "risky": ["1", "0"], "grp": [None, "x"]}
    assert read_table(tmp_path / name).to_pydict() == expected


def test_one_column_and_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("entity_id\n7\n")
    assert read_table(tmp_path / "a.csv") == pa.table({"entity_id": ["7"]})
    (tmp_path / "b.csv").write_text("entity_id,as_of\n")
    assert (read_table(tmp_path / "b.csv").num_rows, read_table(tmp_path / "b.csv").column_names[1]) == (0, "as_of")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"entity_id,risky,grp\n1,1,a\n2,0\n3,0,a\n4\n",
            "line 3: Expected Number of Columns: 3 Found: 2; mend this row",
        ),
        (b"entity_id,risky\n1,1\n2,0,a\n", "line 3: Expected Number of Columns: 2 Found: 3"),
        ("entity_id,risky\nJürgen,1\n".encode("latin-1"), "line 2: Invalid unicode"),
        ("entity_id,größe\n1,1\n".encode("latin-1"), "must name each column, once, in UTF-8"),
        (b'entity_id,risky\n1,1\n2,"0\n' + b"3,0\n" * 50, "line 3: a quote opens that isn't closed"),
        (b"", "a.csv is empty"),
    ],
)
def test_a_csv_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
