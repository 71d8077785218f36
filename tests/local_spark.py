"""Spark on this machine: a small session whose settings are as odd as they can be, and a cluster of processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

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


LOOPBACK = ("--host", "127.0.0.1", "--webui-port", "0")


class Cluster:
    """A master and its workers, processes of a standalone cluster on loopback.

    Args:
        folder: for configuration and logs.
        stack: at whose end all of them are killed.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"spark://127.0.0.1:{port}"
        self.master = self._start("master.Master", "--port", str(port))
        self.workers = [
            self._start(
                "worker.Worker", "--cores", "1", "--memory", "600m", "--work-dir", str(folder / f"{i}"), self.url
            )
            for i in range(2)
        ]
        settings = {
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            # The work begins when both workers are there; and a lost one is given up soon.
            "spark.cores.max": "2",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
            "spark.shuffle.io.maxRetries": "1",
            "spark.shuffle.io.retryWait": "1s",
        }
        (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    @property
    def environment(self):
        """Of every process: Spark's configuration, and where the package is."""
        here = Path(__file__).parent
        return os.environ | {
            "SPARK_CONF_DIR": str(self._folder),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join([str(here.parent / "src"), str(here)]),
            "TZ": "America/New_York",
        }

    def _start(self, what, *arguments):
        import pyspark

        home = Path(pyspark.__file__).parent
        log = self._stack.enter_context((self._folder / f"{what}.log").open("ab"))
        process = subprocess.Popen(
            [home / "bin/spark-class", f"org.apache.spark.deploy.{what}", *LOOPBACK, *arguments],
            env=self.environment | {"SPARK_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._stack.callback(end, process)
        return process


def end(process):
    """Kill a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def killing(task, marker, group, *given):
    """A task that, the first time that it is done, kills a worker with its executor, as if a machine were gone."""
    yield from task(*given)
    with suppress(FileExistsError):
        marker.open("x").close()
        os.killpg(group, signal.SIGKILL)


def run_commands(commands, master, killed_in, marker, group):
    """Run command lines in one session; in a task of this name a worker is killed. Gives their exit codes."""
    from infobehavior.cli import main
    from infobehavior.data import spark_log, spark_tasks
    from infobehavior.embedding import bundles, spark_embed
    from infobehavior.spark import spark_context

    bundles.ENTITIES_PER_BUNDLE, spark_embed.MINUTES_PER_TASK = 1, 20
    spark_log.EVENTS_PER_TASK, spark_log.FILES_PER_TASK = 100, 1
    home = spark_tasks if hasattr(spark_tasks, killed_in) else spark_embed
    setattr(home, killed_in, partial(killing, getattr(home, killed_in), Path(marker), group))
    with spark_context(master):
        return [main([*command, "--engine", "spark"]) for command in commands]
