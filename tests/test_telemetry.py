from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, TypedDict, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.servers.otlp import Collector, collector
from tests.spans import recording
from tidegate.errors import Transient
from tidegate.state import merge
from tidegate.telemetry import events, logs, names, spans, traceparent

SECRET = "Iwan Roberts owes 3,000"


class Recorder:
    """The spans that have ended, by name, in the order of their end."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer(names.SCOPE))
    yield Recorder(exporter)
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def span_id(span: ReadableSpan) -> int:
    found = span.get_span_context()
    assert found is not None
    return found.span_id


def trace_id(span: ReadableSpan) -> int:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def failed(span: ReadableSpan) -> bool:
    return span.status.status_code is StatusCode.ERROR


def test_a_run_says_whose_it_is_and_how_it_ended(recorder: Recorder) -> None:
    with spans.run("q3-report", resumed=False) as run:
        run.outcome("degraded")
    span = recorder.one("invoke_workflow tidegate")
    assert span.kind is SpanKind.INTERNAL
    assert attributes(span) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "tidegate",
        "gen_ai.conversation.id": "q3-report",
        "session.id": "q3-report",
        "openinference.span.kind": "CHAIN",
        "tidegate.run.resumed": False,
        "tidegate.outcome": "degraded",
    }
    assert not failed(span)
    assert parent_id(span) is None


def test_a_resumed_run_is_linked_to_the_one_before(recorder: Recorder) -> None:
    with spans.run("t", resumed=False) as first:
        stored = first.traceparent
    with spans.run("t", resumed=True, resumed_from=stored):
        pass
    before, after = recorder.named(names.RUN)
    assert stored is not None
    assert stored.startswith(f"00-{trace_id(before):032x}-{span_id(before):016x}-")
    assert trace_id(after) != trace_id(before)
    assert [link.context.span_id for link in after.links] == [span_id(before)]
    assert attributes(after)["tidegate.resumed_from.trace_id"] == f"{trace_id(before):032x}"
    assert attributes(after)["tidegate.run.resumed"] is True


@pytest.mark.parametrize(
    "stored",
    [
        None,
        17,
        "",
        "garbage",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01" * 1000,
        "00-" + "Z" * 32 + "-" + "1" * 16 + "-01\n",
    ],
)
def test_a_damaged_traceparent_is_no_link_and_no_parent(recorder: Recorder, stored: Any) -> None:
    with spans.run("t", resumed=True, resumed_from=stored):
        pass
    with spans.node("ingest", parent=stored):
        pass
    assert not recorder.one(names.RUN).links
    assert recorder.one("invoke_node ingest").parent is None


@given(st.text("0123456789abcdefg- \n", max_size=60).map("00-".__add__))
def test_reading_a_traceparent_never_fails(text: str) -> None:
    found = traceparent.read(text)
    assert found is None or found.is_valid


def test_a_tracestate_stays_with_its_span_as_far_as_it_can_be_read() -> None:
    line = f"00-{7:032x}-{8:016x}-01"
    found = traceparent.read(line, "vendor=a:1, other=b")
    assert found is not None
    assert traceparent.state_of(found) == "vendor=a:1,other=b"
    for broken in (None, 17, "", "no pair", "a=1,a=2", "caf\u00e9=1"):
        found = traceparent.read(line, broken)
        assert found is not None
        assert traceparent.state_of(found) is None
    assert traceparent.read("garbage", "vendor=a") is None


def test_the_tracestate_of_the_caller_s_span_is_the_run_s(recorder: Recorder) -> None:
    caller = traceparent.read(f"00-{7:032x}-{8:016x}-01", "vendor=a")
    assert caller is not None
    sent: dict[str, str] = {}
    with (
        trace.use_span(trace.NonRecordingSpan(caller)),
        spans.run("t", resumed=False),
        spans.node("enrich"),
        spans.http_call("POST", "http://h/x", attempt=1),
    ):
        traceparent.inject(sent)
    assert {str((span.get_span_context() or caller).trace_state.to_header()) for span in recorder.all()} == {"vendor=a"}
    assert sent["tracestate"] == "vendor=a"


def test_a_traceparent_survives_being_written_and_read() -> None:
    line = f"00-{7:032x}-{8:016x}-00"
    found = traceparent.read(line)
    assert found is not None
    assert traceparent.write(found) == line


def test_a_node_is_inside_its_run_and_a_gate_says_where_it_sends_the_thread(recorder: Recorder) -> None:
    with spans.run("t", resumed=False), spans.node("gate_summary", attempt=2, task_id="abc"):
        events.routed("summarize_extractive", "circuit open")
    gate = recorder.one("invoke_node gate_summary")
    assert parent_id(gate) == span_id(recorder.one(names.RUN))
    assert attributes(gate) == {
        "tidegate.node.name": "gate_summary",
        "openinference.span.kind": "CHAIN",
        "tidegate.node.attempt": 2,
        "tidegate.task.id": "abc",
        "tidegate.route": "summarize_extractive",
        "tidegate.route.reason": "circuit open",
    }


def test_an_exception_is_recorded_by_its_class_alone(recorder: Recorder) -> None:
    def fail() -> None:
        with (
            spans.run("t", resumed=False),
            spans.node("summarize"),
            spans.chat("small", "openai", attempt=1),
            spans.http_call("POST", "http://h/x", attempt=1) as call,
            spans.checkpoint_put("1f", 1, "loop"),
        ):
            call.failed("ReadTimeout")
            try:
                raise KeyError(SECRET)
            except KeyError as cause:
                raise Transient("api", SECRET) from cause

    with pytest.raises(Transient):
        fail()
    ended = [span for span in recorder.all() if span.name != names.RUN_STARTED]
    assert len(ended) == 5
    for span in ended:
        expected = "ReadTimeout" if span.name == "POST" else "Transient"
        assert attributes(span)["error.type"] == expected
        assert failed(span)
        assert span.status.description is None
        assert not span.events
        assert SECRET not in span.to_json()


def test_an_interrupt_is_control_flow_and_not_an_error(recorder: Recorder) -> None:
    with pytest.raises(GraphInterrupt), spans.run("t", resumed=False), spans.node("await_model"):
        raise GraphInterrupt(())
    for span in recorder.all():
        assert not failed(span)
        assert "error.type" not in attributes(span)
    assert attributes(recorder.one("invoke_node await_model"))["tidegate.node.interrupted"] is True


async def test_a_cancelled_node_is_marked(recorder: Recorder) -> None:
    async def work() -> None:
        with spans.node("enrich"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attributes(recorder.one("invoke_node enrich"))["error.type"] == "CancelledError"


@pytest.mark.parametrize(
    ("url", "full", "address", "port"),
    [
        ("https://key:pass@api.example/v1/x?token=1#part", "https://api.example/v1/x", "api.example", 443),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x", "127.0.0.1", 8080),
        ("http://[::1]:99/", "http://[::1]:99/", "::1", 99),
        ("http://a@b@c/x", "http://c/x", "c", 80),
    ],
)
def test_an_http_request_is_recorded_without_query_and_credentials(
    recorder: Recorder, url: str, full: str, address: str, port: int
) -> None:
    with spans.http_call("POST", url, attempt=1) as call:
        call.status(200)
    span = recorder.one("POST")
    assert span.kind is SpanKind.CLIENT
    assert not failed(span)
    assert attributes(span) == {
        "http.request.method": "POST",
        "url.full": full,
        "server.address": address,
        "server.port": port,
        "http.response.status_code": 200,
    }


def test_a_repeated_request_counts_the_ones_before(recorder: Recorder) -> None:
    with spans.http_call("GET", "http://h/x", attempt=3) as call:
        call.status(503)
    found = attributes(recorder.one("GET"))
    assert found["http.request.resend_count"] == 2
    assert found["error.type"] == "503"
    assert failed(recorder.one("GET"))


def test_the_status_of_an_answer_outlives_the_exception_it_becomes(recorder: Recorder) -> None:
    def fail() -> None:
        with spans.http_call("GET", "http://h/x", attempt=1) as call:
            call.status(503)
            raise Transient("api", "status 503")

    with pytest.raises(Transient):
        fail()
    assert attributes(recorder.one("GET"))["error.type"] == "503"


@pytest.mark.parametrize("url", ["", "http://[", "http://h:99999/", "not an address", "http://h:port/"])
def test_an_unusable_address_is_left_to_the_client_to_complain_about(recorder: Recorder, url: str) -> None:
    with spans.http_call("GET", url, attempt=1):
        pass
    assert attributes(recorder.one("GET"))["http.request.method"] == "GET"


def test_a_request_to_a_model_says_which_and_what_it_cost(recorder: Recorder) -> None:
    server = spans.server_of("https://user:key@api.example/v1?key=1")
    with spans.chat("small-1", "openai", attempt=2, server=server) as chat:
        chat.answered(model="small-1-2026", response_id="answer-1", finish="stop")
        chat.usage(120, 30)
    span = recorder.one("chat small-1")
    assert span.kind is SpanKind.CLIENT
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small-1",
        "server.address": "api.example",
        "server.port": 443,
        "gen_ai.response.model": "small-1-2026",
        "gen_ai.response.id": "answer-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "openinference.span.kind": "LLM",
        "tidegate.attempt": 2,
    }


@pytest.mark.parametrize("said", [None, 17, "", SECRET, "x" * 201, "caf\u00e9", "a\n"])
def test_what_an_answer_says_of_itself_is_a_word_or_is_left_out(recorder: Recorder, said: Any) -> None:
    with spans.chat("small-1", "openai", attempt=1) as chat:
        chat.answered(model=said, response_id=said, finish=said)
    assert not [name for name in attributes(recorder.one("chat small-1")) if name.startswith("gen_ai.response")]


@pytest.mark.parametrize("url", ["", "gpu", "http://[", "http://h:99999/"])
def test_a_server_that_is_none_is_not_told(url: str) -> None:
    assert spans.server_of(url) == {}


def test_a_checkpoint_saved_in_a_thread_without_context_finds_its_parent(recorder: Recorder) -> None:
    def put(parent: str | None) -> None:
        with spans.checkpoint_put("1f-2", 3, "loop", parent=parent) as checkpoint:
            checkpoint.size(2048)

    with spans.run("t", resumed=False) as run, ThreadPoolExecutor(1) as pool:
        pool.submit(put, run.traceparent).result()
    span = recorder.one("checkpoint put")
    assert parent_id(span) == span_id(recorder.one(names.RUN))
    assert attributes(span) == {
        "tidegate.checkpoint.id": "1f-2",
        "tidegate.checkpoint.step": 3,
        "tidegate.checkpoint.source": "loop",
        "tidegate.checkpoint.bytes": 2048,
    }


def test_the_span_that_is_current_goes_before_the_parent_that_was_passed(recorder: Recorder) -> None:
    other = f"00-{7:032x}-{8:016x}-01"
    with spans.run("t", resumed=False), spans.node("ingest", parent=other):
        pass
    assert parent_id(recorder.one("invoke_node ingest")) == span_id(recorder.one(names.RUN))


def test_a_span_of_the_host_is_not_mistaken_for_one_of_ours(recorder: Recorder) -> None:
    with spans.run("t", resumed=False) as run:
        ours = run.traceparent
    with spans._tracer.start_as_current_span("the host's"), spans.node("ingest", parent=ours):
        pass
    assert parent_id(recorder.one("invoke_node ingest")) == span_id(recorder.one(names.RUN))


def test_retries_and_circuits_are_events_of_the_span_they_happen_in(recorder: Recorder) -> None:
    with spans.node("enrich"):
        events.retry_scheduled(service="enrichment", attempt=1, delay=0.5, error_type="Transient")
        events.circuit_changed("enrichment", "closed", "open", "transient")
        events.circuit_changed("enrichment", "open", "half_open", None)
    found = [(event.name, dict(event.attributes or {})) for event in recorder.one("invoke_node enrich").events]
    circuit = {"tidegate.circuit.name": "enrichment"}
    assert found == [
        (
            "tidegate.retry.scheduled",
            {
                "tidegate.call.service": "enrichment",
                "tidegate.retry.attempt": 1,
                "tidegate.retry.delay": 0.5,
                "error.type": "Transient",
            },
        ),
        (
            "tidegate.circuit.state_changed",
            {
                **circuit,
                "tidegate.circuit.from": "closed",
                "tidegate.circuit.to": "open",
                "tidegate.circuit.reason": "transient",
            },
        ),
        (
            "tidegate.circuit.state_changed",
            {**circuit, "tidegate.circuit.from": "open", "tidegate.circuit.to": "half_open"},
        ),
    ]


def test_without_anybody_who_traces_nothing_happens() -> None:
    with spans.run("t", resumed=False) as run, spans.node("enrich"):
        events.routed("x", "y")
        events.retry_scheduled(service="enrichment", attempt=1, delay=0.5, error_type="Transient")
        assert run.traceparent is None
    events.circuit_changed("enrichment", "closed", "open", None)


async def test_concurrent_nodes_keep_their_own_children(recorder: Recorder) -> None:
    async def work(number: int) -> None:
        with spans.node(f"n{number}"):
            for step in range(3):
                await asyncio.sleep(0.001 * (number * 7 % 5))
                with spans.chat(f"m{number}", "p", attempt=step + 1):
                    await asyncio.sleep(0)

    with spans.run("t", resumed=False):
        await asyncio.gather(*(work(number) for number in range(30)))
    root = span_id(recorder.one(names.RUN))
    for number in range(30):
        node = recorder.one(f"invoke_node n{number}")
        assert parent_id(node) == root
        children = recorder.named(f"chat m{number}")
        assert len(children) == 3
        assert {parent_id(child) for child in children} == {span_id(node)}


def test_a_run_that_nobody_records_tells_its_logs_thread_and_node_all_the_same() -> None:
    with spans.run("t", resumed=False) as run:
        assert run.traceparent is None
        with spans.node("enrich"), spans.http_call("POST", "http://h/", attempt=1, within={"more": 1}) as call:
            call.status(500)
            assert context.get_value("more") == 1
            assert logs.here() == {"thread_id": "t", "node": "enrich"}
        with spans.checkpoint_put("1f", 1, "loop"):
            assert logs.here() == {"thread_id": "t"}
    assert logs.here() == {}


def test_a_run_that_nobody_records_stays_in_the_trace_it_was_called_in() -> None:
    around = trace.NonRecordingSpan(trace.SpanContext(7, 8, is_remote=True))
    with trace.use_span(around), spans.run("t", resumed=False) as run:
        assert run.traceparent == f"00-{7:032x}-{8:016x}-00"
        with spans.node("enrich", parent=run.traceparent):
            assert logs.here()["trace_id"] == f"{7:032x}"


def test_an_sdk_that_is_set_later_records_the_runs_that_begin_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with spans.run("t", resumed=False), recording(monkeypatch) as exporter:
        with spans.node("enrich"):
            pass
        assert not exporter.get_finished_spans()
    with recording(monkeypatch) as exporter:
        with spans.run("t", resumed=True), spans.node("enrich"):
            pass
        assert [span.name for span in exporter.get_finished_spans()] == ["run started", "invoke_node enrich", names.RUN]


class Flow(TypedDict, total=False):
    done: Annotated[dict[str, int], merge]
    number: int


class Branch(TypedDict):
    number: int


async def plan(state: Flow, config: RunnableConfig) -> Flow:
    return {"done": {"plan": 1}}


async def work(state: Branch, config: RunnableConfig) -> Flow:
    await asyncio.sleep(0.001)
    with spans.http_call("POST", "http://h/", attempt=1):
        return {"done": {str(state["number"]): 1}}


async def join(state: Flow) -> Flow:
    interrupt("wait")
    return {"done": {"join": len(state.get("done", {}))}}


def small_graph() -> Any:
    graph = StateGraph(Flow)
    graph.add_node("plan", spans.traced("plan", plan))
    graph.add_node("work", spans.traced("work", work))
    graph.add_node("join", spans.traced("join", join))
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda _: [Send("work", {"number": n}) for n in range(5)], ["work"])
    graph.add_edge("work", "join")
    graph.add_edge("join", END)
    return graph.compile(checkpointer=InMemorySaver())


async def test_a_graph_with_a_fan_out_is_one_trace_and_its_resume_is_linked(recorder: Recorder) -> None:
    graph = small_graph()

    async def execute(payload: Any, *, resumed_from: str | None) -> Any:
        with spans.run("t", resumed=resumed_from is not None, resumed_from=resumed_from) as run:
            config = {"configurable": {"thread_id": "t", names.TRACEPARENT: run.traceparent}}
            await graph.ainvoke(payload, config, durability="sync")
        return await graph.aget_state({"configurable": {"thread_id": "t"}})

    snapshot = await execute({"done": {}}, resumed_from=None)
    first = recorder.one(names.RUN)
    assert {trace_id(span) for span in recorder.all()} == {trace_id(first)}
    branches = recorder.named("invoke_node work")
    assert len(branches) == 5
    assert len({attributes(branch)["tidegate.task.id"] for branch in branches}) == 5
    assert {attributes(branch)["tidegate.node.attempt"] for branch in branches} == {1}
    assert {parent_id(call) for call in recorder.named("POST")} == {span_id(branch) for branch in branches}
    for name in ("plan", "work", "join"):
        assert {parent_id(span) for span in recorder.named(f"invoke_node {name}")} == {span_id(first)}
    waiting = recorder.one("invoke_node join")
    assert attributes(waiting)["tidegate.node.interrupted"] is True
    assert not failed(waiting)

    snapshot = await execute(Command(resume="go"), resumed_from=snapshot.metadata[names.TRACEPARENT])
    assert snapshot.values["done"]["join"] == 6
    second = recorder.named(names.RUN)[1]
    assert [link.context.span_id for link in second.links] == [span_id(first)]
    assert parent_id(recorder.named("invoke_node join")[1]) == span_id(second)


async def test_a_graph_without_a_run_around_it_hangs_its_nodes_on_the_traceparent(recorder: Recorder) -> None:
    config = {"configurable": {"thread_id": "t", names.TRACEPARENT: f"00-{7:032x}-{8:016x}-01"}}
    await small_graph().ainvoke({"done": {}}, config)
    assert {parent_id(span) for span in recorder.all() if span.name.startswith("invoke_node")} == {8}


async def test_a_traced_node_can_be_a_plain_runnable(recorder: Recorder) -> None:
    assert await RunnableLambda(cast("Any", spans.traced("plan", plan))).ainvoke({}) == {"done": {"plan": 1}}
    assert attributes(recorder.one("invoke_node plan")) == {
        "tidegate.node.name": "plan",
        "tidegate.node.attempt": 1,
        "openinference.span.kind": "CHAIN",
    }


async def test_a_traced_node_can_be_called_by_hand(recorder: Recorder) -> None:
    assert await spans.traced("plan", plan)({}, {}) == {"done": {"plan": 1}}
    assert attributes(recorder.one("invoke_node plan")) == {
        "tidegate.node.name": "plan",
        "tidegate.node.attempt": 1,
        "openinference.span.kind": "CHAIN",
    }


PROGRAM = """
import sys, time
from tidegate.telemetry import events, setup, spans

