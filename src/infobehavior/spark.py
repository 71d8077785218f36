"""Work on a Spark cluster: the session, tasks whose bad input is a value, and what Spark says in one line.

Spark moves bytes and runs Python, no more: it never sees a column, so no type, time zone or setting of a session can
change a result.
"""

import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from infobehavior.artefacts import beside
from infobehavior.errors import DEBUG_VARIABLE, InputError, one_line

if TYPE_CHECKING:
    from pyspark import RDD, SparkContext

ENGINES = ("duckdb", "spark")
PACKAGES = ("infobehavior", "duckdb", "numpy", "pyarrow", "torch", "tzdata")
"""What decides bytes, so that all machines must have the same versions of it."""

_CONNECT = "SPARK_CONNECT_MODE_ENABLED"
_STDERR = 2
_HIDDEN = "spark"
_EXTRA = "pip install 'infobehavior[spark]'"


def check_engine(engine: str, master: str | None) -> bool:
    """Whether the work is Spark's.

    Raises:
        InputError: there is no such engine, or it has no master.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if master is not None and engine != "spark":
        raise InputError(f"a master ({master}) is for the engine spark: give --engine spark too")
    return engine == "spark"


@contextmanager
def spark_context(master: str | None = None) -> Iterator["SparkContext"]:
    """The Spark session of this process, which stays as it is, or a new one, which ends here.

    Args:
        master: such as spark://HOST:PORT; by default what `spark-submit` or Spark's own configuration say, else all
            cores of this machine.

    Raises:
        InputError: pyspark or Java isn't there, or no session can be had.
    """
    with _without_pandas():
        try:
            from pyspark import SparkContext
        except ImportError:
            raise InputError(f"the engine spark needs pyspark: {_EXTRA}") from None
    if _CONNECT in os.environ or (master or "").startswith("sc://"):
        raise InputError(
            "Spark Connect runs no Python tasks on bytes: use a session of the driver's own, or spark-submit"
        )
    there = SparkContext._active_spark_context
    if there is None:
        context = _start(master)
        try:
            with _lost_java_told():
                yield context
        finally:
            with suppress(*_java_errors()):  # it may be gone
                context.stop()
    elif master is not None and master != there.master:
        raise InputError(
            f"this process has a Spark session on {there.master}: stop it, or leave the master {master} out"
        )
    else:
        with _lost_java_told():
            yield there


@contextmanager
def _lost_java_told() -> Iterator[None]:
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs a traceback before it raises what is told below
    try:
        yield
    except _java_errors() as error:
        raise InputError(
            f"Spark's Java process, which runs beside this one, has ended or doesn't answer ({said(error)}); if memory "
            "ran out, give it more (spark.driver.memory), and run the command again"
        ) from error


def _java_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError

    return Py4JError, ConnectionError


def _start(master: str | None) -> "SparkContext":
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException

    by_spark_submit, debugging = "PYSPARK_GATEWAY_PORT" in os.environ, os.environ.get(DEBUG_VARIABLE) == "1"
    if not by_spark_submit and not _has_java():
        raise InputError("Spark needs Java 17 or later: install it, or set JAVA_HOME")
    with tempfile.TemporaryFile() as heard, _python_of_executors():
        try:
            with _without_pandas(), nullcontext() if by_spark_submit or debugging else _errors_into(heard):
                conf = SparkConf().setIfMissing("spark.app.name", "infobehavior")
                conf.set("spark.ui.showConsoleProgress", "false")
                context = SparkContext(conf=conf if master is None else conf.setMaster(master))
        except (PySparkException, Py4JError, OSError) as error:
            heard.seek(0)
            java = re.search(r"^.*?(?:Exception|Error): (.*)$", heard.read().decode(errors="replace"), re.MULTILINE)
            why = one_line(java[1]) if java else said(error)
            raise InputError(f"can't start a Spark session{f' on {master}' if master else ''}: {why}") from None
    # What fails on an executor is raised here, and told in one line.
    context.setLogLevel("ERROR" if debugging else "OFF")
    return context


@contextmanager
def _python_of_executors() -> Iterator[None]:
    """Let executors run the Python that runs this, if nothing else was said, and not whatever python3 is."""
    if "PYSPARK_PYTHON" in os.environ:
        yield
        return
    os.environ["PYSPARK_PYTHON"] = sys.executable
    try:
        yield
    finally:
        del os.environ["PYSPARK_PYTHON"]


@contextmanager
def _errors_into(file: IO[bytes]) -> Iterator[None]:
    """Let processes that are started meanwhile, which is Java, write their errors into a file."""
    before = os.dup(_STDERR)
    os.dup2(file.fileno(), _STDERR)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)
        os.close(before)


@contextmanager
def _without_pandas() -> Iterator[None]:
    """Let pyspark say nothing of pandas, which isn't used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pandas", category=FutureWarning)
        yield


