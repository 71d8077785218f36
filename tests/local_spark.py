"""A small Spark session, with settings that are as odd as they can be."""

import os
import shutil
import sys
import warnings
from contextlib import contextmanager

import pytest

ODD_SETTINGS = {
    "spark.sql.session.timeZone": "America/New_York",
    "spark.sql.ansi.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1",
    "spark.sql.shuffle.partitions": "3",
    "spark.default.parallelism": "3",
}


def needs_java():
    """Skip the test where there is no Java."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java, and there is none")


@contextmanager
def spark_session(master, **settings):
    """A session that ends here, and the Python of this process on its executors."""
    needs_java()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pandas", category=FutureWarning)
        from pyspark.sql import SparkSession

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYSPARK_PYTHON", sys.executable)
            patch.setenv("TZ", "Pacific/Auckland")
            builder = SparkSession.builder.master(master).config("spark.driver.memory", "1g")
            builder = (
                builder.config("spark.ui.enabled", "false")
                .config("spark.ui.showConsoleProgress", "false")
                .config("spark.driver.host", "localhost")
            )
            builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
            for name, value in {**ODD_SETTINGS, **settings}.items():
                builder = builder.config(name, value)
            session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
