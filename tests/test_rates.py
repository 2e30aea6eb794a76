"""Token buckets: in memory, shared by the processes of a machine, shared by all workers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.servers.enrichment import EnrichmentServer
from tidegate.errors import StoreUnavailable
from tidegate.resilience.rates import MemoryRates, Rate, Rates, SharedRates, Token
from tidegate.store.live import LiveDatabase
from tidegate.store.transactions import STORE_PAUSE, WARNING_PAUSE
from tidegate.testing import ManualClock

TEN_A_SECOND = Rate(10.0, 3, longest=60.0)


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(1000.0)
    return clock


@pytest.fixture
async def live(tmp_path: Path, clock: ManualClock) -> AsyncIterator[LiveDatabase]:
    live = LiveDatabase(tmp_path / "tidegate-live.db", clock=clock)
    yield live
    await live.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def rates(request: pytest.FixtureRequest, clock: ManualClock, live: LiveDatabase) -> AsyncIterator[Rates]:
    if request.param == "memory":
        yield MemoryRates(clock)
    elif request.param == "sqlite":
        yield SharedRates(live, clock=clock)
    else:
        url = request.getfixturevalue("postgres_url")
        from tidegate.store.live_postgres import LivePostgres
        from tidegate.store.postgres_url import read_url

        database = LivePostgres(read_url(url), clock=clock)
        yield SharedRates(database, clock=clock)
        await database.close()


async def waits(rates: Rates, count: int, *, rate: Rate = TEN_A_SECOND, patience: float = 60.0) -> list[float | None]:
    taken = [await rates.take("api", rate, patience=patience) for _ in range(count)]
    return [None if token is None else round(token.wait, 6) for token in taken]


async def test_after_a_burst_tokens_come_one_interval_apart(rates: Rates, clock: ManualClock) -> None:
    assert await waits(rates, 6) == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]
    clock.advance(0.25)
    assert await waits(rates, 1) == [0.15]
    clock.advance(100.0)
    assert await waits(rates, 5) == [0.0, 0.0, 0.0, 0.1, 0.2]


async def test_a_token_that_comes_too_late_is_not_taken(rates: Rates) -> None:
    assert await waits(rates, 9, patience=0.25) == [0.0, 0.0, 0.0, 0.1, 0.2, None, None, None, None]
    assert await waits(rates, 1) == [0.3]


async def test_each_service_has_its_own_bucket(rates: Rates) -> None:
    await waits(rates, 5)
    token = await rates.take("another", TEN_A_SECOND, patience=1.0)
    assert token
    assert token.wait == 0.0


async def test_a_pause_holds_all_tokens_and_they_come_one_at_a_time_after_it(rates: Rates, clock: ManualClock) -> None:
    await waits(rates, 1)
    rates.hold("api", TEN_A_SECOND, 20.0)
    assert await waits(rates, 3) == [20.0, 20.1, 20.2]
    rates.hold("api", TEN_A_SECOND, 5.0)  # of two pauses the longer holds
    assert await waits(rates, 1) == [20.3]
    clock.advance(100.0)
    rates.hold("api", TEN_A_SECOND, 5.0)
    assert await waits(rates, 1) == [5.0]


async def test_a_pause_before_the_first_call_holds_too(rates: Rates) -> None:
    rates.hold("api", TEN_A_SECOND, 5.0)
    assert await waits(rates, 2) == [5.0, 5.1]


async def test_a_bucket_of_before_a_restart_of_the_machine_holds_nobody(live: LiveDatabase, clock: ManualClock) -> None:
    await waits(SharedRates(live, clock=clock), 5)
    await live.close()
    restarted = ManualClock()
    database = LiveDatabase(live.path, clock=restarted)
    rates = SharedRates(database, clock=restarted)
    assert await waits(rates, 4) == [0.0, 0.0, 0.0, 0.1]
    await database.close()


async def test_without_its_store_a_process_counts_for_itself_and_says_so(
    live: LiveDatabase, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await live.close()
    rates = SharedRates(live, clock=clock)
    with caplog.at_level(logging.WARNING):
        assert await waits(rates, 5) == [0.0, 0.0, 0.0, 0.1, 0.2]
        rates.hold("api", TEN_A_SECOND, 5.0)
        assert await waits(rates, 1) == [5.0]
    assert "the rate of 'api' is kept by this process alone" in caplog.text
    before = len(caplog.records)
    clock.advance(STORE_PAUSE)
    await waits(rates, 3)
    assert len(caplog.records) == before == 1
    clock.advance(WARNING_PAUSE)
    await waits(rates, 3)
    assert len(caplog.records) == before + 1  # it was tried again, once


async def test_a_database_that_comes_back_is_used_again_after_a_pause(
    live: LiveDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def lost(_: object) -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailable("no connection")

    rates = SharedRates(live, clock=clock)
    with monkeypatch.context() as patched:
        patched.setattr(live, "write", lost)
        await waits(rates, 3)
    clock.advance(STORE_PAUSE - 0.1)
    await waits(rates, 3)
    assert (tries, await waits(SharedRates(live, clock=clock), 1)) == (1, [0.0])
    clock.advance(0.1)
    await waits(rates, 3)
    assert await waits(SharedRates(live, clock=clock), 1) == [pytest.approx(0.1)]


async def taken(rates: Rates, count: int) -> list[Token]:
    return [token for _ in range(count) if (token := await rates.take("api", TEN_A_SECOND, patience=60.0))]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_tokens_given_back_in_any_order_leave_the_bucket_as_if_they_had_not_been_taken(
    rates: Rates, clock: ManualClock, order: tuple[int, ...]
) -> None:
    await waits(rates, 4)
    tokens = await taken(rates, 3)
    for place in order:
        rates.give_back("api", TEN_A_SECOND, tokens[place])
    assert await waits(rates, 2) == [0.2, 0.3]


async def test_tokens_given_back_by_a_process_that_ends_are_free_for_others(
    live: LiveDatabase, clock: ManualClock
) -> None:
    here, there = SharedRates(live, clock=clock), SharedRates(live, clock=clock)
    await waits(there, 4)
    for token in await taken(here, 50):
        here.give_back("api", TEN_A_SECOND, token)
    assert await waits(there, 1) == [0.2]


async def test_a_token_given_back_while_others_took_later_ones_goes_to_the_next_caller_of_the_process(
    rates: Rates, clock: ManualClock
) -> None:
    await waits(rates, 3)
    first, second, _ = await taken(rates, 3)
    rates.give_back("api", TEN_A_SECOND, second)
    rates.give_back("api", TEN_A_SECOND, first)
    clock.advance(0.15)  # the time of the first is over
    assert await waits(rates, 1) == [0.05]
    assert await waits(rates, 1) == [0.25]


async def test_a_token_given_back_is_not_used_in_a_pause(rates: Rates) -> None:
    await waits(rates, 3)
    first, _ = await taken(rates, 2)
    rates.hold("api", TEN_A_SECOND, 5.0)
    rates.give_back("api", TEN_A_SECOND, first)
    assert await waits(rates, 2) == [5.0, 5.1]


async def test_a_token_of_the_time_without_a_store_is_given_back_too(live: LiveDatabase, clock: ManualClock) -> None:
    await live.close()
    rates = SharedRates(live, clock=clock)
    await waits(rates, 3)
    (token,) = await taken(rates, 1)
    rates.give_back("api", TEN_A_SECOND, token)
    assert await waits(rates, 1) == [0.1]


async def test_a_token_of_the_store_can_be_given_back_when_that_was_closed(
    live: LiveDatabase, clock: ManualClock
) -> None:
    rates = SharedRates(live, clock=clock)
    await waits(rates, 3)
    (token,) = await taken(rates, 1)
    await live.close()
    rates.give_back("api", TEN_A_SECOND, token)


async def test_a_caller_cancelled_while_it_takes_a_token_loses_one_at_most(
    live: LiveDatabase, clock: ManualClock
) -> None:
    rates = SharedRates(live, clock=clock)
    await waits(rates, 3)
    taking = asyncio.create_task(rates.take("api", TEN_A_SECOND, patience=60.0))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert await waits(rates, 1) in ([0.1], [0.2])


@settings(max_examples=200, deadline=None)
@given(
    per_second=st.sampled_from([0.1, 1.0, 3.0, 50.0]),
    burst=st.integers(1, 8),
    moves=st.lists(
        st.tuples(st.floats(0.0, 5.0), st.integers(0, 12), st.floats(0.01, 30.0), st.lists(st.integers(0, 20))),
        max_size=15,
    ),
    window=st.floats(0.05, 20.0),
)
def test_no_window_of_time_sees_more_than_rate_and_burst(
    per_second: float, burst: int, moves: list[tuple[float, int, float, list[int]]], window: float
) -> None:
    async def main() -> None:
        clock = ManualClock()
        rates = MemoryRates(clock)
        rate = Rate(per_second, burst, longest=60.0)
        out: list[Token] = []
        for pause, calls, patience, given_back in moves:
            for _ in range(calls):
                token = await rates.take("api", rate, patience=patience)
                if token is not None:
                    assert token.wait < patience
                    out.append(token)
            for place in given_back:
                if place < len(out) and out[place].due > clock.monotonic():
                    rates.give_back("api", rate, out.pop(place))
            clock.advance(pause)
        used = sorted(token.due for token in out)
        for begin in used:
            assert sum(begin <= moment < begin + window - 1e-6 for moment in used) <= burst + per_second * window

    asyncio.run(main())


CALLER = """
import asyncio, sys
from tidegate.services import http
from tidegate.resilience.guard import Guard
from tidegate.resilience.rates import SharedRates
from tidegate.store.live import LiveDatabase

