"""Real processes and one thread: one of them runs it, and a stale one does nothing any more."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.supervisor import Supervisor
from tests.servers.enrichment import Behaviour, EnrichmentServer, Request

TEXT = "They sailed from Alta to Bergen, Cork, Dover and Essen."
FENCED = ["file", "sqlite"]  # the savers that check leases
ALL = ["file", pytest.param("sqlite", marks=pytest.mark.slow)]


class Held:
    """An API that stops at its Nth request, until it may go on; it counts the requests of each process."""

    def __init__(self) -> None:
        self.hold_at = 1
        self.arrived = threading.Event()
        self.go_on = threading.Event()
        self.requests: Counter[str] = Counter()

    def __call__(self, request: Request) -> Behaviour:
        self.requests[request.headers["x-process"]] += 1
        if self.requests.total() == self.hold_at:
            self.arrived.set()
            self.go_on.wait(20)
        return 200


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go_on.set()


@pytest.fixture
def server(held: Held) -> Iterator[EnrichmentServer]:
    with EnrichmentServer(held) as server:
        yield server


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("processes")) as supervisor:
        yield supervisor


def settings(folder: Path, saver: str, server: EnrichmentServer, process: str, **more: Any) -> dict[str, Any]:
    url = f"file:///{folder}/kept" if saver == "file" else f"sqlite:///{folder}/kept.db"
    headers = {"X-Process": process}
    enrichment = {"adapter": "http", "url": server.url, "concurrency": 1, "batch_size": 1, "headers": headers}
    return {"checkpoints": url, "enrichment": enrichment, **more}


@pytest.mark.parametrize("saver", ALL)
def test_of_two_processes_that_resume_a_thread_exactly_one_runs(
    tmp_path: Path, supervisor: Supervisor, server: EnrichmentServer, held: Held, saver: str
) -> None:
    children = [supervisor.start(settings(tmp_path, saver, server, name), {"t": TEXT}) for name in "ab"]
    assert held.arrived.wait(20)
    first, second = children if held.requests["a"] else reversed(children)
    assert second.wait() == 0
    assert second.results == {"t": "ThreadBusy"}
    held.go_on.set()
    assert first.wait() == 0
    assert first.results["t"]["status"] == "complete"
    assert sorted(server.texts) == ["Alta", "Bergen", "Cork", "Dover", "Essen", "They"]
    assert len(held.requests) == 1


@pytest.mark.parametrize("saver", ALL)
def test_a_process_that_was_killed_is_taken_over_at_once(
    tmp_path: Path, supervisor: Supervisor, server: EnrichmentServer, held: Held, saver: str
) -> None:
    killed = supervisor.start(settings(tmp_path, saver, server, "a"), {"t": TEXT})
    assert held.arrived.wait(20)
    killed.kill()
    held.go_on.set()
    heir = supervisor.start(settings(tmp_path, saver, server, "b"), {"t": None})  # while the other is still a zombie
    assert heir.wait() == 0
    assert heir.results["t"]["status"] == "complete"
    assert killed.wait() == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("saver", FENCED)
@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("hold_at", [1, 4])
def test_a_process_that_was_stopped_past_its_lease_writes_nothing_and_starts_no_call(
    tmp_path: Path,
    supervisor: Supervisor,
    server: EnrichmentServer,
    held: Held,
    saver: str,
    journal: bool,
    hold_at: int,
) -> None:
    held.hold_at = hold_at
    options: dict[str, Any] = {"lease_ttl": 1.0, "journal": {"enabled": journal}}
    stopped = supervisor.start(settings(tmp_path, saver, server, "stale", **options), {"t": TEXT})
    assert held.arrived.wait(20)
    time.sleep(0.3)  # until the branches that were answered are saved
    stopped.kill(signal.SIGSTOP)
    held.go_on.set()
    results: list[Any] = []
    while not results or results[-1] == "ThreadBusy":
        heir = supervisor.start(settings(tmp_path, saver, server, "heir", **options), {"t": None})
        assert heir.wait() == 0
        results.append(heir.results["t"])
    assert results[0] == "ThreadBusy"
    assert results[-1]["status"] == "complete"
    before, requests = kept(tmp_path), held.requests["stale"]
    stopped.kill(signal.SIGCONT)
    assert stopped.wait() == 0
    assert stopped.results == {"t": "LeaseLost"}
    assert held.requests["stale"] == requests == hold_at
    assert kept(tmp_path) == before


def kept(folder: Path) -> dict[str, Any]:
    """Return all that is stored: the files, and the rows of the databases."""
    found: dict[str, Any] = {str(path): path.read_bytes() for path in folder.glob("kept/threads/**/*.json")}
    for path in [*folder.glob("kept/store.db"), *folder.glob("kept*.db")]:
        with closing(sqlite3.connect(path)) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                found[f"{path}:{table}"] = database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    return found
