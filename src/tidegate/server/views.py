"""What the HTTP interface answers with, as JSON; described by OpenAPI."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from tidegate.graph.result import Result
from tidegate.resilience.breaker import CircuitReport
from tidegate.store.inbox import Origin
from tidegate.store.registry import ThreadRecord, ThreadStatus


class Accepted(BaseModel):
    """A document was taken in; it is durable."""

    thread_id: str
    status_url: str = Field(description="where to ask how far the thread is")
    is_new: bool = Field(description="false if the same event came before")


class ThreadRow(BaseModel):
    """A thread in a list."""

    thread_id: str
    status: ThreadStatus
    outcome: str | None = Field(description="of the revision that was published last: complete or degraded")
    source: str = Field(description="the name of the document")
    revision: int = Field(description="counts what was published; 0 before the first time")
    error: str | None = Field(description="why it failed, or was given up")
    attempts: int = Field(description="executions that were begun since it last got further")
    updated_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, record: ThreadRecord) -> ThreadRow:
        """Return what to say of a record."""
        return cls(**row(record))


class ThreadPage(BaseModel):
    """Threads, the most recently updated first."""

    threads: list[ThreadRow]
    next_cursor: str | None = Field(description="asks for the threads behind these; null at the end")


class Thread(ThreadRow):
    """A thread and what it holds."""

    trigger: str | None = Field(description="what brought its event: api, or the name of a trigger")
    event_id: str | None
    title: str
    document_sha256: str | None
    text: str = Field(description="the summary as running text")
    summary: dict[str, Any] | None
    entities: list[dict[str, Any]]
    missing: list[dict[str, Any]] = Field(description="what a degraded result lacks, and why")
    retry_in: float | None = Field(description="seconds after which it may get further; null if it never will")
    next: list[str] = Field(description="the steps to come")
    reason: str = Field(description="why it is not finished")
    pages: list[Any]


class Circuit(BaseModel):
    """The circuit of a service."""

    name: str
    state: str
    failures: int
    opened_at: float | None = Field(description="seconds since 1970")
    retry_in: float
    reason: str | None = Field(description="the kind of the last failure")
    problem: str | None = Field(description="what was said of it")
    forced: str | None

    @classmethod
    def of(cls, report: CircuitReport) -> Circuit:
        """Return what to say of a report."""
        return cls(
            name=report.name,
            state=report.state,
            failures=report.failures,
            opened_at=report.opened_at,
            retry_in=report.retry_in,
            reason=report.reason,
            problem=report.problem,
            forced=report.forced,
        )


class Circuits(BaseModel):
    """All circuits."""

    circuits: list[Circuit]


class Health(BaseModel):
    """Whether the service is well; `reason` says why not."""

    status: str
    reason: str | None = None


def row(record: ThreadRecord) -> dict[str, Any]:
    """Return what lists and progress say of a thread."""
    return {
        "thread_id": record.thread_id,
        "status": record.status,
        "outcome": record.outcome,
        "source": record.source,
        "revision": record.revision,
        "error": record.error,
        "attempts": record.attempts,
        "updated_at": record.updated_at,
    }


def thread(record: ThreadRecord, result: Result, origin: Origin | None) -> dict[str, Any]:
    """Return a `Thread` as JSON, without reading it once more: it may have thousands of entities."""
    return {
        **result.to_dict(),
        **row(record),
        "revision": result.revision,  # the registry may lag behind
        "trigger": origin.source if origin else None,
        "event_id": origin.id if origin else None,
    }
