"""Looking after threads: what there is, what ails it, and how to be rid of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

from tidegate.checkpointers.retention import all_of, newest, younger
from tidegate.checkpointers.saving import TAKEN, Pruned, Saver
from tidegate.checkpointers.sqlite import SqliteSaver
from tidegate.errors import (
    CheckpointDamaged,
    DocumentNotFound,
    LeaseLost,
    SettingsError,
    ThreadBusy,
    ThreadError,
)
from tidegate.graph.looking import Looks, check_unpublished
from tidegate.graph.thread_ids import check_thread_id, existing, not_found
from tidegate.resilience.journal import Journal
from tidegate.services.intake import shown
from tidegate.store import expiry, inbox, integrity, outbox
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.leases import Lease, Leases, check
from tidegate.store.registry import Registry, ThreadRecord
from tidegate.store.transactions import Connection, Store

_FINISHED = frozenset({"complete", "degraded"})
_LEFT = frozenset({*_FINISHED, "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Whether this code can resume a thread; `problem` says why not, and is empty if it can."""

    thread_id: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A thread that is not finished, or whose results are gone: what is the matter, and what helps.

    `running`: under a lease, now. `waiting`: for a circuit. `failed`: with an error. `interrupted`: its process ended,
    or was killed. `queued`: not begun. `dead`: a service gave it up. `lagging`: finished, and the list of threads does
    not know. `incompatible`, `damaged`: cannot go on.
    """

    thread_id: str
    state: Literal[
        "running", "waiting", "failed", "interrupted", "queued", "dead", "lagging", "incompatible", "damaged"
    ]
    reason: str
    helps: Literal["resume", "retry", "delete", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was removed with a document: its SHA-256, the IDs of its threads, and how many journaled calls."""

    document_id: str
    threads: tuple[str, ...]
    calls: int