stop = setup.configure()
with spans.run("a-thread", resumed=False) as run:
    with spans.node("enrich"):
        events.retry_scheduled(service="enrichment", attempt=1, delay=0.5, error_type="Transient")
        events.circuit_changed("enrichment", "half_open", "open", "transient")
        with spans.chat("small", "openai", attempt=1) as chat:
            chat.usage(10, 2)
        with spans.checkpoint_put("1f", 1, "loop"):
            pass
    run.outcome("complete")
began = time.monotonic()
stop()
print(time.monotonic() - began)
print("opentelemetry.sdk" in sys.modules)
"""


class Ended(TypedDict):
    code: int
    delay: float
    sdk: bool
    errors: str
    took: float


def execute_program(**variables: str) -> Ended:
    """Run PROGRAM in a process of its own; `delay` is the time that the last export took, `took` the whole."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    delay, sdk = done.stdout.split()
    return {
        "code": done.returncode,
        "delay": float(delay),
        "sdk": sdk == "True",
        "errors": done.stderr,
        "took": time.monotonic() - began,
    }


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as running:
        ended = execute_program(
            OTEL_EXPORTER_OTLP_ENDPOINT=running.url,
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_LOGS_EXPORTER="otlp",
        )
        assert ended["code"] == 0
        assert ended["errors"] == ""
        yield running


