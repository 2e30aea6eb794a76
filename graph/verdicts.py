"""Verdicts: a thread is cancelled, given up, or brought back."""

from __future__ import annotations

from tidegate.errors import ThreadBusy, ThreadError
from tidegate.graph.execution import check_thread_id, not_found
from tidegate.store.leases import Leases
from tidegate.store.registry import Registry, ThreadRecord, ThreadStatus

_NOT_FINISHED: tuple[ThreadStatus, ...] = ("queued", "running", "waiting", "failed", "dead")
_OVER: tuple[ThreadStatus, ...] = ("failed", "dead", "cancelled")
_ASKS_NOTHING = {"next_at": None, "extraction_at": None, "enrichment_at": None, "summary_at": None}


class Verdicts:
    """Says of threads that nobody goes on with them, or that somebody does again; their checkpoints stay."""

    def __init__(self, registry: Registry, leases: Leases) -> None:
        self._registry = registry
        self._leases = leases

    async def cancel(self, thread_id: str) -> bool:
        """Leave a thread as it is, until it is resumed or retried; False if it is finished, or cancelled already.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: it is being run.
        """
        await self._existing(thread_id)
        async with self._leases.hold(thread_id):
            return await self._registry.rule(
                thread_id, seen=_NOT_FINISHED, status="cancelled", error=None, **_ASKS_NOTHING
            )

    async def give_up(self, thread_id: str, reason: str) -> bool:
        """Have nobody go on with a thread by itself, for this reason; False if it is not one that failed.

        Raises:
            ThreadBusy: it is being run.
        """
        async with self._leases.hold(thread_id):
            return await self._registry.rule(
                thread_id, seen=("running", "failed"), status="dead", error=reason, **_ASKS_NOTHING
            )

    async def retry(self, thread_id: str) -> None:
        """Queue a thread that failed, was given up or cancelled, as if it were new; it goes on where it stopped.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: it is being run.
            ThreadError: it is none of these, or its document never came in.
        """
        record = await self._existing(thread_id)
        if not record.document_id:
            raise ThreadError(thread_id, f"never got its document: {record.error}; have its event delivered again")
        async with self._leases.hold(thread_id):
            fresh = {"error": None, "attempts": 0, "attempted_at": None, **_ASKS_NOTHING}
            if await self._registry.rule(thread_id, seen=_OVER, status="queued", **fresh):
                return
        record = await self._existing(thread_id)
        raise ThreadError(thread_id, f"is {record.status}, and only one that failed, is dead or cancelled is retried")

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

    async def _existing(self, thread_id: str) -> ThreadRecord:
        check_thread_id(thread_id)
        record = await self._registry.get(thread_id)
        if record is None:
            raise not_found(thread_id)
        return record
