import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_limits

from downstream.examples import aggregated, random_events, windows_of, write_embeddings
from infobehavior.downstream import evaluate


@pytest.fixture(autouse=True)
def one_thread():
    """As in `evaluate`: pools of threads that wait for each other on a busy machine take ten times as long."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def account_events():
    return random_events()


@pytest.fixture(scope="session")
def account_minutes(account_events, tmp_path_factory):
    return aggregated(account_events, tmp_path_factory.mktemp("accounts"))


@pytest.fixture(scope="session")
def embeddings(account_minutes, tmp_path_factory):
    return write_embeddings(tmp_path_factory.mktemp("embeddings"), windows_of(list(range(60))), account_minutes)


@pytest.fixture(scope="session")
def labels(tmp_path_factory):
    """Accounts 0 to 63, of which the last four have no embedding; two have no label."""
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    bots = [None if entity in (1, 2) else int(entity % 4 == 0) for entity in range(64)]
    # A person has accounts that are 20 apart; account 3 belongs to nobody known.
    persons = [None if entity == 3 else f"p{entity % 20}" for entity in range(64)]
    pq.write_table(pa.table({"entity_id": list(range(64)), "bot": bots, "person": persons}), path)
    return path


@pytest.fixture(scope="session")
def evaluated(embeddings, labels, account_minutes, tmp_path_factory):
    """The folder that an evaluation wrote."""
    out = tmp_path_factory.mktemp("report")
    evaluate(embeddings, labels, "bot", account_minutes.path, out, group="person", folds=3)
    return out
