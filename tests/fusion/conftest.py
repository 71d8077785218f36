import pytest
import tomli_w
from threadpoolctl import threadpool_limits

from fusion.examples import config_content, products, write_embeddings, write_rows


@pytest.fixture(autouse=True)
def one_thread():
    """As in training: pools of threads that wait for each other on a busy machine take ten times as long."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def seller_embeddings(tmp_path_factory):
    return write_embeddings(tmp_path_factory.mktemp("sellers"))


@pytest.fixture(scope="session")
def listed(tmp_path_factory):
    """The examples that are learnt from."""
    return write_rows(products(), tmp_path_factory.mktemp("listed") / "products.parquet")


@pytest.fixture(scope="session")
def later(tmp_path_factory):
    """Examples that nothing is learnt from."""
    rows = [row | {"product": 1_000 + row["product"]} for row in products(120, seed=1)]
    return write_rows(rows, tmp_path_factory.mktemp("later") / "products.parquet")


@pytest.fixture(scope="session")
def config_file(seller_embeddings, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "fusion.toml"
    path.write_text(tomli_w.dumps(config_content(seller_embeddings)))
    return path


@pytest.fixture(scope="session")
def fused(listed, config_file, tmp_path_factory):
    """The folder of a fused classifier."""
    from infobehavior.fusion.fuse import fuse_train

    folder = tmp_path_factory.mktemp("fused") / "model"
    fuse_train(listed, config_file, folder)
    return folder
