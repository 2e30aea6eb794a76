"""What every test may ask for, and the rule that the gate skips nothing."""

from __future__ import annotations

import dis
import functools
import gc
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.postgres import POSTGRES
from tidegate.store.database import Database
from tidegate.store.schema import SERVER_STORE, STORE
from tidegate.store.transactions import Store
from tidegate.testing import ManualClock

NO_SKIP = "TIDEGATE_TEST_NO_SKIP"
"""Where this variable is set, a skipped test has failed: everything that a test may need is said to be there."""

FORBIDDEN = "not allowed on this machine: "
"""How the reason begins where nothing can be installed to mend it, as in a container that may mount nothing."""

DOCUMENTS = "TIDEGATE_TEST_DOCUMENTS"
"""The folder of real documents, which are not in this repository."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # `make coverage` measures the workers. Programs that tests start run as they do elsewhere: measuring them imports
    # modules that they must not import by themselves, and takes time.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# A shell has what it runs beside it ignore Ctrl-C; the programs that tests start, and send it to, would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where the environment forbids to keep bytecode, as in many containers, each worker and each program that a test starts
# would compile all tests and all of Tidegate anew: 6 s a worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    """Have bytecode read once: LangGraph (1.2.22) reads that of all steps whenever a graph is compiled, as most tests
    do, and takes half of the time for it.
    """
    known = functools.cache(lambda code, **options: list(_instructions(code, **options)))
    _instructions = dis.get_instructions
    patch = pytest.MonkeyPatch()
    patch.setattr(dis, "get_instructions", lambda code, **options: iter(known(code, **options)))
    config.add_cleanup(patch.undo)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all that was imported, again and again."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one worker more than there are processors: tests wait for disks, servers and other processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def documents() -> Path:
    """The folder of real documents."""
    folder = os.environ.get(DOCUMENTS)
    if not folder:
        pytest.skip(f"needs real documents; name their folder in {DOCUMENTS}")
    return Path(folder)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of a schema of the test's own, dropped afterwards."""
    server = os.environ.get(POSTGRES)
    if not server:
        pytest.skip(f"needs a PostgreSQL server; name its URL in {POSTGRES}")
    import psycopg

    schema = f"test_{uuid.uuid4().hex[:16]}"
    yield f"{server}{'&' if '?' in server else '?'}schema={schema}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take away what a command set up: it would write to the stderr of its test, which is closed after that."""
    root, httpx = logging.getLogger(), logging.getLogger("httpx")
    before = root.handlers[:], root.level, httpx.level
    yield
    root.handlers[:], level, of_httpx = before
    root.setLevel(level)
    httpx.setLevel(of_httpx)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that goes on when the test says so."""
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """A store, of each kind in turn."""
    database: Any
    if request.param == "sqlite":
        database = Database(tmp_path / "store.db", STORE, clock=clock)
    else:
        url = request.getfixturevalue("postgres_url")
        from tidegate.store.postgres import PostgresDatabase
        from tidegate.store.postgres_url import read_url

        database = PostgresDatabase(read_url(url), SERVER_STORE, clock=clock)
    await database.open()
    yield database
    await database.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _forbid_skipping(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skipping(report)
    return report


def _forbid_skipping(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get(NO_SKIP):
        reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        if reason.removeprefix("Skipped: ").startswith(FORBIDDEN):
            return
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIP} is set, and this was skipped: {reason}"