async def main(store, url, calls, rate, burst):
    if store.startswith("postgresql://"):
        from tidegate.store.live_postgres import LivePostgres
        from tidegate.store.postgres_url import read_url
        database = LivePostgres(read_url(store))
    else:
        database = LiveDatabase(store)
    await database.open()
    guard = Guard.for_service(
        "api", rates=SharedRates(database), concurrency=8, rate=float(rate), burst=int(burst), budget=60.0
    )
    clients = http.Clients(timeout=10.0)

    async def call(attempt, path=""):
        async with clients.lent() as client:
            await http.exchange(client, client.build_request("GET", url + path), max_bytes=1000)

    await asyncio.gather(*(call(1, "/warm") for _ in range(8)))
    print("ready", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(guard.call(call) for _ in range(int(calls))))
    await clients.aclose()
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_the_rate_holds_over_four_processes_by_the_servers_clock(
    request: pytest.FixtureRequest, store: str, tmp_path: Path
) -> None:
    where = request.getfixturevalue("postgres_url") if store == "postgres" else str(tmp_path / "tidegate-live.db")
    # A request may arrive later than it left by less than an interval, here 0.2 s: so much the server cannot tell.
    rate, burst, calls = 5, 5, 12
    with EnrichmentServer() as server:
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                CALLER,
                where,
                server.url,
                str(calls),
                str(rate),
                str(burst),
                stdin=PIPE,
                stdout=PIPE,
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        begun = time.monotonic()
        await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        assert {process.returncode for process in processes} == {0}
        arrived = [request.at for request in server.requests if not request.path.endswith("/warm")]
    assert len(arrived) == 4 * calls
    most = max(sum(first <= moment < first + 1.0 for moment in arrived) for first in arrived)
    assert most <= rate + burst
    assert arrived[-1] - begun < (4 * calls - burst) / rate + 1.0  # and the rate is used
