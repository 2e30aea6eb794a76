"""A pipeline as a step of another graph, and as a tool of an agent."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from tidegate.errors import TidegateError
from tidegate.graph.result import Result
from tidegate.graph.thread_ids import default_thread_id
from tidegate.graph.wiring import Source
from tidegate.settings import Policy
from tidegate.state import Input

_Result = TypeVar("_Result")


class Runner(Protocol):
    """What is needed of a pipeline; see `tidegate.graph.runner.Pipeline`."""

    async def run(
        self,
        source: Source | None = None,
        *,
        name: str | None = None,
        thread_id: str | None = None,
        when_open: Policy | None = None,
    ) -> Result:
        """Take a document in and bring its thread as far as it gets."""
        ...

    async def take_in(self, source: Source | None = None, *, name: str | None = None) -> Input:
        """Read a document into the document store, and return the graph's input for it."""
        ...

    async def resume(self, thread_id: str, *, when_open: Policy | None = None) -> Result:
        """Bring a thread as far as it can get now."""
        ...

    def block_on(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the pipeline's event loop, blocking this thread."""
        ...


def as_node(pipeline: Runner, document: str, thread: str, result: str) -> RunnableLambda[Any, dict[str, Any]]:
    """Return the step; see `Pipeline.as_node`."""

    def arguments(state: Mapping[str, Any]) -> dict[str, Any]:
        return {"source": state[document], "thread_id": state.get(thread)}

    async def run(state: Mapping[str, Any]) -> dict[str, Any]:
        return {result: (await pipeline.run(**arguments(state))).to_dict()}

    def run_sync(state: Mapping[str, Any]) -> dict[str, Any]:
        return pipeline.block_on(run(state))

    return RunnableLambda(run_sync, run, name="tidegate")


class _Arguments(BaseModel):
    text: str | None = Field(default=None, description="the text to summarize")
    path: str | None = Field(default=None, description="the file to summarize, relative to the documents' folder")
    thread_id: str | None = Field(default=None, description="the thread ID of an earlier answer, to complete it")


def as_tool(pipeline: Runner, root: str | PathLike[str] | None, namespace: str) -> BaseTool:
    """Return the tool; see `Pipeline.as_tool`."""
    if not namespace:
        raise ValueError("the namespace of a tool's threads cannot be empty: it keeps all other threads from the model")
    folder = None if root is None else Path(root).resolve()

    def file_of(path: str) -> Path:
        if folder is None:
            raise ToolException("files cannot be read here; pass the text itself")
        file = (folder / path).resolve()
        if not file.is_relative_to(folder):
            raise ToolException(f"{path} is outside of the documents' folder")
        return file

    async def run(text: str | None = None, path: str | None = None, thread_id: str | None = None) -> dict[str, Any]:
        try:
            if text is None and path is None:
                if thread_id is None:
                    raise ToolException("pass `text` or `path`, or the `thread_id` of an earlier answer")
                if not thread_id.startswith(namespace):  # the host's other threads are none of the model's business
                    raise ToolException(f"{thread_id} is not the `thread_id` of an earlier answer")
                return _answer(await pipeline.resume(thread_id, when_open="degrade"))
            document = text.encode() if text is not None else file_of(path or "")
            name = "text" if text is not None else path
            own_thread = namespace + default_thread_id(await pipeline.take_in(document, name=name))
            return _answer(await pipeline.run(document, name=name, thread_id=own_thread, when_open="degrade"))
        except TidegateError as error:
            raise ToolException(_told(error, folder)) from error

    def run_sync(text: str | None = None, path: str | None = None, thread_id: str | None = None) -> dict[str, Any]:
        return pipeline.block_on(run(text, path, thread_id))

    return StructuredTool.from_function(
        func=run_sync,
        coroutine=run,
        name="summarize_document",
        description="Summarize a document, with the people, organisations, places, dates and sums it names. "
        "The answer says what is missing while a service is down; pass its thread_id later to complete it.",
        args_schema=_Arguments,
        handle_tool_error=True,
    )


def _answer(result: Result) -> dict[str, Any]:
    """Return what a model can use of a result: no offsets, no hashes."""
    return {
        "thread_id": result.thread_id,
        "status": result.status,
        "title": result.title,
        "summary": result.text,
        "entities": [
            {
                "text": entity.text,
                "type": entity.type,
                **(entity.value or {}),
                **({"found": result.enrichments[entity.id].data} if _found(result, entity.id) else {}),
            }
            for entity in result.entities[:50]
        ],
        "missing": [f"{item.what}: {item.why}" for item in result.missing[:20]],
        "retry_in": result.retry_in,
    }


def _found(result: Result, entity_id: str) -> bool:
    return entity_id in result.enrichments and result.enrichments[entity_id].data is not None


def _told(error: TidegateError, folder: Path | None) -> str:
    return str(error) if folder is None else str(error).replace(f"{folder}/", "")