def _has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=os.path.join(home, "bin") if home else None) is not None  # noqa: PTH118


@dataclass(frozen=True)
class Failed:
    """Bad input that a task met: it passes through whatever follows, so that it isn't tried again and again."""

    message: str


Task = Callable[[Iterator[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Guarded:
    """A task of which bad input is a value.

    Attributes:
        task: takes what is in a partition.
        versions: of the driver's packages.
        is_keyed: whether what it gives are pairs of the partition to which they go, and something.
    """

    task: Task
    versions: dict[str, str]
    is_keyed: bool = False

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        """Run it, unless what came before it has failed.

        An error of what comes, such as that a worker is lost, is no bad input, and is Spark's to deal with.
        """
        items = iter(items)
        came = _Came(items)
        try:
            _refuse_other_versions(self.versions)
            yield from self.task(came)
        except Exception as error:
            cause = came.error or error
            if not isinstance(cause, InputError):
                raise cause from None
            failed = Failed(str(cause))
            yield (0, failed) if self.is_keyed else failed
        for _ in items:  # or Spark would start another Python for the next task
            pass


class _Came:
    """What comes to a task; raises what an earlier task has failed by.

    Where DuckDB reads it, an error comes out as one of DuckDB's, about a stream; so the error itself is kept.

    Args:
        items: what comes.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return _unless_failed(next(self._items))
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def _unless_failed(item: Any) -> Any:
    failed = item[1] if isinstance(item, tuple) else item
    if isinstance(failed, Failed):
        raise InputError(failed.message)
    return item


@cache
def versions() -> dict[str, str]:
    """Of the packages that decide bytes; those that aren't there are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _refuse_other_versions(wanted: dict[str, str]) -> None:
    there = versions()
    for package, number in wanted.items():
        if there.get(package) != number:
            raise InputError(
                f"the executors have {package} {there.get(package, 'not')}, the driver has {number}: install the same "
                "versions on all machines"
            )


def tasks(context: "SparkContext", items: Iterable[Any]) -> "RDD[Any]":
    """One partition for each item."""
    listed = list(items)
    return context.parallelize(listed, max(1, len(listed)))


def then(rdd: "RDD[Any]", task: Task) -> "RDD[Any]":
    """Run a task on each partition."""
    return rdd.mapPartitions(Guarded(task, versions()))


def shuffled(rdd: "RDD[Any]", task: Task, num_partitions: int) -> "RDD[Any]":
    """Run a task on each partition, and bring what it gives to other partitions, with their numbers.

    Args:
        rdd: the partitions.
        task: gives pairs of the number of a partition, and something that goes there.
        num_partitions: how many.
    """
    keyed = rdd.mapPartitions(Guarded(task, versions(), is_keyed=True))
    return keyed.partitionBy(max(1, num_partitions), _itself)


def _itself(key: int) -> int:
    return key


def collected(rdd: "RDD[Any]") -> list[Any]:
    """What is in all partitions, one after the other.

    Raises:
        InputError: a task met bad input, or failed otherwise, more often than Spark tries.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        found = rdd.collect()
    except (PySparkException, Py4JError) as error:
        raise InputError(f"Spark gave up: {said(error)}") from error
    failed = next((item for item in found if isinstance(item, Failed)), None)
    if failed:
        raise InputError(failed.message)
    return found


@contextmanager
def hidden_folder(folder: Path) -> Iterator[Path]:
    """A folder beside what a run makes, in which executors write; at the end it is gone.

    An executor writes nowhere else, and each attempt at a task under a name of its own, so that one which was given up
    and lives on can't harm a later run. What a killed run left is removed too; that of another run at the same time
    stays.

    Args:
        folder: in which it is; if it isn't there yet and nothing else comes into it, it isn't afterwards.
    """
    folder = folder.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with beside(folder / _HIDDEN) as hidden:
            hidden.mkdir()
            yield hidden
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def refuse_unseen(hidden: Path) -> None:
    """Refuse, on an executor, to write where the driver doesn't look.

    Args:
        hidden: see `hidden_folder`.

    Raises:
        InputError: the folder that the driver has made isn't there.
    """
    if not hidden.is_dir():
        raise InputError(
            f"the executors don't see the driver's {hidden.parent}: give folders that all machines see under the same "
            "paths"
        )


def said(error: BaseException) -> str:
    """What Spark says, in one line: the error of Python code on an executor, or the first line of another."""
    text = str(getattr(error, "java_exception", None) or error)
    python = re.findall(r"^(?:[A-Za-z_][\w.]*\.)?(\w*(?:Error|Exception|Exit)\w*: .*)$", text, re.MULTILINE)
    if "Traceback" in text and python:
        name = python[-1]
        missing = "ModuleNotFoundError" in name and "infobehavior" in name
        return one_line(name) + ("; install infobehavior on the executors" if missing else "")
    return one_line(next((line for line in text.splitlines() if line.strip()), type(error).__name__))
