"""The promise, literally: a real API fails, the pipeline goes around it, says so, and heals when it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tidegate import Pipeline, Settings
from tidegate.errors import CircuitOpen
from tidegate.testing import ManualClock

TEXT = "Mr Arne Lund met Ms Berta Moe, Dr Carl Nygaard, Mrs Dina Olsen, Mr Egil Pran and Ms Frida Quist."
NAMES = ["Arne Lund", "Berta Moe", "Carl Nygaard", "Dina Olsen", "Egil Pran", "Frida Quist"]


@asynccontextmanager
async def pipeline(
    folder: Path, server: EnrichmentServer, clock: ManualClock, **enrichment: Any
) -> AsyncIterator[Pipeline]:
    section = {"adapter": "http", "url": server.url, "types": ["PERSON"], "concurrency": 1, "batch_size": 2}
    settings = Settings.read(
        checkpoints=f"sqlite:///{folder}/tidegate.db", recogniser="rules", enrichment={**section, **enrichment}
    )
    async with Pipeline.open(settings, clock=clock) as opened:
        yield opened


async def test_the_api_fails_is_gone_around_and_comes_back(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer() as server:
        server.down(503)
        async with pipeline(tmp_path, server, clock) as tidegate:
            first = await tidegate.run(text=TEXT, name="minutes.txt", thread_id="minutes")
        assert len(server.requests) == 3  # the third failure opens the circuit, and no attempt starts after it
        assert any(pause > 0 for pause in clock.slept)
        assert (first.status, first.revision, len(first.missing)) == ("degraded", 1, 6)
        assert all(item.retryable and item.why for item in first.missing)
        assert first.text

        async with pipeline(tmp_path, server, clock) as tidegate:  # another process could be doing this
            again = await tidegate.resume("minutes")
        assert (again.status, again.revision) == ("degraded", 1)
        assert again.retry_in is not None
        assert 0 < again.retry_in <= 30
        assert len(server.requests) == 3

        server.up()
        clock.advance(31.0)
        server.requests.clear()
        async with pipeline(tmp_path, server, clock) as tidegate:
            healed = await tidegate.resume("minutes")
        assert (healed.status, healed.revision, healed.missing) == ("complete", 2, ())
        assert sorted(server.texts) == NAMES
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("policy", ["degrade", "wait", "fail"])
async def test_an_outage_that_begins_in_the_middle_of_the_fan_out(tmp_path: Path, policy: str) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer([200, 200], then=503) as server:
        async with pipeline(tmp_path, server, clock, when_open=policy) as tidegate:
            if policy == "fail":
                with pytest.raises(CircuitOpen):
                    await tidegate.run(text=TEXT, thread_id="minutes")
                stopped = await tidegate.inspect("minutes")
                assert stopped.status == "unfinished"
            else:
                stopped = await tidegate.run(text=TEXT, thread_id="minutes")
                assert stopped.status == {"degrade": "degraded", "wait": "waiting"}[policy]
            assert len(server.requests) == 5
            found = [record for record in stopped.enrichments.values() if record.status == "enriched"]
            assert len(found) == 2

            server.follow(())
            server.requests.clear()
            clock.advance(31.0)
            healed = await tidegate.resume("minutes")
            assert (healed.status, healed.revision) == ("complete", 2 if policy == "degrade" else 1)
            assert len(server.requests) == 4


async def test_a_half_open_circuit_sends_one_request_though_many_are_missing(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer(then=503) as server:
        async with pipeline(tmp_path, server, clock, concurrency=8, batch_size=1) as tidegate:
            await tidegate.run(text=TEXT, thread_id="minutes")
            assert 3 <= len(server.requests) <= 3 + 7
            server.requests.clear()
            clock.advance(31.0)
            still = await tidegate.resume("minutes")
            assert len(server.requests) == 1
            assert (still.status, still.revision) == ("degraded", 1)


async def test_the_circuit_is_shared_by_the_threads_of_a_machine(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer(then=503) as server:
        async with pipeline(tmp_path, server, clock) as tidegate:
            await tidegate.run(text=TEXT, thread_id="first")
        async with pipeline(tmp_path, server, clock) as tidegate:
            second = await tidegate.run(text=TEXT, thread_id="second")
            assert len(server.requests) == 3
            assert (second.status, len(second.missing)) == ("degraded", 6)
            assert [(report.name, report.state) for report in await tidegate.circuits()] == [("enrichment", "open")]


async def test_an_api_that_fails_now_and_then_opens_the_circuit_by_its_failure_rate(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer([200, 503] * 3) as server:
        rate = {"failure_rate": 0.5, "failure_rate_minimum": 4}
        async with pipeline(tmp_path, server, clock, attempts=1, **rate) as tidegate:
            result = await tidegate.run(text=TEXT, thread_id="minutes")
            assert [report.state for report in await tidegate.circuits()] == ["open"]
    assert len(server.requests) == 4
    assert (result.status, len(result.missing)) == ("degraded", 4)
