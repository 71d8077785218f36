"""The examples run as they stand."""

import importlib.util
from pathlib import Path

import pyarrow.parquet as pq

from infobehavior.artefacts import read_json

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_defended_threshold(tmp_path, capsys):
    source = EXAMPLES / "defended_threshold.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) < 80
    spec = importlib.util.spec_from_file_location("defended_threshold", source)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    example.main(tmp_path)

    rows = read_json(tmp_path / "report" / "metrics.json", "metrics")["rows"]
    assert [row["classifier"] for row in rows] == ["fusion", "gbdt"]
    assert rows[0]["auc"] > 0.7
    predicted = pq.read_table(tmp_path / "predictions" / "ds=2019-10-31" / "predictions.parquet")
    assert set(predicted["is_flagged"].to_pylist()) <= {True, False}
    printed = capsys.readouterr().out
    assert "threshold" in printed
    assert "seen in training" not in printed
