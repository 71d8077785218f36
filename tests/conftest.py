"""A small log, its minutes and a tiny model, made once. (That this file is here lets tests import their helpers.)"""

import pytest
from hypothesis import settings

import shape_checks  # noqa: F401  (before the package is imported)
from small_minutes import random_events, small_minutes, tiny_config

# A shared machine is sometimes slow, which is no failure; and a test that fails should fail again.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")


@pytest.fixture(scope="session")
def events():
    return random_events()


@pytest.fixture(scope="session")
def minutes(events, tmp_path_factory):
    return small_minutes(tmp_path_factory.mktemp("small"), events)


@pytest.fixture(scope="session")
def model_folder(minutes, tmp_path_factory):
    from infobehavior import pretrain

    folder = tmp_path_factory.mktemp("model")
    pretrain(minutes.path, folder, config=tiny_config())
    return folder


@pytest.fixture(scope="session")
def spark():
    """A Spark session on this machine whose settings would change results, if any were Spark's to make."""
    from local_spark import spark_session

    with spark_session("local[2]") as session:
        yield session
