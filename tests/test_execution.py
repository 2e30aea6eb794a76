"""The graph's routes, from the outside: what a thread comes to while its services fail and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.worlds import World
from tidegate.errors import (
    CheckpointDamaged,
    CircuitOpen,
    DocumentMismatch,
    IncompatibleThread,
    NotFound,
    Permanent,
    RateLimited,
    ThreadNotFound,
    Transient,
)
from tidegate.graph.pipeline import build_graph
from tidegate.graph.result import Event, Result
from tidegate.settings import Settings
from tidegate.store.registry import Registry, ThreadRecord

TEXT = "Ada and Bob met Xenia in Cairo, then Dover, then Essen; Ada stayed."
PLACES = ["Ada", "Bob", "Cairo", "Dover", "Essen"]


def settings(**enrichment: Any) -> Settings:
    section = {"concurrency": 1, "batch_size": 2, "reset_timeout": 30.0, **enrichment}
    return Settings(checkpoints="memory:", enrichment=section, summary={"concurrency": 1})  # type: ignore[arg-type]


@pytest.fixture
async def worlds() -> AsyncIterator[Any]:
    made: list[World] = []

    def make(*, with_model: bool = False, **enrichment: Any) -> World:
        made.append(World(settings(**enrichment), with_model=with_model))
        return made[-1]

    yield make
    for world in made:
        await world.database.close()


def statuses(result: Result) -> dict[str, str]:
    return {entity.text: result.enrichments[entity.id].status for entity in result.entities}


async def test_a_healthy_run_is_complete_and_asks_once_for_each_place(worlds: Any) -> None:
    world = worlds()
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert (result.status, result.revision, result.missing, result.retry_in) == ("complete", 1, (), None)
    assert statuses(result) == {**dict.fromkeys(PLACES, "enriched"), "Xenia": "not_found"}
    assert sorted(world.places.asked) == PLACES
    assert [TEXT[span.start : span.end] for span in result.entities[0].mentions] == ["Ada", "Ada"]
    assert result.summary is not None
    assert result.summary.method == "extractive"


async def test_after_the_third_failure_no_request_starts_and_the_result_is_degraded(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert len(world.places.asked) == 3
    assert result.status == "degraded"
    assert {item.id for item in result.missing} == {e.id for e in result.entities if e.type == "LOC"}
    assert all(item.retryable for item in result.missing)
    assert result.retry_in == pytest.approx(30.0, abs=5.0)


async def test_resuming_while_the_service_is_down_returns_what_is_stored_and_when_to_try_again(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    first = await world.executions().advance("t", await world.take_in(TEXT))
    world.clock.advance(10.0)
    events: list[Event] = []
    again = await world.executions().advance("t", None, emit=events.append)
    assert [event.kind for event in events] == ["thread"]
    assert (again.status, again.revision) == ("degraded", 1)
    assert again.retry_in == pytest.approx((first.retry_in or 0.0) - 10.0)
    assert len(world.places.asked) == 3


async def test_resuming_after_the_service_came_back_asks_only_for_what_was_missing(worlds: Any) -> None:
    world = worlds()
    world.places.goes_down_after = 2
    first = await world.executions().advance("t", await world.take_in(TEXT))
    done = [name for name, status in statuses(first).items() if status == "enriched"]
    assert len(done) == 2
    world.places.goes_down_after, world.places.down = None, False
    world.clock.advance(31.0)
    world.places.asked.clear()
    second = await world.executions().advance("t", None)
    assert (second.status, second.revision, second.missing) == ("complete", 2, ())
    assert sorted(world.places.asked) == sorted(set(PLACES) - set(done))


async def test_a_half_open_circuit_is_sent_one_entity_first(worlds: Any) -> None:
    world = worlds(concurrency=8, batch_size=1)
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    world.clock.advance(31.0)
    world.places.asked.clear()
    events: list[Event] = []
    still = await world.executions().advance("t", None, emit=events.append)
    assert len(world.places.asked) == 1
    assert [(event.kind, event.step) for event in events].count(("started", "enrich")) == 1
    assert (still.status, still.revision) == ("degraded", 1)


async def test_a_circuit_that_flaps_is_tried_three_rounds_in_one_execution(worlds: Any) -> None:
    world = worlds(reset_timeout=0.5)
    world.places.down = True
    world.places.seconds_after_an_answer = 1.0  # by then the circuit is half-open again
    events: list[Event] = []
    result = await world.executions().advance("t", await world.take_in(TEXT), emit=events.append)
    routes = [event.detail["to"] for event in events if event.detail.get("gate") == "enrichment"]
    assert routes == ["enrich", "enrich", "enrich", "gate_summary"]
    assert (result.status, result.retry_in) == ("degraded", 0.0)


async def test_running_the_same_document_again_completes_a_degraded_thread(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    start = await world.take_in(TEXT)
    await world.executions().advance("t", start)
    world.places.down = False
    world.clock.advance(31.0)
    assert (await world.executions().advance("t", start)).revision == 2


async def test_policy_wait_stops_the_thread_before_the_circuit_and_goes_on_once_it_lets_calls_through(
    worlds: Any,
) -> None:
    world = worlds(when_open="wait")
    world.places.down = True
    waiting = await world.executions().advance("t", await world.take_in(TEXT))
    assert (waiting.status, waiting.revision, waiting.next) == ("waiting", 0, ("await_enrichment",))
    assert waiting.reason == "enrichment: circuit open"
    still = await world.executions().advance("t", None)
    assert still.status == "waiting"
    assert still.retry_in == pytest.approx(waiting.retry_in)
    world.clock.advance(31.0)
    world.places.down = False
    done = await world.executions().advance("t", None)
    assert (done.status, done.revision) == ("complete", 1)


async def test_policy_fail_raises_and_leaves_the_thread_where_it_can_go_on(worlds: Any) -> None:
    world = worlds(when_open="fail")
    world.places.down = True
    with pytest.raises(CircuitOpen) as caught:
        await world.executions().advance("t", await world.take_in(TEXT))
    assert caught.value.retry_in > 0
    record = await world.executions()._registry.get("t")
    assert (record.status, record.error[:12]) == ("failed", "circuit open")
    stopped = await world.executions().looks.inspect("t")
    assert (stopped.status, stopped.reason) == ("unfinished", record.error)
    assert stopped.retry_in == pytest.approx(caught.value.retry_in)
    assert record.next_at == pytest.approx(world.clock.now() + caught.value.retry_in)
    world.clock.advance(31.0)
    world.places.down = False
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_a_pause_that_the_service_asked_for_holds_for_whoever_resumes(worlds: Any) -> None:
    world = worlds(concurrency=1, budget=10.0)

    def limited(service: str, problem: str) -> RateLimited:
        return RateLimited(service, problem, retry_after=300.0)

    world.places.fails = dict.fromkeys(PLACES, limited)
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert (first.status, len(world.places.asked)) == ("degraded", 1)
    assert first.retry_in == pytest.approx(300.0)
    assert {item.why for item in first.missing} == {
        "budget exceeded: the service asks for a pause of 300 s, and a call may take 10 s"
    }
    still = first
    for _ in range(6):  # more often than an item is visited
        world.clock.advance(40.0)
        still = await world.executions().advance("t", None)
        assert (still.status, len(world.places.asked)) == ("degraded", 1)
    assert still.retry_in == pytest.approx(60.0)
    assert all(item.retryable for item in still.missing)
    world.places.fails = {}
    world.clock.advance(61.0)
    done = await world.executions().advance("t", None)
    assert (done.status, done.revision) == ("complete", 2)


async def test_a_pause_that_the_model_asked_for_holds_too(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.writer.asks_for_a_pause = 900.0
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert (first.status, first.summary.method) == ("degraded", "extractive")
    assert first.retry_in == pytest.approx(900.0)
    asked = world.writer.asked
    world.clock.advance(800.0)
    assert (await world.executions().advance("t", None)).status == "degraded"
    assert world.writer.asked == asked
    world.writer.asks_for_a_pause = None
    world.clock.advance(101.0)
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_a_pause_of_one_service_holds_while_the_other_is_asked(worlds: Any) -> None:
    world = worlds(with_model=True, concurrency=1, budget=10.0)

    def limited(service: str, problem: str) -> RateLimited:
        return RateLimited(service, problem, retry_after=300.0)

    world.places.fails = dict.fromkeys(PLACES, limited)
    world.writer.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    for _ in range(6):  # more often than an item is visited
        asked = world.writer.asked
        world.clock.advance(31.0)
        await world.executions().advance("t", None)
        assert (world.writer.asked, len(world.places.asked)) == (asked + 1, 1)
    world.places.fails, world.writer.down = {}, False
    world.clock.advance(300.0)
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_a_pause_of_the_model_holds_while_the_api_is_asked(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.places.down, world.writer.asks_for_a_pause = True, 300.0
    await world.executions().advance("t", await world.take_in(TEXT))
    asked = world.writer.asked
    world.clock.advance(31.0)
    before = len(world.places.asked)
    await world.executions().advance("t", None)
    assert (world.writer.asked, len(world.places.asked) > before) == (asked, True)


async def test_asking_too_soon_uses_up_no_visit(worlds: Any) -> None:
    world = worlds(concurrency=1, budget=10.0)

    def limited(service: str, problem: str) -> RateLimited:
        return RateLimited(service, problem, retry_after=20.0)

    world.places.fails = dict.fromkeys(PLACES, limited)
    result = await world.executions().advance("t", await world.take_in(TEXT))
    for _ in range(6):
        world.clock.advance(21.0)
        result = await world.executions().advance("t", None)
    assert {item.retryable for item in result.missing} == {True}


async def test_a_thread_whose_checkpoints_are_gone_is_damaged_not_new(worlds: Any) -> None:
    world = worlds()
    await world.executions().advance("t", start := await world.take_in(TEXT))
    world.saver.delete_thread("t")
    executions = world.executions()
    for look in (executions.looks.inspect("t"), executions.advance("t", None), executions.advance("t", start)):
        with pytest.raises(CheckpointDamaged, match="has published revision 1, and its checkpoints are gone"):
            await look


async def test_a_thread_that_ended_before_its_first_checkpoint_has_an_empty_history(worlds: Any) -> None:
    executions = worlds().executions()
    await executions._registry.put(executions._new_record("t", {"document_sha256": "0" * 64}))
    assert await executions.looks.history("t", None) == []
    assert (await executions.looks.inspect("t")).status == "unfinished"
    with pytest.raises(ThreadNotFound):
        await executions.looks.history("u", None)


async def test_a_caller_can_set_the_policy_of_one_execution(worlds: Any) -> None:
    world = worlds(when_open="wait")
    world.places.down = True
    result = await world.executions().advance("t", await world.take_in(TEXT), when_open="degrade")
    assert result.status == "degraded"


async def test_an_answer_that_there_is_no_such_thing_is_complete(worlds: Any) -> None:
    world = worlds()
    world.places.fails = {"Cairo": NotFound}
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert result.status == "complete"
    assert statuses(result)["Cairo"] == "not_found"


async def test_an_entity_that_can_never_be_had_is_missing_for_good_and_not_asked_again(worlds: Any) -> None:
    world = worlds()
    world.places.fails = {"Cairo": Permanent}
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert [(item.why, item.retryable) for item in result.missing] == [("permanent: as scripted", False)]
    assert (result.status, result.retry_in) == ("degraded", None)
    asked = len(world.places.asked)
    again = await world.executions().advance("t", None)
    assert (again.revision, len(world.places.asked)) == (1, asked)


async def test_an_entity_that_fails_alone_is_tried_in_later_executions_five_times_at_most(worlds: Any) -> None:
    world = worlds(attempts=1, failure_threshold=99)
    world.places.fails = {"Cairo": Transient}
    result = await world.executions().advance("t", await world.take_in(TEXT))
    for _ in range(8):
        result = await world.executions().advance("t", None)
    assert world.places.asked.count("Cairo") == 5
    assert (result.status, result.revision) == ("degraded", 1)
    assert not result.missing[0].retryable


async def test_a_complete_thread_runs_nothing_again(worlds: Any) -> None:
    world = worlds()
    start = await world.take_in(TEXT)
    first = await world.executions().advance("t", start)
    events: list[Event] = []
    assert await world.executions().advance("t", start, emit=events.append) == first
    assert [event.kind for event in events] == ["thread"]


async def test_callers_that_run_one_thread_at_the_same_time_share_one_execution(worlds: Any) -> None:
    world = worlds()
    start, executions = await world.take_in(TEXT), world.executions()
    first, second = await asyncio.gather(executions.advance("t", start), executions.advance("t", start))
    assert first == second
    assert sorted(world.places.asked) == PLACES


async def test_a_thread_refuses_another_document(worlds: Any) -> None:
    world = worlds()
    await world.executions().advance("t", await world.take_in(TEXT))
    with pytest.raises(DocumentMismatch, match="belongs to another document"):
        await world.executions().advance("t", await world.take_in("Zagreb"))


async def test_a_thread_that_does_not_exist_is_said_so(worlds: Any) -> None:
    with pytest.raises(ThreadNotFound, match="'nope' does not exist"):
        await worlds().executions().advance("nope", None)


async def test_a_model_that_is_down_is_replaced_by_the_fallback_and_tried_again_later(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.writer.down = True
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert world.writer.asked == 3
    assert first.summary is not None
    assert first.summary.method == "extractive"
    assert [(item.what, item.retryable) for item in first.missing] == [("summary", True)]
    world.writer.down = False
    world.clock.advance(31.0)
    world.places.asked.clear()
    second = await world.executions().advance("t", None)
    assert (second.status, second.revision) == ("complete", 2)
    assert second.text == "Written from 5 facts."
    assert world.places.asked == []


async def test_a_model_that_refuses_the_document_is_not_asked_again(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.writer.refuses = True
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert [(item.what, item.why, item.retryable) for item in first.missing] == [
        ("summary", "permanent: content filter", False)
    ]
    assert (await world.executions().advance("t", None)).retry_in is None
    assert world.writer.asked == 1


async def test_a_model_that_refused_is_asked_again_once_it_would_be_asked_something_else(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.places.down = world.writer.refuses = True
    await world.executions().advance("t", await world.take_in(TEXT))
    world.places.down = world.writer.refuses = False
    world.clock.advance(31.0)
    result = await world.executions().advance("t", None)
    assert (result.status, world.writer.asked) == ("complete", 2)


async def test_the_summary_is_written_again_when_later_answers_change_what_it_rests_on(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.places.down = True
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert first.text == "Written from 0 facts."
    world.places.down = False
    world.clock.advance(31.0)
    assert (await world.executions().advance("t", None)).text == "Written from 5 facts."


async def test_an_earlier_summary_by_the_model_is_kept_while_the_model_is_down(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    world.places.down, world.writer.down = False, True
    world.clock.advance(31.0)
    second = await world.executions().advance("t", None)
    assert second.text == "Written from 0 facts."
    assert [item.what for item in second.missing] == ["summary"]


async def test_without_enrichment_configured_nothing_is_missing(worlds: Any) -> None:
    world = worlds()
    world.services = type(world.services)(
        **{name: getattr(world.services, name) for name in world.services.__slots__} | {"enricher": None}
    )
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert (result.status, dict(result.enrichments)) == ("complete", {})


async def test_a_thread_that_waits_before_a_step_this_code_does_not_have_is_refused(worlds: Any) -> None:
    world = worlds(when_open="wait")
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    executions = world.executions()
    del executions._graph.nodes["await_enrichment"]
    with pytest.raises(IncompatibleThread, match="waits for await_enrichment"):
        await executions.advance("t", None)


async def test_stored_state_that_does_not_fit_is_refused_by_field_names_alone(worlds: Any) -> None:
    world = worlds()
    await world.executions().advance("t", await world.take_in(TEXT))
    executions = world.executions()
    await executions._graph.aupdate_state(
        {"configurable": {"thread_id": "t"}}, {"summary": {"sentence": "secret"}}, as_node="conclude"
    )
    with pytest.raises(IncompatibleThread, match=r"stored Summary does not fit.*sentences \(missing\)") as caught:
        await executions.advance("t", None)
    assert "secret" not in str(caught.value)


async def test_a_thread_registered_but_never_started_is_started_by_resume(worlds: Any) -> None:
    world = worlds()
    start = await world.take_in(TEXT)
    await Registry(world.database).put(
        ThreadRecord(thread_id="t", document_id=start["document_sha256"] or "", source="note.txt", status="running")
    )
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_an_entity_that_always_fails_does_not_keep_the_others_waiting(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    result = await world.executions().advance("t", await world.take_in(TEXT))
    world.places.down, world.places.fails = False, {"Ada": Transient}
    for _ in range(3):
        world.clock.advance(31.0)
        result = await world.executions().advance("t", None)
    assert {name for name, status in statuses(result).items() if status == "enriched"} == set(PLACES) - {"Ada"}


async def test_a_long_outage_uses_up_nobodys_visits(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    await world.executions().advance("t", await world.take_in("Cairo"))
    for _ in range(9):
        world.clock.advance(31.0)
        assert (await world.executions().advance("t", None)).missing[0].retryable
    world.places.down = False
    world.clock.advance(31.0)
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_a_waiting_thread_follows_the_policy_of_the_execution_that_resumes_it(worlds: Any) -> None:
    world = worlds(when_open="wait")
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    assert (await world.executions().advance("t", None, when_open="degrade")).status == "degraded"


async def test_the_registry_is_mended_after_a_crash_between_the_last_checkpoint_and_its_record(worlds: Any) -> None:
    world = worlds()
    await world.executions().advance("t", await world.take_in(TEXT))
    registry = Registry(world.database)
    finished = await registry.get("t")
    assert finished is not None
    await registry.put(replace(finished, status="running", outcome=None, revision=0))
    await world.executions().advance("t", None)
    mended = await registry.get("t")
    assert mended is not None
    assert (mended.status, mended.outcome, mended.revision) == ("complete", "complete", 1)


async def test_what_the_enrichment_in_force_does_not_cover_is_no_longer_missing(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    world.places.covers = lambda _: False
    world.clock.advance(31.0)
    assert (await world.executions().advance("t", None)).status == "complete"


async def test_on_a_graph_server_each_invocation_has_rounds_of_its_own_and_the_same_text_completes(worlds: Any) -> None:
    world = worlds(reset_timeout=0.001)
    world.places.down = True
    graph = build_graph(world.services, world.settings).compile(checkpointer=world.saver)
    config: Any = {"configurable": {"thread_id": "server"}}
    for _ in range(3):
        state = await graph.ainvoke({"text": TEXT, "source": "note.txt"}, config)
        assert state["outcome"]["status"] == "degraded"
        world.clock.advance(1.0)
    world.places.down = False
    world.places.asked.clear()
    state = await graph.ainvoke({"text": TEXT, "source": "note.txt"}, config)
    assert (state["outcome"]["status"], sorted(world.places.asked)) == ("complete", PLACES)
    world.places.asked.clear()
    await graph.ainvoke({"text": TEXT, "source": "note.txt"}, config)
    assert world.places.asked == []
    other = await graph.ainvoke({"text": "Zagreb", "source": "other.txt"}, config)
    assert [entity["text"] for entity in other["entities"].values()] == ["Zagreb"]
    assert other["revision"] == 1


async def test_a_document_of_many_entities_does_not_use_up_its_budget_in_the_queue(worlds: Any) -> None:
    world = worlds(concurrency=2, budget=0.5, attempt_timeout=0.5)
    world.places.pause = 0.03
    names = " ".join(f"{first}{second}a" for first in "ABCDEFGH" for second in "bcdfg")
    result = await world.executions().advance("t", await world.take_in(names))
    assert (result.status, len(result.entities)) == ("complete", 40)
