"""Both commands on a standalone cluster, a worker of which is killed in the middle: to the bytes of one process."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from infobehavior import aggregate, embed
from infobehavior.data.schema import write_schema
from infobehavior.embedding import bundles
from local_spark import Cluster, needs_java
from small_minutes import folder_bytes, random_events, small_schema, write_csv

RUN = "import json, sys, local_spark; print(json.dumps(local_spark.run_commands(*json.loads(sys.argv[1]))))"


@pytest.fixture
def cluster(tmp_path):
    needs_java()
    with ExitStack() as stack:
        (tmp_path / "cluster").mkdir()
        yield Cluster(tmp_path / "cluster", stack)


@pytest.mark.parametrize("killed_in", ["write_days", "embed_run"])
def test_a_worker_that_is_killed_changes_nothing(cluster, model_folder, tmp_path, monkeypatch, killed_in):
    events = random_events()
    for i in range(3):
        write_csv(events[i::3], tmp_path / "log" / f"{i}.csv")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "log.csv").write_text("who,at,what,place,result,address\n,soon,,,,\n")
    write_schema(small_schema(), tmp_path / "schema.toml")
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 1)
    aggregate(tmp_path / "log", small_schema(), tmp_path / "minutes")
    embed(tmp_path / "minutes", model_folder, tmp_path / "out", date="2024-03-31")

    # Relative paths: executors work in folders of their own.
    minutes, out, date = "by spark/minutes", "by spark/out", "2024-03-31"
    commands = [
        ["aggregate", "log", "--schema", "schema.toml", "--out", minutes],
        ["embed", minutes, "--model", str(model_folder), "--out", out, "--date", date],
        ["aggregate", "bad", "--schema", "schema.toml", "--out", "by spark/none"],
    ]
    given = json.dumps([commands, cluster.url, killed_in, str(tmp_path / "killed"), cluster.workers[0].pid])
    run = subprocess.run(
        [sys.executable, "-c", RUN, given], cwd=tmp_path, env=cluster.environment, capture_output=True, text=True
    )
    assert json.loads(run.stdout.splitlines()[-1]) == [0, 0, 2], run.stderr
    assert cluster.workers[0].wait() == -9
    assert (tmp_path / "killed").exists()
    assert "infobehavior: error: bad has no usable event: 1 no entity" in run.stderr
    assert "at org.apache" not in run.stderr
    assert "Traceback" not in run.stderr
    for part in ("minutes", "out"):
        assert folder_bytes(tmp_path / part) == folder_bytes(tmp_path / "by spark" / part)


LOSE_JAVA = """
import sys
from infobehavior import InputError, spark
try:
    with spark.spark_context("local[1]") as context:
        pieces, java = spark.tasks(context, [1]), context._gateway.proc
        java.kill()
        java.wait()
        spark.collected(pieces)
except InputError as error:
    sys.exit(str(error))
"""


def test_a_java_process_that_is_lost_is_told_in_a_line():
    needs_java()
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", LOSE_JAVA], env=environment, capture_output=True, text=True)
    assert run.stderr.startswith("Spark's Java process, which runs beside this one, has ended or doesn't answer (")
    assert run.stderr.count("\n") == 1
