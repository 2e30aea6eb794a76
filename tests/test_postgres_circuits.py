"""Circuits in PostgreSQL: what its server does to them. What all stores do is in test_breaker and test_circuits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.servers.postgres import Server, serving
from tidegate import Pipeline, Settings
from tidegate.errors import CircuitOpen, Transient
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import CircuitReport, FailureWindow
from tidegate.resilience.postgres_circuits import PostgresCircuits
from tidegate.store.live_postgres import LivePostgres
from tidegate.store.postgres_url import read_url
from tidegate.store.transactions import Connection
from tidegate.testing import ManualClock

FAILURE = Transient("api", "down")


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[LivePostgres]:
    database = LivePostgres(read_url(postgres_url))
    yield database
    await database.close()


async def open_circuit(breaker: Breaker) -> None:
    for _ in range(3):
        await (await breaker.permit()).failed(FAILURE)


async def refused(breaker: Breaker) -> float:
    with pytest.raises(CircuitOpen) as refusal:
        await breaker.permit()
    return refusal.value.retry_in


def row(connection: Connection) -> Any:
    """The place of the row and the transaction that wrote it: both change when it is written, whatever is in it."""
    return connection.execute("SELECT ctid::text, xmin::text FROM circuits").fetchone()


async def test_nothing_is_written_while_all_goes_well_unless_there_is_a_window(database: LivePostgres) -> None:
    breaker = Breaker("api", PostgresCircuits(database))
    await (await breaker.permit()).failed(FAILURE)
    await (await breaker.permit()).succeeded()
    before = await database.read(row)
    for _ in range(5):
        await (await breaker.permit()).succeeded()
        (await breaker.permit()).released()
        await breaker.report()
    assert await database.read(row) == before
    watched = Breaker("api", PostgresCircuits(database), window=FailureWindow(0.5))
    await (await watched.permit()).succeeded()
    assert await database.read(row) != before


async def test_no_commit_waits_for_the_disk_and_every_statement_is_a_transaction(postgres_url: str) -> None:
    def look(connection: Connection) -> list[Any]:
        asked = ("synchronous_commit", "transaction_isolation")
        values = [connection.execute(f"SHOW {name}").fetchone()[0] for name in asked]
        moments = {connection.execute("SELECT now()").fetchone() for _ in range(2)}
        return [*values, len(moments)]

    url = read_url(postgres_url)
    strict = make_conninfo(url.conninfo, options="-c default_transaction_isolation=serializable")
    database = LivePostgres(replace(url, conninfo=strict))
    assert await database.write(look) == ["off", "read committed", 2]
    await database.close()


async def test_the_time_is_the_servers(database: LivePostgres) -> None:
    hours_ahead = ManualClock(time.time() + 7200.0)
    circuits = PostgresCircuits(database, clock=hours_ahead)
    await open_circuit(Breaker("api", circuits, clock=hours_ahead))
    report = await circuits.read("api")
    assert report.opened_at == pytest.approx(time.time(), abs=60.0)
    assert 0.0 < report.retry_in <= 30.0


class ServerClock(ManualClock):
    """As a server tells it: there is nothing but the wall clock."""

    def monotonic(self) -> float:
        return self.now()


async def test_a_server_whose_clock_is_set_back_does_not_keep_a_circuit_open(postgres_url: str) -> None:
    of_server, ours = ServerClock(), ManualClock()
    database = LivePostgres(read_url(postgres_url), clock=of_server)
    breaker = Breaker("api", PostgresCircuits(database, clock=ours), clock=ours)

    def wait(seconds: float) -> None:
        of_server.set_back(-seconds)
        ours.advance(seconds)

    await open_circuit(breaker)
    assert await refused(breaker) == 30.0
    wait(20.0)
    of_server.set_back(15.0)
    assert await refused(breaker) == pytest.approx(10.0)
    wait(10.0)
    await breaker.permit()
    assert await refused(breaker) == 60.0
    wait(50.0)
    of_server.set_back(20.0)
    assert await refused(breaker) == pytest.approx(10.0)
    wait(10.0)
    await (await breaker.permit()).failed(FAILURE)
    assert await refused(breaker) == pytest.approx(30.0)
    wait(20.0)
    of_server.set_back(3600.0)
    assert await refused(breaker) == pytest.approx(10.0)
    newcomer = PostgresCircuits(database, clock=ours)  # to whom no clock tells how long it was
    assert (await newcomer.read("api")).admits, "better a probe too early"
    await database.close()


async def test_a_server_that_hangs_is_a_store_that_is_down(
    postgres_url: str, database: LivePostgres, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = Breaker("api", PostgresCircuits(database, patience=0.1))
    await database.open()
    with psycopg.connect(read_url(postgres_url).conninfo) as other:
        other.execute(f"LOCK TABLE {read_url(postgres_url).schema}.circuits".encode())
        await open_circuit(breaker)
        await refused(breaker)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "circuit 'api' is kept by this process alone for now" in caplog.text
    assert "did not answer within 0.1 s" in caplog.text


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        if server is None:
            pytest.skip("needs the programs of a PostgreSQL server, initdb among them")
        yield server


@pytest.mark.slow
async def test_a_server_that_goes_away_and_comes_back(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    database = LivePostgres(read_url(server.url), patience=0.1)
    circuits = PostgresCircuits(database)
    breaker = Breaker("api", circuits, clock=clock)
    await (await breaker.permit()).failed(FAILURE)
    server.stop()
    await open_circuit(breaker)
    await refused(breaker)
    assert "circuit 'api' is kept by this process alone for now: postgresql:///postgres cannot be used" in caplog.text
    await asyncio.to_thread(server.start)
    clock.advance(5.0)
    assert (await breaker.report()).failures == 1
    await breaker.force_open()
    server.stop()
    await asyncio.to_thread(server.start)
    assert (await circuits.read("api")).forced == "open"  # the first connection is lost, and made again
    await database.close()
    assert (await breaker.report()).state == "open"


async def test_pipelines_on_one_server_share_their_circuits(postgres_url: str) -> None:
    settings = Settings.read(checkpoints=postgres_url, recogniser="rules")
    async with Pipeline.open(settings) as one, Pipeline.open(settings) as other:
        await one.force_circuit("enrichment", "open")
        result = await other.run(text="The mayor of Hamburg met the mayor of Bergen.")
        assert result.status == "degraded"
        assert result.retry_in == 30.0
        await other.force_circuit("enrichment", None)
        assert await one.circuits() == [CircuitReport("enrichment", generation=2)]
        assert (await one.resume(result.thread_id)).status == "complete"
