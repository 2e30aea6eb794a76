"""Standing: what the registry keeps of a thread's executions."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from langgraph.types import StateSnapshot

from tidegate.errors import CircuitOpen, ServiceError, StoreError, StoreUnavailable, TidegateError
from tidegate.graph.lacks import asked_from
from tidegate.graph.result import Result
from tidegate.state import State
from tidegate.store.registry import ThreadRecord, ThreadStatus


def summed_up(record: ThreadRecord, result: Result, values: State, now: float) -> ThreadRecord:
    """Return the record of a thread whose execution came to this result; `now` is in seconds since 1970."""
    finished = result.status in ("complete", "degraded")
    status: ThreadStatus = "running" if result.status == "unfinished" else result.status
    asks = asked_from(result, values, now)
    return replace(
        record,
        status=status,
        outcome=result.status if finished else None,
        error=None,
        attempts=0,
        attempted_at=None,
        revision=result.revision,
        retryable_missing=sum(item.retryable for item in result.missing),
        next_at=None if result.retry_in is None else now + result.retry_in,
        extraction_at=asks.get("extraction"),
        enrichment_at=asks.get("enrichment"),
        summary_at=asks.get("summary"),
    )


class Attempt(TypedDict):
    """What a record says of the executions that ended at one step."""

    attempts: int
    attempted_at: str | None


def attempt(record: ThreadRecord | None, snapshot: StateSnapshot | None) -> Attempt:
    """Return the count of executions that ended here, this one included, and where that is."""
    at = snapshot.config.get("configurable", {}).get("checkpoint_id") if snapshot else None
    before = 0
    if record is not None and record.attempted_at == at:
        before = record.attempts
    elif record is not None and record.status == "running" and record.attempts:
        before = 1  # its process ended: after it had got further, so here
    return {"attempts": before + 1, "attempted_at": at}


def standing(record: ThreadRecord) -> tuple[ThreadStatus, bool, bool, bool]:
    """Return what a sweep chooses threads by."""
    return record.status, record.extraction_at is None, record.enrichment_at is None, record.summary_at is None


def pause_after(error: Exception) -> float | None:
    """Return for how many seconds a service is not to be asked after an error, None where that is not known."""
    if isinstance(error, CircuitOpen):
        return error.retry_in
    return error.retry_after if isinstance(error, ServiceError) else None


def is_for_a_sweep(error: Exception, record: ThreadRecord) -> bool:
    """Say whether a sweep is to try again, and not just whoever resumes the thread.

    What was published is healed whatever went wrong in between, unless policy `fail` says that it went wrong.
    """
    if isinstance(error, ServiceError):
        return False
    return record.revision > 0 or isinstance(error, (StoreError, StoreUnavailable))


def told(error: Exception) -> str:
    """Return what the registry keeps of an error: words that stay true, and of others' errors the name alone."""
    if isinstance(error, ServiceError):
        return error.why
    return f"{type(error).__name__}: {error}" if isinstance(error, TidegateError) else type(error).__name__
