"""The relay: results reach sinks at least once, and a sink that is dead holds up no other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.engines import Bench, bench, until
from tests.servers.receiver import Hook, Receiver, receiving
from tidegate.engine.patience import POLL
from tidegate.errors import CircuitOpen, Permanent, RateLimited, Refused, StoreUnavailable
from tidegate.settings.delivery import SINK
from tidegate.sinks.delivery import CLAIM, Relay
from tidegate.sinks.port import Sink
from tidegate.store.inbox import Envelope
from tidegate.store.outbox import Delivery, Outbox
from tidegate.telemetry import metrics

SERVE = {"max_deliveries": 3, "retry_initial": 10.0, "retry_max": 100.0}


class Scripted:
    """A sink that does what the test says."""

    def __init__(self, name: str, act: Callable[[Delivery], Awaitable[None]]) -> None:
        self.name = name
        self._act = act

    async def deliver(self, delivery: Delivery) -> None:
        await self._act(delivery)

    async def aclose(self) -> None:
        """Nothing was opened."""


@pytest.fixture
async def here() -> AsyncIterator[Bench]:
    sinks = tuple({"kind": "file", "name": name, "path": "out"} for name in ("hook", "other"))
    async with bench(serve=SERVE, sink=sinks) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@asynccontextmanager
async def relaying(here: Bench, *sinks: Sink, claim: float = CLAIM) -> AsyncIterator[Relay]:
    """Run a relay, and close what it delivers to."""
    relay = Relay(here.pipeline, sinks, claim=claim, clock=here.clock, random=random.Random(3))  # noqa: S311
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        for sink in sinks:
            await sink.aclose()


async def publish(here: Bench, *numbers: int) -> list[str]:
    """Put in a result of a thread each; return their IDs."""
    ids = []
    for number in numbers:
        event = Envelope(source="test", id=f"{number}", data=b"d", name="n")
        taken = await here.pipeline.inbox.accept(event)
        write = await here.pipeline.outbox.writing(taken.thread_id, 1, {"words": "of the document"})
        assert write is not None
        await here.pipeline._wired.store.write(write)
        here.clock.advance(0.001)
        ids.append(f"{taken.thread_id}:1")
    here.pipeline.outbox.told()
    return ids


async def passing(here: Bench, condition: Callable[[], object], step: float = 5.0) -> float:
    """Let time pass until something holds; return for how many seconds."""
    began = here.clock.monotonic()

    async def holds() -> object:
        if condition():
            return True
        here.clock.advance(step)
        await asyncio.sleep(0.005)
        return False

    await until(holds)
    return here.clock.monotonic() - began


async def rest(here: Bench, relay: Relay) -> None:
    """Return once nothing is being delivered and the relay sleeps: what it does takes none of the time that passes."""
    await until(lambda: here.clock.sleeping and not any(queue._running for queue in relay._queues))


async def undelivered(here: Bench, sink: str) -> tuple[int, int, str | None]:
    found = (await here.pipeline.outbox.undelivered()).get(sink)
    return (found.waiting, found.given_up, found.error) if found else (0, 0, None)


async def test_results_are_delivered_as_they_come(here: Bench, receiver: Receiver) -> None:
    async with relaying(here, Hook("hook", receiver)):
        ids = await publish(here, 1, 2, 3)
        await until(lambda: sorted(receiver.got) == sorted(ids))
        here.work()
        [receipt] = await here.submit("One in Cairo.")
        await until(lambda: f"{receipt.thread_id}:1" in receiver.got)
        await until(lambda: not receiver.in_flight)

        async def nothing_left() -> bool:
            return await undelivered(here, "hook") == (0, 0, None)

        await until(nothing_left)
    assert len(receiver.got) == 4
    assert await undelivered(here, "other") == (4, 0, None), "nobody delivers those"


@pytest.mark.parametrize("failure", ["HTTP 500", "HTTP 400", "HTTP 404", "reset", "cut off", "no HTTP", "nobody there"])
async def test_a_delivery_that_fails_is_made_again_after_pauses_and_given_up_in_the_end(
    here: Bench, receiver: Receiver, failure: str
) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-len" if failure == "cut off" else b"SSH-2.0\r\n\r\n")
        await writer.drain()

    if failure.startswith("HTTP"):
        receiver.status = int(failure.split()[1])
    elif failure == "nobody there":
        receiver.url = "http://127.0.0.1:9"
    else:
        receiver.fails = reset if failure == "reset" else say
    tries: list[float] = []
    hook = Hook("hook", receiver)

    async def deliver(delivery: Delivery) -> None:
        tries.append(here.clock.monotonic())
        await hook.deliver(delivery)

    async with relaying(here, Scripted("hook", deliver)) as relay:
        await publish(here, 1)
        await until(lambda: tries)
        over = False

        async def given_up() -> bool:
            return (await undelivered(here, "hook"))[1] == 1

        async def look() -> bool:
            nonlocal over
            await rest(here, relay)
            here.clock.advance(1.0)
            over = await given_up()
            return over

        await until(look)
        assert len(tries) == SERVE["max_deliveries"]
        assert 5.0 <= tries[1] - tries[0] <= 13.0
        assert 10.0 <= tries[2] - tries[1] <= 33.0, "its circuit may be open by now"
        waiting, _, error = await undelivered(here, "hook")
        assert waiting == 0
        assert error is not None
        assert "document" not in error
        here.clock.advance(1000.0)
        receiver.status, receiver.fails = 200, None
        assert await here.pipeline.outbox.retry() == 1
        if failure != "nobody there":
            await passing(here, lambda: receiver.got)
    await hook.aclose()


async def test_a_sink_that_hangs_holds_up_no_other_and_gets_only_so_many_at_once(
    here: Bench, receiver: Receiver
) -> None:
    receiver.held = asyncio.Event()
    async with receiving() as well, relaying(here, Hook("hook", receiver), Hook("other", well)) as relay:
        ids = await publish(here, *range(12))
        await until(lambda: sorted(well.got) == sorted(ids) and receiver.in_flight == SINK.concurrency)
        assert receiver.got == []
        for _ in range(5):
            relay.wake()
            await asyncio.sleep(0.02)
        assert len(relay._queues[0]._running) == SINK.concurrency, "no more is claimed than can be delivered"
        receiver.held.set()
        await until(lambda: sorted(receiver.got) == sorted(ids))
        assert receiver.most == SINK.concurrency


async def test_while_the_circuit_is_open_nothing_is_tried_and_one_delivery_is_the_probe(
    here: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status = 503
    claim, claims = Outbox.claim, 0

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal claims
        claims += 1
        return await claim(*arguments, **options)

    monkeypatch.setattr(Outbox, "claim", counted)
    tried: list[str] = []
    hook = Hook("hook", receiver)

    async def deliver(delivery: Delivery) -> None:
        tried.append(delivery.id)
        await hook.deliver(delivery)

    async with relaying(here, Scripted("hook", deliver)):
        ids = await publish(here, *range(10))

        async def is_open() -> bool:
            return any(each.name == "sink-hook" and each.state == "open" for each in await here.pipeline.circuits())

        await until(is_open)
        await until(lambda: not receiver.in_flight)
        here.clock.advance(POLL)
        await asyncio.sleep(0.05)
        before, claimed = len(tried), claims
        assert before <= SINK.concurrency + SINK.failure_threshold
        for _ in range(5):
            here.clock.advance(POLL)
            await asyncio.sleep(0.02)
        assert (len(tried), claims) == (before, claimed), "nothing is claimed to no end"
        await passing(here, lambda: len(tried) > before)
        await until(lambda: not receiver.in_flight)
        assert len(tried) == before + 1, "the probe"
        receiver.status = 200
        await passing(here, lambda: sorted(receiver.got) == sorted(ids))
    await hook.aclose()


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpen("hook", retry_in=20.0),
        RateLimited("hook", "answered 429", retry_after=20.0),
        Refused("hook", "answered 401"),
    ],
)
async def test_what_says_nothing_about_a_delivery_gives_none_up(here: Bench, error: Exception) -> None:
    tries = 0

    async def deliver(_: Delivery) -> None:
        nonlocal tries
        tries += 1
        if tries <= 6:
            raise error

    async with relaying(here, Scripted("hook", deliver)):
        await publish(here, 1)
        seconds = await passing(here, lambda: tries > 6)
        assert seconds >= 6 * 5.0

        async def delivered() -> bool:
            return await undelivered(here, "hook") == (0, 0, None)

        await until(delivered)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (RuntimeError("words of the document"), "RuntimeError"),
        (OSError(28, "No space left on device", "/out/words of the document"), "transient: No space left on device"),
        (Permanent("whatever it calls itself", "answered 400"), "permanent: answered 400"),
    ],
)
async def test_what_is_kept_and_told_of_a_failure_holds_no_words_of_the_document(
    here: Bench, caplog: pytest.LogCaptureFixture, error: Exception, kept: str
) -> None:
    async def deliver(_: Delivery) -> None:
        raise error

    async with relaying(here, Scripted("hook", deliver)):
        await publish(here, 1)

        async def failed() -> bool:
            return (await undelivered(here, "hook"))[2] is not None

        await until(failed)
        assert await undelivered(here, "hook") == (1, 0, kept)
    assert "words of the document" not in caplog.text
    assert kept.rpartition(": ")[2] in caplog.text


async def test_a_relay_that_is_told_to_stop_ends_what_it_has_begun(here: Bench, receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    hook = Hook("hook", receiver)
    relay = Relay(here.pipeline, [hook], clock=here.clock)
    running = asyncio.create_task(relay.run())
    ids = await publish(here, *range(6))
    await until(lambda: receiver.in_flight == SINK.concurrency)
    relay.stop()
    await asyncio.wait([running], timeout=0.05)
    assert not running.done()
    receiver.held.set()
    await running
    assert sorted(receiver.got) == sorted(ids[:4])
    assert await undelivered(here, "hook") == (2, 0, None)
    await hook.aclose()


async def test_what_a_relay_had_begun_when_it_was_cancelled_is_due_at_once(here: Bench, receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    async with relaying(here, Hook("hook", receiver)):
        await publish(here, 1)
        await until(lambda: receiver.in_flight)
    assert await here.pipeline.outbox.pause_left("hook") == 0.0
    [delivery] = await here.pipeline.outbox.claim("hook", limit=1, seconds=60.0)
    assert delivery.attempts == 1


async def test_a_store_that_is_away_stops_no_relay(
    here: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, asked = Outbox.claim, 0

    async def away(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("the server restarts")

    monkeypatch.setattr(Outbox, "claim", away)
    async with relaying(here, Hook("hook", receiver)) as relay:
        ids = await publish(here, 1)
        for _ in range(100):
            await rest(here, relay)
            relay.wake()
            here.clock.advance(POLL)
        assert 4 <= asked <= 8
        monkeypatch.setattr(Outbox, "claim", claim)
        await passing(here, lambda: receiver.got == ids)


async def test_a_delivery_that_cannot_be_recorded_is_made_again_when_its_claim_is_over(
    here: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, lost = Outbox.delivered, asyncio.Event()

    async def away(*_: Any) -> None:
        lost.set()
        raise StoreUnavailable("the server restarts")

    monkeypatch.setattr(Outbox, "delivered", away)
    async with relaying(here, Hook("hook", receiver)):
        [id_] = await publish(here, 1)
        await lost.wait()
        monkeypatch.setattr(Outbox, "delivered", recorded)
        assert await passing(here, lambda: len(receiver.got) == 2) >= CLAIM - 10.0
        assert receiver.got == [id_, id_], "at least once, under the same ID"


async def test_an_idle_relay_looks_once_a_poll_and_no_more(
    here: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, asked = Outbox.claim, 0

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return await claim(*arguments, **options)

    monkeypatch.setattr(Outbox, "claim", counted)
    async with relaying(here, Hook("hook", receiver)):
        await until(lambda: asked)
        await asyncio.sleep(0.1)
        assert asked == 1
        await here.clock.until_sleeping(1)
        here.clock.advance(POLL)
        await until(lambda: asked == 2)


async def test_the_meter_counts_deliveries_and_what_is_left_by_sink(
    here: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Any, Any]] = []

    class Instrument:
        def __init__(self, name: str) -> None:
            self.name = name

        def add(self, number: int, labels: Any) -> None:
            told.append((self.name, number, labels))

        set = add

    for name in ("deliveries", "deliveries_waiting", "deliveries_given_up"):
        monkeypatch.setattr(metrics, name, Instrument(name))
    async with relaying(here, Hook("hook", receiver)):
        await publish(here, 1)
        by_sink = {"tidegate.sink.name": "hook"}
        delivered = ("deliveries", 1, by_sink | {"tidegate.delivery.outcome": "delivered"})
        await passing(here, lambda: delivered in told)
        await passing(here, lambda: told[-1] == ("deliveries_given_up", 0, by_sink))


async def test_the_circuits_of_sinks_are_listed_and_held_by_hand(here: Bench, receiver: Receiver) -> None:
    await here.pipeline.force_circuit("sink-hook", "open")
    async with relaying(here, Hook("hook", receiver)):
        await publish(here, 1)
        await asyncio.sleep(0.05)
        assert receiver.got == []
        await here.pipeline.force_circuit("sink-hook", None)
        await passing(here, lambda: receiver.got)