def test_a_collector_receives_the_spans_of_an_execution(received: Collector) -> None:
    by_name = {span.name: span for span in received.spans}
    assert set(by_name) == {names.RUN, names.RUN_STARTED, "invoke_node enrich", "chat small", "checkpoint put"}
    run, node = by_name[names.RUN], by_name["invoke_node enrich"]
    assert run.parent_id == ""
    assert run.attributes["tidegate.outcome"] == "complete"
    assert run.resource["service.name"] == "tidegate"
    assert node.parent_id == run.span_id
    assert [name for name, _ in node.events] == ["tidegate.retry.scheduled", "tidegate.circuit.state_changed"]
    assert {by_name[name].parent_id for name in ("chat small", "checkpoint put")} == {node.span_id}
    assert len({span.trace_id for span in received.spans}) == 1


def test_every_signal_says_which_version_it_is_of_and_by_which_conventions(received: Collector) -> None:
    ours = ("tidegate", version("tidegate"), "https://opentelemetry.io/schemas/1.41.0")
    assert received.scopes == {(f"/v1/{signal}", *ours) for signal in ("traces", "metrics", "logs")}


def test_names_of_the_conventions_are_in_the_ones_that_spans_refer_to() -> None:
    """Those for GenAI left after 1.41, and the package keeps them as they were then."""
    modules = ("error", "exception", "gen_ai", "http", "server", "session", "url")
    known: set[str] = set()
    for name in modules:
        for place in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
            with suppress(ModuleNotFoundError):
                found = vars(import_module(f"{place}.{name}_attributes")).values()
                known |= {each for each in found if isinstance(each, str)}
    used = {each for each in vars(names).values() if str(each).split(".")[0] in modules}
    no_attributes = {names.GEN_AI_DURATION, names.GEN_AI_TOKENS, names.EXCEPTION}
    assert no_attributes < used
    assert used - no_attributes <= known