class Upkeep:
    """Works on the threads of one store.

    What deletes or copies a thread takes its lease first, and writes nothing once that is lost. Pruning needs none: see
    `tidegate.checkpointers.saving.Saver`.
    """

    def __init__(
        self,
        saver: Saver,
        looks: Looks,
        *,
        store: Store,
        registry: Registry,
        documents: Documents,
        leases: Leases,
        journal: Journal,
    ) -> None:
        self._saver = saver
        self._looks = looks
        self._store = store
        self._registry = registry
        self._documents = documents
        self._leases = leases
        self._journal = journal

    async def delete(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints and its place in the list. Its document and its answers stay.

        One that was taken over from another saver is in no list, and can be deleted all the same.

        Raises:
            ThreadNotFound: there is none.
            ThreadBusy: it is being run.
            LeaseLost: another process took it over meanwhile, since this one was silent for too long.
        """
        check_thread_id(thread_id)
        if await self._registry.get(thread_id) is None and not await self._has_checkpoints(thread_id):
            raise not_found(thread_id)
        async with self._leases.hold(thread_id) as lease:
            await self._saver.adelete_thread(thread_id, leases=[lease])
            await self._registry.delete(thread_id, lease, also=outbox.forget)

    async def copy(self, thread_id: str, to: str) -> None:
        """Copy a thread, its history included, to an ID that has none.

        Raises:
            ThreadNotFound: there is no such thread.
            CheckpointDamaged: its checkpoints are gone, or one of them cannot be read.
            ThreadError: there is one under the other ID.
            ThreadBusy: one of them is being run.
            LeaseLost: as `delete`, of one of them.
        """
        check_thread_id(to)
        await existing(self._registry, thread_id)
        if to == thread_id:
            raise ThreadError(to, TAKEN)
        async with self._leases.hold(thread_id) as lease, self._leases.hold(to) as lease_of_copy:
            record = await existing(self._registry, thread_id)
            if not await self._has_checkpoints(thread_id):
                check_unpublished(record)
            if await self._registry.get(to) is not None:
                raise ThreadError(to, TAKEN)
            await self._saver.acopy_thread(thread_id, to, leases=[lease, lease_of_copy])
            await self._registry.put(replace(record, thread_id=to), lease_of_copy)

    async def prune(self, *, keep_last: int | None = None, older_than: float | None = None) -> Pruned:
        """Remove checkpoints of all threads: all but the newest `keep_last`, and those `older_than` so many seconds.

        The newest of each thread and what was published by each revision stay. Threads may be run meanwhile.

        Raises:
            CheckpointDamaged: one that has to stay cannot be read; its thread is left as it is.
        """
        rules = [] if keep_last is None else [newest(keep_last)]
        rules += [] if older_than is None else [younger(older_than)]
        return await self._saver.aprune_all(all_of(rules))

    async def forget(self, document: str) -> Forgotten:
        """Remove a document and all that was made of it: threads, answers that were recorded for it, raw bytes.

        `document` is its SHA-256 or the beginning of that (8 digits at least), or its source as threads name it.

        Raises:
            DocumentNotFound: there is none, or there are several.
            ThreadBusy: one of its threads is being run.
            LeaseLost: as `delete`, of one of them; what was not removed yet can be forgotten again.
        """
        records = await self._registry.of_document(shown(document))
        found = sorted({record.document_id for record in records} | set(await self._documents.named(document)))
        if len(found) != 1:
            raise DocumentNotFound(document, found)
        leases: list[Lease] = []
        async with AsyncExitStack() as held:
            # Until no thread is new: one may have been run while the others were waited for.
            while new := await self._threads_of(found[0]) - {lease.thread_id for lease in leases}:
                leases += [await held.enter_async_context(self._leases.hold(thread_id)) for thread_id in sorted(new)]
            # The list of threads goes last: while it names one, what is left can be found and forgotten again.
            calls = await self._journal.forget(found[0], leases)
            for lease in leases:
                await self._saver.adelete_thread(lease.thread_id, leases=leases)
            await self._documents.delete(found[0], leases)
            for lease in leases:
                await self._registry.delete(lease.thread_id, lease, also=_forget)
        return Forgotten(document_id=found[0], threads=tuple(lease.thread_id for lease in leases), calls=calls)

    async def forget_finished(self, older_than: float) -> int:
        """Remove what has been over for so many seconds; see `Pipeline.forget_finished`."""
        if not older_than >= expiry.SHORTEST:
            least = f"{expiry.SHORTEST:.0f} seconds, a day, at least"
            raise SettingsError(f"finished threads are kept for {least}, not {older_than:g}; keep them longer")
        forgotten, after = 0, ""
        while found := await self._store.read(partial(expiry.over, seconds=older_than, after=after)):
            for thread_id in found:
                forgotten += await self._forget_finished(thread_id, older_than)
            after = found[-1]
        for forget in (expiry.forget_events, expiry.forget_leases):
            while await self._store.write(partial(forget, seconds=older_than)) == expiry.PORTION:
                pass
        return forgotten

    async def _forget_finished(self, thread_id: str, older_than: float) -> bool:
        try:
            async with self._leases.hold(thread_id) as lease:
                if not await self._store.read(partial(expiry.is_over, thread_id=thread_id, seconds=older_than)):
                    return False  # somebody saw to it meanwhile
                await self._saver.adelete_thread(thread_id, leases=[lease])

                def forget(connection: Connection) -> None:
                    check(connection, lease)
                    expiry.forget(connection, thread_id, older_than)

                await self._store.write(forget)
        except (ThreadBusy, LeaseLost):
            return False
        return True

    async def forget_not_found(self) -> int:
        """Drop what services answered by "not found", and return how many answers that were."""
        return await self._journal.forget_not_found()

    async def _threads_of(self, document_id: str) -> set[str]:
        records = await self._registry.of_document(document_id)
        return {record.thread_id for record in records if record.document_id == document_id}

    async def check_threads(self) -> list[Checked]:
        """Say of every thread in the list whether this code can resume it: for use before a deploy."""
        return [
            Checked(thread_id=record.thread_id, problem=await self._problem(record.thread_id))
            for record in await self._registry.threads(limit=None)
        ]

    async def _problem(self, thread_id: str) -> str:
        try:
            await self._looks.inspect(thread_id)
        except ThreadError as error:
            return error.problem
        return ""

    async def diagnose(self) -> list[Finding]:
        """Return what is not finished and why, and what published a result that is gone, the longest untouched first.

        A degraded thread is finished.
        """
        return [
            await self._finding(record)
            for record in reversed(await self._registry.threads(limit=None))
            if record.status not in _LEFT
            or (record.status in _FINISHED and not await self._has_checkpoints(record.thread_id))
        ]

    async def _finding(self, record: ThreadRecord) -> Finding:
        thread_id = record.thread_id
        if (busy := await self._leases.holder(thread_id)) is not None:
            return Finding(thread_id=thread_id, state="running", reason=busy.problem, helps="nothing")
        if record.status == "queued":
            return Finding(thread_id=thread_id, state="queued", reason="waits to be begun by a service", helps="resume")
        if record.status == "dead":
            helps: Literal["retry", "delete"] = "retry" if record.document_id else "delete"
            return Finding(thread_id=thread_id, state="dead", reason=record.error or "", helps=helps)
        try:
            result = await self._looks.inspect(thread_id)
            orphans = await self._orphans(thread_id)
        except CheckpointDamaged as error:
            return Finding(thread_id=thread_id, state="damaged", reason=error.problem, helps="delete")
        except ThreadError as error:
            return Finding(thread_id=thread_id, state="incompatible", reason=error.problem, helps="nothing")
        if result.status in _FINISHED:
            reason = f"{result.status}, and the list of threads does not know yet"
            return Finding(thread_id=thread_id, state="lagging", reason=reason, helps="resume")
        where = f"before {', '.join(dict.fromkeys(result.next))}" if result.next else "before its first step"
        fork = f"; {orphans} of its checkpoints are a fork that led nowhere" if orphans else ""
        state: Literal["waiting", "failed", "interrupted"] = "interrupted"
        reason = f"its process ended {where}"
        if result.status == "waiting":
            when = f"to be tried in {result.retry_in:.0f} s" if result.retry_in else "to be tried now"
            if result.held_open:
                when = "; ".join(f"held open until `tidegate circuits --reset {name}`" for name in result.held_open)
            state, reason = "waiting", f"{result.reason}, {when}"
        elif result.reason:
            state, reason = "failed", f"{where}: {result.reason}"
        return Finding(thread_id=thread_id, state=state, reason=f"{reason}{fork}", helps="resume")

    async def _orphans(self, thread_id: str) -> int:
        """Count the checkpoints that the newest is not built on: two processes ran the thread without a lease."""
        parents: dict[str, str | None] = {}
        async for each in self._saver.alist({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}):
            above = each.parent_config and each.parent_config.get("configurable", {}).get("checkpoint_id")
            parents[each.checkpoint["id"]] = cast("str | None", above)
        at = max(parents, default=None)
        while at in parents:  # taken out, as one that was put on top of itself is its own parent
            at = parents.pop(at)
        return len(parents)

    async def damage(self) -> list[str]:
        """Read all that is stored, and return what is wrong with it and what helps.

        In the store's file that is each value and each document; elsewhere, each thread's checkpoints back to one that
        cannot be read. A server looks after its other tables itself.
        """
        found: list[str] = []
        if isinstance(self._store, Database):
            codec = self._store.codec
            found = await self._store.read(lambda connection: integrity.problems(connection, codec))
        if not isinstance(self._saver, SqliteSaver):
            for record in await self._registry.threads(limit=None):
                try:
                    async for _ in self._saver.alist({"configurable": {"thread_id": record.thread_id}}):
                        pass
                except CheckpointDamaged as error:
                    found.append(str(error))
        return found

    async def _has_checkpoints(self, thread_id: str) -> bool:
        try:
            return await self._saver.aget_tuple({"configurable": {"thread_id": thread_id}}) is not None
        except CheckpointDamaged:
            return True


def _forget(connection: Connection, thread_id: str) -> None:
    outbox.forget(connection, thread_id)
    inbox.forget(connection, thread_id)
