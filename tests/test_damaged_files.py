"""Whatever bytes stand in a file that a command reads, it ends well or says in one line that it can't."""

import shutil
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infobehavior import aggregate, align, daily, embed, pretrain, publish
from infobehavior.artefacts import DEFINITION_FILE, UNFINISHED_FILE
from infobehavior.cli import main
from infobehavior.data.ledger import LEDGER_FILE
from infobehavior.data.schema import write_schema
from infobehavior.embedding.alignment import ALIGNMENT_FILE
from infobehavior.fusion.evaluation import fuse_evaluate
from infobehavior.fusion.fuse import fuse_predict, fuse_train
from infobehavior.fusion.model_folder import LAYOUT
from infobehavior.nightly.drift import REFERENCE_FILE
from infobehavior.nightly.stale import SEEN_FILE
from small_minutes import random_events, small_schema, tiny_config, write_csv, write_parquet

DAY = "2024-04-01"
PARTITION = f"ds={DAY}/embeddings.parquet"


@dataclass(frozen=True)
class Reader:
    """A command, and the files that it reads, below the folder that `{}` stands for."""

    line: str
    files: tuple[str, ...]


READERS = (
    Reader("inspect {}/events.parquet", ("events.parquet",)),
    Reader("inspect {}/events.csv", ("events.csv",)),
    Reader("aggregate {}/events.csv --schema {}/schema.toml --out {}/new", ("events.csv", "schema.toml")),
    Reader(
        "aggregate {}/events.parquet --schema {}/schema.toml --out {}/minutes",
        (
            "events.parquet",
            f"minutes/{DEFINITION_FILE}",
            f"minutes/ds={DAY}/minutes.parquet",
            f"minutes/{UNFINISHED_FILE}",
        ),
    ),
    Reader(
        "pretrain {}/minutes --out {}/new --config {}/config.toml",
        ("config.toml", f"minutes/{DEFINITION_FILE}", f"minutes/ds={DAY}/minutes.parquet"),
    ),
    Reader(
        f"embed {{}}/minutes --model {{}}/model --out {{}}/embeddings --reuse --date {DAY}",
        (
            *("model/config.json", "model/weights", "model/vocabulary", f"minutes/ds={DAY}/minutes.parquet"),
            *(f"embeddings/{name}" for name in (DEFINITION_FILE, PARTITION, UNFINISHED_FILE)),
        ),
    ),
    Reader("embed {}/minutes --model {}/model --out {}/new --as-of {}/moments.csv", ("moments.csv",)),
    Reader(
        "daily {}/events.parquet --schema {}/schema.toml --model {}/model --minutes {}/minutes --out {}/embeddings "
        f"--date {DAY}",
        (
            *("events.parquet", f"minutes/{LEDGER_FILE}"),
            *(f"embeddings/{name}" for name in (REFERENCE_FILE, SEEN_FILE, UNFINISHED_FILE)),
        ),
    ),
    Reader(
        "align {}/others --out {}/aligned",
        (f"aligned/{ALIGNMENT_FILE}", f"aligned/{PARTITION}", f"others/{PARTITION}", f"others/{DEFINITION_FILE}"),
    ),
    Reader(
        "publish {}/embeddings --to {}/delta",
        (f"embeddings/{DEFINITION_FILE}", f"embeddings/{PARTITION}", f"delta/_delta_log/{0:020}.json"),
    ),
    Reader(
        "evaluate {}/embeddings --labels {}/labels.csv --label risky --minutes {}/minutes --out {}/report --folds 2",
        ("labels.csv", f"embeddings/{DEFINITION_FILE}", f"embeddings/{PARTITION}"),
    ),
    Reader("fuse train {}/judged.csv --config {}/fusion.toml --out {}/new", ("judged.csv", "fusion.toml")),
    Reader(
        "fuse predict {}/judged.csv --model {}/fused --out {}/predictions --table account={}/embeddings",
        (
            *("judged.csv", f"fused/{LAYOUT.file}", "fused/weights", "fused/trees"),
            *(f"embeddings/{name}" for name in (DEFINITION_FILE, PARTITION)),
            *(f"predictions/{name}" for name in (DEFINITION_FILE, UNFINISHED_FILE)),
        ),
    ),
    Reader(
        "fuse evaluate {}/judged.csv --model {}/fused --out {}/judgement --table account={}/embeddings",
        ("judged.csv", f"fused/{LAYOUT.file}", f"judgement/{DEFINITION_FILE}"),
    ),
)
CASES = tuple((reader, file) for reader in READERS for file in reader.files)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with everything that commands read."""
    folder = tmp_path_factory.mktemp("whole")
    events = random_events(seed=2, minutes_each=20)
    write_parquet(events, folder / "events.parquet")
    write_csv(events, folder / "events.csv")
    write_schema(small_schema(), folder / "schema.toml")
    (folder / "config.toml").write_text(
        'num_steps = 1\nbatch_size = 2\n[encoder]\nnum_layers = 1\ntime_point = "minute_of_day"\n'
    )
    rows = [f"user {i},{i % 2}" for i in range(10)]
    (folder / "labels.csv").write_text("entity_id,risky\n" + "\n".join(rows) + "\n")
    (folder / "moments.csv").write_text(
        "entity_id,as_of\n" + "\n".join(f"user {i},2024-04-01T10:00:00Z" for i in range(10))
    )
    aggregate(folder / "events.parquet", small_schema(), folder / "minutes", threads=1)
    for seed, model, table in ((0, "model", "embeddings"), (1, "other model", "others")):
        pretrain(folder / "minutes", folder / model, config=tiny_config(seed=seed))
        embed(folder / "minutes", folder / model, folder / table, date=DAY)
    parts = (folder / "events.parquet", small_schema(), folder / "model", folder / "minutes", folder / "embeddings")
    daily(*parts, date=DAY, threads=1)
    align(folder / "others", folder / "aligned", to=folder / "embeddings")
    publish(folder / "embeddings", str(folder / "delta"))
    fuse_all(folder)
    for of, name in (("model", "weights"), ("model", "vocabulary"), ("fused", "weights"), ("fused", "trees")):
        (only,) = (folder / of).glob(f"{name}-*")
        (folder / of / name).symlink_to(only.name)
    return folder


FUSION = """
examples = {{label = "risky", moment = "as_of", time_zone = "UTC"}}
groups.account = {{kind = "representation", table = "{}"}}
groups.listing = {{kind = "numbers", columns = ["price"]}}
network = {{max_epochs = 1, group_dim = 2, hidden_dim = 2}}
"""


def fuse_all(folder):
    """What is judged, and a fused classifier with its predictions and its evaluation."""
    rows = [f"user {i % 10},2024-04-02T10:00:0{i % 10}Z,{i % 2},{i}" for i in range(20)]
    (folder / "judged.csv").write_text("entity_id,as_of,risky,price\n" + "\n".join(rows) + "\n")
    (folder / "fusion.toml").write_text(FUSION.format(folder / "embeddings"))
    fuse_train(folder / "judged.csv", folder / "fusion.toml", folder / "fused")
    fuse_predict(folder / "judged.csv", folder / "fused", folder / "predictions")
    fuse_evaluate(folder / "judged.csv", folder / "fused", folder / "judgement")


@st.composite
def damages(draw):
    """How a file's bytes are changed: other bytes, an end, a part that is overwritten, removed or doubled."""
    return (
        draw(st.sampled_from(["other", "cut", "overwrite", "remove", "double", "flip"])),
        draw(st.binary(max_size=40)),
        draw(st.floats(0, 1)),
        draw(st.floats(0, 0.2)),
    )