def test_a_collector_receives_metrics_and_none_is_labelled_by_thread(received: Collector) -> None:
    assert {name: metric.unit for name, metric in received.metrics.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "tidegate.checkpoint.duration": "s",
        "tidegate.circuit.transitions": "{transition}",
        "tidegate.node.duration": "s",
        "tidegate.retries": "{retry}",
        "tidegate.run.duration": "s",
        "tidegate.runs": "{run}",
    }
    assert received.metrics["tidegate.run.duration"].points == (
        {"tidegate.outcome": "complete", "tidegate.run.resumed": False},
    )
    kinds = {point["gen_ai.token.type"] for point in received.metrics["gen_ai.client.token.usage"].points}
    assert kinds == {"input", "output"}
    assert "a-thread" not in json.dumps([metric.points for metric in received.metrics.values()])


def test_the_environment_names_the_service(received: Collector) -> None:
    with collector() as running:
        execute_program(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{running.url}/v1/traces", OTEL_SERVICE_NAME="mine")
        assert {span.resource["service.name"] for span in running.spans} == {"mine"}
        assert running.metrics == {}


def test_a_collector_that_is_down_is_named_once_and_holds_nothing_up() -> None:
    ended = execute_program(OTEL_EXPORTER_OTLP_ENDPOINT="http://user:hidden@127.0.0.1:9")
    assert ended["code"] == 0
    assert ended["delay"] < 2.5
    problem = "127.0.0.1:9 does not answer (ConnectionError)"
    assert ended["errors"] == f"telemetry is lost, nothing else is affected: {problem}\n"


def test_a_collector_that_hangs_is_left_behind() -> None:
    with collector() as running:
        running.answering.clear()
        ended = execute_program(OTEL_EXPORTER_OTLP_ENDPOINT=running.url)
    assert ended["code"] == 0
    assert ended["delay"] < 2.5
    assert ended["took"] < 6  # the process has ended, though its request has not
    assert ended["errors"].count("\n") == 1
    assert "does not answer" in ended["errors"]


@pytest.mark.parametrize(("seconds", "least", "most"), [("0.1", 0.1, 0.9), ("2", 2.0, 4.0)])
def test_how_long_the_last_spans_are_waited_for_can_be_set(seconds: str, least: float, most: float) -> None:
    with collector() as running:
        running.answering.clear()
        ended = execute_program(OTEL_EXPORTER_OTLP_ENDPOINT=running.url, OTEL_EXPORTER_OTLP_TIMEOUT=seconds)
    assert least <= ended["delay"] < most


def test_a_collector_that_is_broken_is_told_of_once_for_all_that_is_sent() -> None:
    with collector() as running:
        running.status = 500
        ended = execute_program(OTEL_EXPORTER_OTLP_ENDPOINT=running.url)
    where = running.url.removeprefix("http://")
    assert ended["errors"] == f"telemetry is lost, nothing else is affected: {where} answers 500\n"


def test_an_address_without_its_scheme_is_said_to_need_one() -> None:
    ended = execute_program(OTEL_EXPORTER_OTLP_ENDPOINT="127.0.0.1:4318")
    assert ended["code"] == 0
    problem = "the collector's address needs http:// or https:// before it"
    assert ended["errors"] == f"telemetry is lost, nothing else is affected: {problem}\n"


def test_a_collector_that_refuses_is_quoted_by_its_status() -> None:
    with collector() as running:
        running.status = 401
        ended = execute_program(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{running.url}/v1/traces")
    assert ended["code"] == 0
    assert "answers 401 to /v1/traces" in ended["errors"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
        },
    ],
)
def test_the_sdk_is_not_even_imported_unless_it_is_asked_for(variables: dict[str, str]) -> None:
    ended = execute_program(**variables)
    assert ended == {**ended, "code": 0, "sdk": False, "errors": ""}


def test_the_console_exporter_keeps_out_of_the_results() -> None:
    ended = execute_program(OTEL_TRACES_EXPORTER="console")
    assert '"invoke_node enrich"' in ended["errors"]


def test_telemetry_is_light_to_import() -> None:
    program = (
        "import sys, tidegate.telemetry.spans, tidegate.telemetry.events, tidegate.telemetry.setup; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not roots & {"langgraph", "langchain_core", "httpx", "requests", "pydantic"}
    assert "opentelemetry.sdk" not in done.stdout.split()


def test_prompt_and_answer_are_recorded_in_the_form_of_the_conventions(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with spans.chat("small", "openai", attempt=1) as chat:
        chat.content([("system", "Be brief."), ("human", "Who?"), ("ai", "Bob.")], "Eve.", finish="length")
    found = attributes(recorder.one("chat small"))
    prompt, answer = (json.loads(found[f"gen_ai.{name}.messages"]) for name in ("input", "output"))
    assert [message["role"] for message in prompt] == ["system", "user", "assistant"]
    assert answer == [{"role": "assistant", "parts": [{"type": "text", "content": "Eve."}], "finish_reason": "length"}]
