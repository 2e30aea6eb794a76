"""What Tidegate relies on in LangGraph and the libraries around it, a test each, in the order of the design.

Where one of these fails on a newer version, read what the design builds on it before mending the test.
"""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Protocol, TypedDict
from uuid import UUID

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphDrained, NodeTimeoutError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import RetryPolicy, Send

from tidegate.checkpointers.saving import StrictSerializer
from tidegate.errors import CircuitOpen, Transient

pytestmark = pytest.mark.slow  # they change with LangGraph, not with Tidegate


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Item(TypedDict):
    number: int


Graph = CompiledStateGraph[State, None, State, State]


class Node(Protocol):
    async def __call__(self, state: State) -> State: ...


class Branch(Protocol):
    def __call__(self, state: Item) -> Any: ...


def thread(thread_id: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}, **more}  # type: ignore[typeddict-item]


def chain(nodes: dict[str, Node], saver: InMemorySaver | None = None, **options: Any) -> Graph:
    """One node after the other."""
    builder = StateGraph(State)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for one, next_ in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(one, next_)
    return builder.compile(checkpointer=saver, **options)


def fan_out(branch: Branch, count: int, saver: InMemorySaver | None = None) -> Graph:
    """As many branches as told, at once."""
    builder = StateGraph(State)
    builder.add_node("branch", branch)
    builder.add_conditional_edges(START, lambda _: [Send("branch", {"number": n}) for n in range(count)], ["branch"])
    builder.add_edge("branch", END)
    return builder.compile(checkpointer=saver)


class Steps:
    """Nodes that note when they run, of which one may fail."""

    def __init__(self, *names: str) -> None:
        self.ran: list[str] = []
        self.failing = ""
        self.nodes: dict[str, Node] = {name: self._node(name) for name in names}

    def _node(self, name: str) -> Node:
        async def node(state: State) -> State:
            self.ran.append(name)
            if name == self.failing:
                raise Transient("service", "is down")
            return {"log": [name]}

        return node


async def test_01_input_given_again_is_a_new_run_unless_it_carries_the_threads_first_run_id() -> None:
    steps, saver = Steps("a", "b"), InMemorySaver()
    graph = chain(steps.nodes, saver)
    steps.failing = "b"
    for thread_id, metadata in (("resumed", {}), ("again", {}), ("constant", {"run_id": "r"})):
        with pytest.raises(Transient):
            await graph.ainvoke({"log": ["in"]}, thread(thread_id, metadata=metadata))
    steps.failing = ""

    steps.ran.clear()
    assert await graph.ainvoke(None, thread("resumed")) == {"log": ["in", "a", "b"]}
    assert steps.ran == ["b"]

    steps.ran.clear()
    assert await graph.ainvoke({"log": ["in"]}, thread("again")) == {"log": ["in", "a", "in", "a", "b"]}
    assert steps.ran == ["a", "b"]

    steps.ran.clear()
    same_run = thread("constant", metadata={"run_id": "r"})
    assert await graph.ainvoke({"log": ["in"]}, same_run) == {"log": ["in", "a", "b"]}
    assert steps.ran == ["b"]

    steps.ran.clear()  # now it is finished
    assert await graph.ainvoke({"log": ["another input"]}, same_run) == {"log": ["in", "a", "b"]}
    assert steps.ran == []
    await graph.ainvoke({"log": ["in"]}, thread("constant", metadata={"run_id": "another"}))
    assert steps.ran == ["a", "b"]


