"""The examples do what they say, and the pipeline fits into other graphs, agents and threads."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall, ToolMessage

from tests.fakes import ScriptedChat
from tests.servers.enrichment import EnrichmentServer
from tidegate import Pipeline, Settings
from tidegate.errors import WrongThread
from tidegate.testing import ManualClock

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = "Ferries from Dover reach Calais in ninety minutes. They go on to Hamburg in Germany."


def example(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")
    (tmp_path / "note.txt").write_text(TEXT)
    return tmp_path / "note.txt"


async def test_the_quickstart_prints_the_summary(note: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await example("quickstart").main(str(note))
    printed = capsys.readouterr().out
    assert printed.startswith("complete\nFerries from Dover reach Calais")
    assert "LOC Hamburg" in printed


class ToolCaller(GenericFakeChatModel):
    """An agent's model that calls the tool, then repeats what it was told."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def calls(**arguments: Any) -> Iterator[AIMessage]:
    yield AIMessage("", tool_calls=[ToolCall(name="summarize_document", args=arguments, id="1")])
    yield AIMessage("done")


async def test_an_agent_summarizes_a_file_of_its_folder(note: Path) -> None:
    assert (
        await example("agent").ask(ToolCaller(messages=calls(path="note.txt")), "What is in note.txt?", ".") == "done"
    )


async def test_the_outer_graph_goes_on_after_the_subgraph(note: Path) -> None:
    state = await example("subgraph").main(str(note))
    assert state["verdict"] == "publish"
    assert state["summary"]["sentences"]


async def test_the_next_document_of_an_outer_thread_replaces_what_the_first_one_named(note: Path) -> None:
    (note.parent / "other.txt").write_text("They sail from Rotterdam in the Netherlands to Oslo in Norway every week.")
    async with Pipeline.open(Settings.read(checkpoints="memory:")) as pipeline:
        outer = example("subgraph").build(pipeline)
        config = {"configurable": {"thread_id": "outer"}}
        first = await outer.ainvoke({"path": "note.txt"}, config)
        second = await outer.ainvoke({"path": "other.txt"}, config)
    assert {entity["text"] for entity in first["entities"].values()} >= {"Hamburg", "Germany"}
    text = second["document"]["text"]
    assert second["entities"]
    for entity in second["entities"].values():
        assert text[entity["mentions"][0]["start"] : entity["mentions"][0]["end"]] == entity["text"]


def test_a_synchronous_graph_has_the_pipeline_as_a_step(note: Path) -> None:
    state = example("sync_graph").main(str(note))
    assert state["subject"] == f"[complete] {state['result']['title']}"


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "link/secret.txt"])
async def test_the_tool_reads_nothing_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("a secret")
    root = tmp_path / "documents"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    async with Pipeline.open(Settings(checkpoints="memory:", recogniser="rules")) as pipeline:
        answer = await pipeline.as_tool(root=root).ainvoke({"path": path})
    assert answer == f"{path} is outside of the documents' folder"


async def test_the_tool_without_a_folder_reads_no_file(note: Path) -> None:
    async with Pipeline.open(Settings(checkpoints="memory:", recogniser="rules")) as pipeline:
        tool = pipeline.as_tool()
        assert await tool.ainvoke({"path": "note.txt"}) == "files cannot be read here; pass the text itself"
        assert (await tool.ainvoke({"text": TEXT}))["status"] == "complete"
        assert "pass `text` or `path`" in await tool.ainvoke({})
        assert "does not exist" in await tool.ainvoke({"thread_id": "tool-nope"})
        await pipeline.run(text=TEXT, thread_id="minutes-of-the-board")
        assert "is not the `thread_id` of an earlier answer" in await tool.ainvoke(
            {"thread_id": "minutes-of-the-board"}
        )


async def test_the_tool_degrades_whatever_the_policy_and_completes_its_answer_later(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer(then=503) as server:
        enrichment: Any = {"adapter": "http", "url": server.url, "when_open": "wait", "types": ["LOC"]}
        settings = Settings(checkpoints="memory:", recogniser="rules", enrichment=enrichment)
        async with Pipeline.open(settings, clock=clock) as pipeline:
            tool = pipeline.as_tool()
            first = await tool.ainvoke({"text": TEXT})
            assert first["status"] == "degraded"
            server.follow(())
            clock.advance(31.0)
            assert (await tool.ainvoke({"thread_id": first["thread_id"]}))["status"] == "complete"


async def test_a_thread_of_the_tool_is_its_own_inside_of_an_agents_run(note: Path) -> None:
    """LangGraph would otherwise take the pipeline's graph for a subgraph of the agent's."""
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver

    async with Pipeline.open(Settings.read(checkpoints="memory:")) as pipeline:
        tool = pipeline.as_tool(root=".")
        model = ToolCaller(messages=calls(path="note.txt"))
        agent: Any = create_agent(model, tools=[tool], checkpointer=InMemorySaver())
        state = await agent.ainvoke({"messages": [("user", "?")]}, {"configurable": {"thread_id": "agent"}})
        answer = next(json.loads(m.text) for m in state["messages"] if isinstance(m, ToolMessage))
        assert (await pipeline.inspect(answer["thread_id"])).status == "complete"


async def test_a_pipeline_serves_other_event_loops_and_threads(note: Path) -> None:
    async with Pipeline.open(Settings.read(checkpoints="memory:")) as pipeline:

        def elsewhere() -> str:
            return asyncio.run(pipeline.run(text=TEXT)).status

        def blocking() -> str:
            return pipeline.run_sync(text=TEXT).status

        assert await asyncio.to_thread(elsewhere) == "complete"
        assert await asyncio.to_thread(blocking) == "complete"
        with pytest.raises(WrongThread, match="await the async method"):
            pipeline.run_sync(text=TEXT)


async def test_leaving_a_stream_early_cancels_the_execution_which_can_be_resumed(note: Path) -> None:
    async with Pipeline.open(Settings.read(checkpoints="memory:")) as pipeline:
        stream = pipeline.stream(text=TEXT, thread_id="t")
        async for event in stream:
            if (event.kind, event.step) == ("finished", "extract"):
                break
        await stream.aclose()
        assert (await pipeline.inspect("t")).status == "unfinished"
        assert (await pipeline.resume("t")).status == "complete"


async def test_a_stream_yields_the_words_of_the_model_and_the_result_last(note: Path) -> None:
    model = ScriptedChat(answer=lambda _: "Ferries cross from Dover. [1]")
    async with Pipeline.open(Settings.read(checkpoints="memory:"), model=model) as pipeline:
        events = [event async for event in pipeline.stream(text=TEXT, tokens=True)]
    assert "".join(event.text for event in events if event.kind == "token") == "Ferries cross from Dover. [1]"
    assert events[-1].result is not None
    assert events[-1].result.text == "Ferries cross from Dover."
    assert events[-1].result.summary is not None
    assert events[-1].result.summary.usage is not None
