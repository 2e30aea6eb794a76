"""Verdicts: a thread is cancelled, given up, or brought back."""

from __future__ import annotations

from tidegate.errors import ThreadBusy, ThreadError
from tidegate.graph.execution import Executions
from tidegate.graph.thread_ids import existing
from tidegate.store.leases import Leases
from tidegate.store.registry import ASKS_NOTHING, UNFINISHED, Registry, ThreadRecord, ThreadStatus

_NOT_FINISHED: tuple[ThreadStatus, ...] = (*UNFINISHED, "dead")
_OVER: tuple[ThreadStatus, ...] = ("running", "failed", "dead", "cancelled")


class Verdicts:
    """Says of threads that nobody goes on with them, or that somebody does again; their checkpoints stay.

    Each is said under the thread's lease, so that no execution of it goes on meanwhile.
    """

    def __init__(self, executions: Executions, registry: Registry, leases: Leases) -> None:
        self._executions = executions
        self._registry = registry
        self._leases = leases

    async def cancel(self, thread_id: str) -> bool:
        """Leave a thread as it is, until it is resumed or retried; False if it is finished, or cancelled already.

        An execution of it that an engine began in this process is stopped.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: it is being run, by another process or for somebody who waits for it.
        """
        await existing(self._registry, thread_id)
        while not await self._executions.cancel(thread_id):
            try:
                async with self._leases.hold(thread_id) as lease:
                    return await self._registry.rule(
                        thread_id, seen=_NOT_FINISHED, status="cancelled", lease=lease, error=None, **ASKS_NOTHING
                    )
            except ThreadBusy:
                if not self._executions.is_executing(thread_id):
                    raise
        return True

    async def give_up(self, seen: ThreadRecord, reason: str) -> bool:
        """Have nobody go on with a thread by itself, for this reason; False if it is not as it was seen any more.

        Raises:
            ThreadBusy: it is being run.
        """
        async with self._leases.hold(seen.thread_id) as lease:
            if await self._registry.get(seen.thread_id) != seen:
                return False
            return await self._registry.rule(
                seen.thread_id, seen=[seen.status], status="dead", lease=lease, error=reason, **ASKS_NOTHING
            )

    async def ask_again(self, thread_id: str) -> bool:
        """Queue a thread that waits or lacks something: an engine brings it as far as it gets now; False if it is none.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: it is being run.
        """
        await existing(self._registry, thread_id)
        async with self._leases.hold(thread_id) as lease:
            return await self._registry.rule(thread_id, seen=("waiting", "degraded"), status="queued", lease=lease)

    async def retry(self, thread_id: str) -> None:
        """Queue a thread that failed, was interrupted, given up or cancelled, as if it were new.

        It goes on where it stopped, and is queued however many are.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: it is being run.
            ThreadError: it is none of these, or its document never came in.
        """
        await existing(self._registry, thread_id)
        async with self._leases.hold(thread_id) as lease:
            record = await existing(self._registry, thread_id)
            if not record.document_id:
                raise ThreadError(thread_id, f"never got its document: {record.error}; have its event delivered again")
            fresh = {"error": None, "attempts": 0, "attempted_at": None, **ASKS_NOTHING}
            if not await self._registry.rule(thread_id, seen=_OVER, status="queued", lease=lease, **fresh):
                problem = f"is {record.status}, and only one that failed, was interrupted, given up or cancelled"
                raise ThreadError(thread_id, f"{problem} is retried; `tidegate resume` goes on with any other")

    async def retry_all(self) -> list[str]:
        """Queue all threads that were given up and have a document; return their IDs."""
        retried = []
        for record in await self._registry.threads(status="dead", limit=None):
            if record.document_id:
                try:
                    await self.retry(record.thread_id)
                except (ThreadBusy, ThreadError):
                    continue  # somebody else was faster
                retried.append(record.thread_id)
        return retried