class Failing(InMemorySaver):
    """A saver that stops saving, as one of a killed process does."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_step: int | None = None
        self.lost_writes = False
        self.first_loss: Callable[[], None] = lambda: None

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if metadata.get("step") == self.lost_step:
            raise OSError("lost")
        return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        if self.lost_writes:
            self.first_loss()
            raise OSError("lost")
        await super().aput_writes(config, writes, task_id, task_path)


async def test_02_a_thread_with_no_next_node_may_be_unfinished() -> None:
    steps, saver = Steps("a", "b"), Failing()
    graph = chain(steps.nodes, saver)
    saver.lost_step = 1  # the process dies after the writes of a, before the checkpoint that holds them
    with pytest.raises(OSError, match="lost"):
        await graph.ainvoke({"log": []}, thread(), durability="sync")
    saver.lost_step = None

    unfinished = await graph.aget_state(thread())
    assert unfinished.next == ()
    assert [task.name for task in unfinished.tasks] == ["a"]
    assert await graph.ainvoke(None, thread()) == {"log": ["a", "b"]}
    assert steps.ran == ["a", "b"]
    finished = await graph.aget_state(thread())
    assert (finished.next, finished.tasks) == ((), ())


KILLED = """
    import asyncio, operator, os, signal, sys
    from typing import Annotated, TypedDict
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.errors import EmptyInputError
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    class State(TypedDict):
        done: Annotated[dict, operator.or_]

    class Item(TypedDict):
        number: int

    def build(saver, ran, *, deadly):
        async def first(state):
            ran("first")
            return {"done": {"first": True}}

        async def branch(state):
            ran(f"branch {state['number']}")
            if deadly and state["number"] == 99:  # the others have returned
                os.kill(os.getpid(), signal.SIGKILL)
            return {"done": {state["number"]: True}}

        builder = StateGraph(State)
        builder.add_node("first", first)
        builder.add_node("branch", branch)
        builder.add_edge(START, "first")
        sends = [Send("branch", {"number": number}) for number in range(100)]
        builder.add_conditional_edges("first", lambda state: sends, ["branch"])
        builder.add_edge("branch", END)
        return builder.compile(checkpointer=saver)

    async def run(file, durability, ran, given):
        async with AsyncSqliteSaver.from_conn_string(file) as saver:
            app = build(saver, ran, deadly=given is not None)
            try:
                await app.ainvoke(given, {"configurable": {"thread_id": "t"}}, durability=durability)
            except EmptyInputError:
                ran("nothing to resume")

    def ran(what):
        print(durability, what, flush=True)

    for durability in ("exit", "sync", "async"):
        for given in ({"done": {}}, None):
            child = os.fork()
            if not child:
                asyncio.run(run(f"{sys.argv[1]}/{durability}.db", durability, ran, given))
                os._exit(0)
            os.waitpid(child, 0)
