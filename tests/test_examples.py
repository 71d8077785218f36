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
    assert all(row["auc"] > 0.9 and row["is_met"] for row in rows)
    predicted = pq.read_table(tmp_path / "predictions" / "ds=2019-10-31" / "predictions.parquet")
    assert 0 < sum(predicted["is_flagged"].to_pylist()) < len(predicted)
    printed = capsys.readouterr().out
    assert "threshold" in printed
    assert "seen in training" not in printed
