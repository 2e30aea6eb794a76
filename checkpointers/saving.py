"""What saving a checkpoint is everywhere: strict about types, seen in a span, and never half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_POS_ARGS, JsonPlusSerializer
from langgraph.types import Send

from tidegate.store.leases import stopping
from tidegate.telemetry import names, spans

_Value = TypeVar("_Value")

TAKEN = "exists already; delete it, or copy to another ID"
"""What is the matter with a thread that another one cannot be copied to."""

_OPTIONS = (
    ormsgpack.OPT_NON_STR_KEYS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_REPLACE_SURROGATES
)
_OFTEN = frozenset({dict, list, Send})
_NAME_OF_SEND = (Send.__module__, Send.__name__)


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, loading no type outside LangGraph's own list of harmless ones.

    LangGraph's default imports and calls whatever class or function the stored bytes name.

    The bytes are LangGraph's own. It finds out what is a `Send` by asking whether an object fits a Protocol, which on
    Python 3.11 takes longer than all else that saving a branch does; here they are known by their type.
    """

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize."""
        if type(obj) in _OFTEN:
            try:
                return "msgpack", _pack(obj)
            except ormsgpack.MsgpackEncodeError:  # something else is in it
                pass
        return super().dumps_typed(obj)


def _pack(obj: Any) -> bytes:
    return ormsgpack.packb(obj, default=_send, option=_OPTIONS)


def _send(obj: Any) -> ormsgpack.Ext:
    if type(obj) is not Send or obj.timeout is not None:
        raise TypeError
    return ormsgpack.Ext(EXT_CONSTRUCTOR_POS_ARGS, _pack((*_NAME_OF_SEND, (obj.node, obj.arg))))


class Address(NamedTuple):
    """Which checkpoint."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str

    def config(self) -> RunnableConfig:
        """Return the config that names it."""
        return {"configurable": self._asdict()}


def put_span(config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> spans.CheckpointPut:
    """Open the span of one `put`."""
    parent = config.get("configurable", {}).get(names.TRACEPARENT)
    return spans.checkpoint_put(checkpoint["id"], metadata.get("step", 0), metadata.get("source", ""), parent=parent)


async def uninterrupted(work: Coroutine[Any, Any, _Value]) -> _Value:
    """Await `work` to its end; a cancellation meanwhile takes effect after it, a second one at once.

    A cancelled execution thus leaves no write behind that lands later, and no transaction open. One whose lease turns
    out to be lost is stopped.
    """
    task = asyncio.create_task(work)
    try:
        with stopping():
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise


@runtime_checkable
class Fenced(Protocol):
    """A saver that checks leases outside of the transaction in which they change."""

    async def afence(self, thread_id: str) -> None:
        """Return once no write that passed its check before can land any more."""
        ...
