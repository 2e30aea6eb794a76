"""Processes that share a circuit meet an outage: together they send a dead service no more than one process would."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.supervisor import Supervisor
from tests.servers.enrichment import EnrichmentServer

PROCESSES = 4
RESET_TIMEOUT = 1.0
NAMES = [a + b + c for a in "BCDF" for b in "aeiou" for c in ("lan", "mor")]
DOCUMENTS = [{f"d{n}": f"in {' and '.join(NAMES[10 * n : 10 * (n + 1)])} it rained."} for n in range(PROCESSES)]


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("processes")) as supervisor:
        yield supervisor


@pytest.fixture
def server() -> Iterator[EnrichmentServer]:
    with EnrichmentServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "file", "postgres"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/t.db" if request.param == "sqlite" else f"file:///{tmp_path}/kept"


def settings(checkpoints: str, server: EnrichmentServer, **enrichment: Any) -> dict[str, Any]:
    section = {"adapter": "http", "url": server.url, "types": ["LOC"], "batch_size": 2, "backoff_initial": 0.0}
    return {"checkpoints": checkpoints, "enrichment": {**section, **enrichment}}


@pytest.mark.slow
def test_processes_one_after_the_other_send_three_requests_in_all(
    checkpoints: str, supervisor: Supervisor, server: EnrichmentServer
) -> None:
    server.down(503)
    for documents in DOCUMENTS:
        child = supervisor.start(settings(checkpoints, server, concurrency=1, reset_timeout=300.0), documents)
        assert child.wait() == 0
        assert [result["status"] for result in child.results.values()] == ["degraded"]
    assert len(server.requests) == 3


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
def test_processes_side_by_side_send_three_requests_and_what_was_on_its_way_and_then_a_probe_at_a_time(
    checkpoints: str, supervisor: Supervisor, server: EnrichmentServer, concurrency: int
) -> None:
    """When the third failure is recorded, the other `PROCESSES x concurrency - 1` may be on their way."""
    most = 3 + PROCESSES * concurrency - 1
    server.down(503)
    limits = {"concurrency": concurrency, "reset_timeout": RESET_TIMEOUT}
    chosen = {**settings(checkpoints, server, **limits), "max_visits": 1000}
    children = [supervisor.start(chosen, documents, persist=True) for documents in DOCUMENTS]
    server.wait_for(3)
    reset = server.requests[2].at + RESET_TIMEOUT  # at the earliest: a failure is recorded after its request
    while len([request for request in server.requests if request.at >= reset]) < 3:
        server.wait_for(len(server.requests) + 1)
    at = [request.at for request in server.requests]
    server.up()
    assert [child.wait() for child in children] == [0] * PROCESSES
    statuses = [result["status"] for child in children for result in child.results.values()]
    assert statuses == ["complete"] * PROCESSES

    first = [moment for moment in at if moment < reset]
    probes = at[len(first) :]
    assert 3 <= len(first) <= most
    assert all(later - earlier >= RESET_TIMEOUT - 0.005 for earlier, later in pairwise(probes))