def damaged(content, damage):
    how, other, where, length = damage
    start = int(where * len(content))
    end = start + int(length * len(content))
    return {
        "other": other,
        "cut": content[:start],
        "overwrite": content[:start] + other + content[start + len(other) :],
        "remove": content[:start] + content[end:],
        "double": content[:end] + content[start:],
        "flip": content[:start] + bytes(byte ^ 0xFF for byte in content[start : start + 1]) + content[start + 1 :],
    }[how]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.sampled_from(CASES), damage=damages())
def test_a_file_with_any_bytes_never_ends_in_a_traceback(whole, tmp_path_factory, capsys, case, damage):
    reader, name = case
    folder = tmp_path_factory.mktemp("damaged") / "all"
    shutil.copytree(whole, folder, symlinks=True)
    file = folder / name
    file = file.resolve() if file.exists() else file
    file.write_bytes(damaged(file.read_bytes() if file.exists() else b'{"what": "x"}', damage))
    capsys.readouterr()
    code = main(reader.line.replace("{}", str(folder)).split())
    said = capsys.readouterr().err
    assert code in (0, 2), said
    if code == 2:
        lines = [line for line in said.splitlines() if "error:" in line]
        assert len(lines) == 1, said
        assert lines[0].startswith("infobehavior: error: ")
        assert "Traceback" not in said
    shutil.rmtree(folder.parent)