"""


def test_03_no_durability_protects_a_branch_that_finished_before_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    ran = Counter(lines)
    assert ran["exit first"] == 1
    assert ran["exit nothing to resume"] == 1
    assert ran["sync first"] == 1  # its checkpoint was waited for
    for durability in ("sync", "async"):
        again = [number for number in range(99) if ran[f"{durability} branch {number}"] > 1]
        # Under `async` the first checkpoint may not be there yet, so that all is lost.
        assert len(again) >= 66 or (durability == "async" and ran["async nothing to resume"])


async def test_04_nothing_keeps_two_executions_of_a_thread_apart() -> None:
    frozen, entered = asyncio.Event(), asyncio.Event()
    executions = iter(("first", "second"))

    async def work(state: State) -> State:
        execution = next(executions)
        if execution == "first":
            entered.set()
            await frozen.wait()
        return {"log": [execution]}

    saver = InMemorySaver()
    graph = chain({"work": work}, saver)
    first = asyncio.create_task(graph.ainvoke({"log": []}, thread(), durability="sync"))
    await entered.wait()
    assert await graph.ainvoke(None, thread(), durability="sync") == {"log": ["second"]}
    assert (await graph.aget_state(thread())).values == {"log": ["second"]}

    frozen.set()  # the first wakes up
    assert await first == {"log": ["first"]}
    assert (await graph.aget_state(thread())).values == {"log": ["first"]}  # the second's result is orphaned
    parents = [str(each.parent_config) async for each in graph.aget_state_history(thread())]
    assert max(Counter(parents).values()) == 2


def _status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=httpx.Request("GET", "http://x"), response=httpx.Response(code))


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (_status(503), 3),
        (_status(429), 1),
        (OSError(), 1),
        (TimeoutError(), 1),
        (ConnectionError(), 3),
        (Exception(), 3),
        (CircuitOpen("service", retry_in=30.0), 3),
    ],
    ids=repr,
)
async def test_05_langgraphs_retry_takes_429_for_final_and_an_open_circuit_for_passing(
    error: Exception, calls: int
) -> None:
    assert await _calls(error, attempts_inside=1) == calls


async def test_05_retries_inside_a_node_that_is_retried_multiply() -> None:
    assert await _calls(Transient("service", "is down"), attempts_inside=3) == 9


async def _calls(error: Exception, *, attempts_inside: int) -> int:
    calls = 0

    async def call(state: State) -> State:
        nonlocal calls
        calls += attempts_inside
        raise error

    builder = StateGraph(State)
    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False)
    builder.add_node("call", call, retry_policy=policy)
    builder.add_edge(START, "call")
    with pytest.raises(type(error)):
        await builder.compile().ainvoke({"log": []})
    return calls


async def test_06_only_async_nodes_have_timeouts_and_handlers_do_not_get_the_default() -> None:
    async def slow(state: State) -> State:
        await asyncio.sleep(0.03)
        return {"log": ["slow"]}

    def sync(state: State) -> State:
        return {"log": ["sync"]}

    async def fail(state: State) -> State:
        raise Transient("service", "is down")

    def graph(node: Any, **options: Any) -> Graph:
        builder = StateGraph(State)
        builder.set_node_defaults(timeout=0.01)
        builder.add_node("node", node, **options)
        builder.add_edge(START, "node")
        return builder.compile()

    with pytest.raises(NodeTimeoutError):
        await graph(slow).ainvoke({"log": []})
    with pytest.raises(ValueError, match="only supported for async nodes"):
        await graph(sync).ainvoke({"log": []})
    assert await graph(fail, error_handler=slow).ainvoke({"log": []}) == {"log": ["slow"]}


class Noting(InMemorySaver):
    """A saver that counts what branches wrote."""

    saved = 0
    noted: Callable[[], None] = staticmethod(lambda: None)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        super().put_writes(config, writes, task_id, task_path)
        if ("log", ["branch"]) in writes:
            self.saved += 1
            self.noted()


async def test_07_in_sync_graphs_finished_branches_wait_to_become_durable() -> None:
    first_may_end, others_may_end, counts = threading.Event(), threading.Event(), []
    started = 0
    threads = ThreadPoolExecutor()._max_workers  # of the pool that LangGraph makes, too

    def branch(state: Item) -> State:
        nonlocal started
        started += 1
        (others_may_end if state["number"] else first_may_end).wait(10)
        return {"log": ["branch"]}

    def watch() -> None:
        for may_end, taken in ((first_may_end, threads), (others_may_end, threads + 1)):
            while started < taken:
                time.sleep(0.005)
            counts.append(saver.saved)
            may_end.set()

    saver = Noting()
    graph = fan_out(branch, 64, saver)
    await asyncio.gather(asyncio.to_thread(lambda: graph.invoke({"log": []}, thread())), asyncio.to_thread(watch))
    assert counts == [0, 0]
    assert saver.saved == 64


async def test_07_in_async_graphs_finished_branches_become_durable_at_once() -> None:
    others_may_end, saved = asyncio.Event(), asyncio.Event()

    async def branch(state: Item) -> State:
        if state["number"]:
            await others_may_end.wait()
        return {"log": ["branch"]}

    saver = Noting()
    saver.noted = saved.set
    running = asyncio.create_task(fan_out(branch, 64, saver).ainvoke({"log": []}, thread()))
    async with asyncio.timeout(10):
        await saved.wait()
    assert saver.saved == 1
    others_may_end.set()
    await running


async def test_08_a_renamed_node_is_skipped_in_silence_unless_the_old_name_stays_too() -> None:
    saver = InMemorySaver()
    for thread_id in ("renamed", "kept"):
        old = chain(Steps("a", "old").nodes, saver, interrupt_before=["old"])
        assert await old.ainvoke({"log": []}, thread(thread_id)) == {"log": ["a"]}

    steps = Steps("a", "new")
    assert await chain(steps.nodes, saver).ainvoke(None, thread("renamed")) == {"log": ["a"]}
    snapshot = await chain(steps.nodes, saver).aget_state(thread("renamed"))
    assert (snapshot.next, snapshot.tasks) == ((), ())
    assert steps.ran == []

    builder = chain(steps.nodes).builder
    builder.add_node("old", steps.nodes["new"])
    builder.add_edge("old", END)
    assert await builder.compile(checkpointer=saver).ainvoke(None, thread("kept")) == {"log": ["a", "new"]}


async def test_09_a_branch_that_raises_cancels_its_siblings() -> None:
    cancelled: list[int] = []

    async def branch(state: Item) -> State:
        if state["number"] == 0:
            await asyncio.sleep(0.01)
            raise Transient("service", "is down")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(state["number"])
            raise
        return {"log": ["branch"]}

    with pytest.raises(Transient):
        await fan_out(branch, 5).ainvoke({"log": []})
    assert sorted(cancelled) == [1, 2, 3, 4]


async def test_10_a_drained_run_stops_after_the_superstep_and_can_be_resumed() -> None:
    steps, saver, control = Steps("a", "b"), InMemorySaver(), RunControl()

    async def drain(state: State) -> State:
        control.request_drain()
        return {"log": ["drain"]}

    graph = chain({"drain": drain, **steps.nodes}, saver)
    with pytest.raises(GraphDrained):
        await graph.ainvoke({"log": []}, thread(), control=control)
    assert steps.ran == []
    assert await graph.ainvoke(None, thread()) == {"log": ["drain", "a", "b"]}


@dataclass
class Stranger:
    name: str


def test_11_any_type_is_loaded_unless_strict_and_then_becomes_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = JsonPlusSerializer().dumps_typed([Stranger("x")])
    assert JsonPlusSerializer().loads_typed(stored) == [Stranger("x")]
    monkeypatch.setattr(_msgpack, "STRICT_MSGPACK_ENABLED", True)  # what LANGGRAPH_STRICT_MSGPACK=true sets
    assert JsonPlusSerializer().loads_typed(stored) == [{"name": "x"}]
    assert StrictSerializer().loads_typed(stored) == [{"name": "x"}]


class Level(Enum):
    HIGH = "high"


@pytest.mark.parametrize(
    "value",
    [
        Send("enrich", {"id": "e1", "text": "Bangor"}),
        [Send("a", {"inner": [Send("b", None)]}), Send("c", 1, timeout=2.5)],
        {"n": 1, "f": 1.5, "t": ("x", True), "none": None, "raw": b"\0", 7: {"int": "key"}},
        {"lone": "\ud800", "set": {1}, "when": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=5)},
        [Stranger("x"), Level.HIGH, HumanMessage("hello", id="1"), Path("a"), ValueError("v")],
        [],
    ],
    ids=str,
)
def test_our_serializer_writes_the_bytes_that_langgraphs_writes(value: object) -> None:
    assert StrictSerializer().dumps_typed(value) == JsonPlusSerializer().dumps_typed(value)


async def test_12_paid_calls_go_on_after_the_saver_has_failed() -> None:
    calls = 0
    calls_at_failure = -1

    async def branch(state: Item) -> State:
        nonlocal calls
        await asyncio.sleep(0.002 * state["number"])
        calls += 1
        return {"log": ["branch"]}

    def note() -> None:
        nonlocal calls_at_failure
        calls_at_failure = calls if calls_at_failure < 0 else calls_at_failure

    saver = Failing()
    saver.lost_writes, saver.first_loss = True, note
    with pytest.raises(OSError, match="lost"):
        await fan_out(branch, 20, saver).ainvoke({"log": []}, thread(), durability="sync")
    assert calls_at_failure >= 0
    assert calls - calls_at_failure >= 10


async def test_13_a_chat_model_repeats_requests_by_itself_unless_told_not_to() -> None:
    chat_models = pytest.importorskip("langchain.chat_models", reason="needs the extra openai")
    openai = pytest.importorskip("openai", reason="needs the extra openai")
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        requests += 1
        writer.write(b"HTTP/1.1 503 Down\r\nretry-after-ms: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        for options, expected in (({}, 3), ({"max_retries": 0}, 1)):
            requests = 0
            model = chat_models.init_chat_model(
                "openai:scripted", base_url=f"http://127.0.0.1:{port}/v1", api_key="none", **options
            )
            with pytest.raises(openai.InternalServerError):
                await model.ainvoke("hello")
            assert requests == expected


async def test_14_httpx_does_not_apply_timeouts_to_an_app_that_it_calls_itself() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.03)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app", timeout=0.001) as client:
        assert (await client.get("/")).status_code == 204
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.get("/")
