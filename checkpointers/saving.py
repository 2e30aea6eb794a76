"""What a saver is everywhere: strict about types, seen in a span, never half done, and pruned by the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_POS_ARGS, JsonPlusSerializer
from langgraph.types import Send

from tidegate.checkpointers.retention import Rule, deletes_all, latest_only, newest, younger
from tidegate.errors import CheckpointDamaged
from tidegate.store.leases import Lease, stopping
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


class Pruned(NamedTuple):
    """How many checkpoints were removed, and of how many threads."""

    checkpoints: int
    threads: int

    @classmethod
    def of(cls, removed: Sequence[int]) -> Pruned:
        """Sum up what was removed of each thread."""
        return cls(sum(removed), sum(map(bool, removed)))


def prune_each(threads: Iterable[_Value], prune: Callable[[_Value], int]) -> Pruned:
    """Prune all threads, and then raise the first of the errors of those that are damaged."""
    damaged: list[CheckpointDamaged] = []
    removed: list[int] = []
    for thread in threads:
        try:
            removed.append(prune(thread))
        except CheckpointDamaged as error:
            damaged.append(error)
    if damaged:
        raise damaged[0]
    return Pruned.of(removed)


def _refuse_one(thread_ids: Sequence[str]) -> None:
    if isinstance(thread_ids, str):
        raise TypeError(f"give a list of thread IDs, as [{thread_ids!r}]")


class Saver(BaseCheckpointSaver[Any]):
    """What each saver here offers besides LangGraph's interface, and how all of them prune.

    Whatever is pruned, the rules of `tidegate.checkpointers.retention` keep what a thread goes on from and what it
    published. Each thread is pruned at one stroke, and may be run meanwhile: an execution goes on from the latest
    checkpoint of its thread, which stays, as does all that is newer. Only one that was told to start from an earlier
    checkpoint may find it gone.
    """

    async def adelete_thread(self, thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """Delete a thread.

        Raises:
            LeaseLost: another process has taken over one of the leases, and nothing was deleted.
        """
        raise NotImplementedError

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """Copy a thread to an ID that has none, all of it or nothing; a source that does not exist is nothing.

        Raises:
            ThreadError: there is a thread under the target ID.
            LeaseLost: another process has taken over one of the leases, and nothing was copied.
        """
        raise NotImplementedError

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep only what these threads need to go on and what they published (`keep_latest`), or nothing (`delete`).

        Kept are, in every namespace, the latest checkpoint with what tasks wrote on it; of every revision the
        checkpoint that published it and the last one; and the earlier ones that a kept one's delta channels are built
        on.

        Raises:
            ValueError: there is no such strategy.
            TypeError: `thread_ids` is one text, which would be taken letter by letter.
            CheckpointDamaged: a checkpoint that is to be kept cannot be read. Its thread is left as it is, all others
                were pruned; of several such threads the first is named.
        """
        _refuse_one(thread_ids)
        if deletes_all(strategy):
            for thread_id in thread_ids:
                self.delete_thread(str(thread_id))
        else:
            prune_each(thread_ids, lambda thread_id: self._prune_thread(str(thread_id), latest_only))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        _refuse_one(thread_ids)
        if deletes_all(strategy):
            for thread_id in thread_ids:
                await self.adelete_thread(str(thread_id))
        else:
            await self._aprune_each([str(each) for each in thread_ids], latest_only)

    def keep_last(self, count: int) -> Pruned:
        """Of all threads, keep the newest `count` checkpoints of every namespace, and what `prune` keeps.

        Raises:
            ValueError: `count` is below 1.
            CheckpointDamaged: as `prune`.
        """
        return self.prune_all(newest(count))

    async def akeep_last(self, count: int) -> Pruned:
        """As `keep_last`."""
        return await self.aprune_all(newest(count))

    def prune_older_than(self, seconds: float) -> Pruned:
        """Of all threads, delete the checkpoints that are older than this, but not what `prune` keeps.

        Every thread can thus be resumed and shows its results, however old it is; `delete_thread` removes one. SQLite
        counts from when a checkpoint was stored, the others from its `ts`.

        Raises:
            ValueError: `seconds` is no age.
            CheckpointDamaged: as `prune`.
        """
        return self.prune_all(younger(seconds))

    async def aprune_older_than(self, seconds: float) -> Pruned:
        """As `prune_older_than`."""
        return await self.aprune_all(younger(seconds))

    def prune_all(self, rule: Rule) -> Pruned:
        """Of all threads, keep what `prune` keeps and what a rule of `tidegate.checkpointers.retention` says.

        Raises:
            CheckpointDamaged: as `prune`.
        """
        return prune_each(self._thread_ids(), lambda thread_id: self._prune_thread(thread_id, rule))

    async def aprune_all(self, rule: Rule) -> Pruned:
        """As `prune_all`."""
        return await self._aprune_each(await self._athread_ids(), rule)

    async def _aprune_each(self, thread_ids: Sequence[str], rule: Rule) -> Pruned:
        damaged: list[CheckpointDamaged] = []
        removed: list[int] = []
        for thread_id in thread_ids:
            try:
                removed.append(await self._aprune_thread(thread_id, rule))
            except CheckpointDamaged as error:
                damaged.append(error)
        if damaged:
            raise damaged[0]
        return Pruned.of(removed)

    def _thread_ids(self) -> Sequence[str]:
        raise NotImplementedError

    async def _athread_ids(self) -> Sequence[str]:
        raise NotImplementedError

    def _prune_thread(self, thread_id: str, rule: Rule) -> int:
        """Prune one thread, and return how many checkpoints were removed."""
        raise NotImplementedError

    async def _aprune_thread(self, thread_id: str, rule: Rule) -> int:
        raise NotImplementedError


@runtime_checkable
class Fenced(Protocol):
    """A saver that checks leases outside of the transaction in which they change."""

    async def afence(self, thread_id: str) -> None:
        """Return once no write that passed its check before can land any more."""
        ...
