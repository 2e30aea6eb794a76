"""Every error of Tidegate, sorted by what the caller can do about it.

TidegateError
├── DocumentError               use another document, or mend this one
│   ├── SourceUnavailable         the path or URL gave nothing
│   ├── UnsupportedDocument       no converter for this type
│   ├── EmptyDocument             zero bytes, or white space only
│   ├── EncryptedDocument         needs a password
│   ├── BrokenDocument            damaged, or not what it claims to be
│   ├── DocumentTooLarge          over a size limit
│   └── NoTextInDocument          a scan, or pictures only
├── SettingsError               change a setting
│   └── MissingExtra              install an extra
├── ThreadError                 look at the thread
│   ├── ThreadNotFound            no thread has this ID
│   ├── DocumentMismatch          the thread ID belongs to another document
│   ├── IncompatibleThread        its stored state does not fit this code
│   ├── CheckpointDamaged         its stored state cannot be read
│   ├── ThreadBusy                another process runs it: wait
│   └── LeaseLost                 another process took it over; this one stopped
├── DocumentNotFound            name a document that there is
├── EventInvalid                whoever sent the event has to mend it
├── QueueFull                   deliver the event again in `retry_in`
├── StoreError                  look at the disk, or at the file that things are kept in
│   └── StoreDamaged              restore the file from a copy
├── StoreUnavailable            bring the database back, then resume
├── WrongThread                 call from another thread or event loop, as the message says
├── StateInvalid                stored state does not fit this code; a thread's becomes IncompatibleThread
└── ServiceError                what a call to a service came to
    ├── Transient                 try again
    │   └── InProgress              an earlier request with this key is being carried out: try again
    ├── RateLimited               try again after `retry_after`
    ├── Refused                   the service rejects these credentials, or leads elsewhere
    ├── Permanent                 this request will never succeed
    ├── NotFound                  the service answered: there is no such thing
    ├── OutcomeUnknown            an earlier request was not answered, and must not be repeated
    ├── BudgetExceeded            the time allowed for the whole call is used up
    └── CircuitOpen               try again in `retry_in`, or take another route now
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final

FORCED: Final = "forced"
"""The `reason` of a circuit that somebody holds open."""


class TidegateError(Exception):
    """Whatever Tidegate raises on purpose."""


class DocumentError(TidegateError):
    """The document cannot be worked on; nothing about it is stored as finished."""

    def __init__(self, source: str, problem: str, way_out: str) -> None:
        """Name the document, what is wrong with it, and what its owner can do."""
        super().__init__(f"{source}: {problem}; {way_out}")
        self.source = source
        self.problem = problem
        self.way_out = way_out

    def __reduce__(self) -> tuple[type[DocumentError], tuple[str, str, str]]:
        return type(self), (self.source, self.problem, self.way_out)


class SourceUnavailable(DocumentError):
    """The path or URL could not be read."""


class UnsupportedDocument(DocumentError):
    """No converter reads this type of document."""


class EmptyDocument(DocumentError):
    """The document has no content."""


class EncryptedDocument(DocumentError):
    """The document cannot be opened without a password."""


class BrokenDocument(DocumentError):
    """The document is damaged, or not of the type it claims."""


class DocumentTooLarge(DocumentError):
    """The document, or what it expands to, is over the limit."""


class NoTextInDocument(DocumentError):
    """The document opens but holds no text, as a scan does."""


class SettingsError(TidegateError):
    """A setting is missing, malformed, or does not fit another."""


class MissingExtra(SettingsError):
    """A setting asks for a package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """Name what was asked for and the extra that brings it."""
        super().__init__(f"{what} needs the extra '{extra}'; install it with: pip install 'tidegate[{extra}]'")
        self.what = what
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.what, self.extra)


class ThreadError(TidegateError):
    """A thread cannot be brought further as asked."""

    def __init__(self, thread_id: str, problem: str) -> None:
        """Name the thread and what is wrong, with the way out."""
        super().__init__(f"thread {thread_id!r} {problem}")
        self.thread_id = thread_id
        self.problem = problem

    def __reduce__(self) -> tuple[type[ThreadError], tuple[str, str]]:
        return type(self), (self.thread_id, self.problem)


class ThreadNotFound(ThreadError):
    """No thread has this ID."""


class DocumentMismatch(ThreadError):
    """The thread was started with another document."""


class IncompatibleThread(ThreadError):
    """The stored thread does not fit this version of the code."""


class CheckpointDamaged(ThreadError):
    """A stored checkpoint cannot be read."""


class StoreError(TidegateError):
    """A database cannot be read or written now; what was stored before is not touched."""

    def __init__(self, path: str, problem: str, way_out: str) -> None:
        """Name the file, what is wrong, and what its owner can do."""
        super().__init__(f"{path}: {problem}; {way_out}")
        self.path = path
        self.problem = problem
        self.way_out = way_out

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str, str]]:
        return type(self), (self.path, self.problem, self.way_out)


class StoreDamaged(StoreError):
    """A part of a database cannot be read; the rest of it can."""


class DocumentNotFound(TidegateError):
    """No document is known by this name, or several are; `found` are their SHA-256."""

    def __init__(self, name: str, found: Sequence[str]) -> None:
        """Name what was asked for."""
        which = f"{len(found)} documents: {', '.join(each[:12] for each in found[:5])}" if found else "no document"
        super().__init__(f"{name!r} names {which}; `tidegate threads --json` shows the document_id of each thread")
        self.name = name
        self.found = tuple(found)

    def __reduce__(self) -> tuple[type[DocumentNotFound], tuple[str, Sequence[str]]]:
        return type(self), (self.name, self.found)


class EventInvalid(TidegateError):
    """An event from outside cannot be understood; it will not be when it is delivered again."""


class QueueFull(TidegateError):
    """So many threads wait to be begun that no new event is taken in; deliver it again in `retry_in` seconds."""

    def __init__(self, max_queued: int, *, retry_in: float) -> None:
        """Say how many may wait."""
        super().__init__(f"{max_queued} threads wait to be begun, as many as may; try again in {retry_in:g} s")
        self.max_queued = max_queued
        self.retry_in = retry_in

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), retry_in=self.retry_in), (self.max_queued,)


class ThreadBusy(ThreadError):
    """Another process runs the thread; `until` is when its lease ends unless renewed, in seconds since 1970."""

    def __init__(self, thread_id: str, problem: str, *, until: float) -> None:
        """Keep until when to wait."""
        super().__init__(thread_id, problem)
        self.until = until

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), until=self.until), (self.thread_id, self.problem)


class LeaseLost(ThreadError):
    """Another process took the thread over, so this one neither writes to it nor calls a service for it any more."""


class StoreUnavailable(TidegateError):
    """The database cannot be reached, or was lost in the middle; what was stored before is there."""


class WrongThread(TidegateError):
    """A blocking call on the pipeline's own event loop, or a stream on another one."""


class StateInvalid(TidegateError):
    """A stored value does not fit this version of the code."""


class ServiceError(TidegateError):
    """A call to a service did not bring the answer that was wanted.

    `service` names the circuit, `attempts` counts the requests that were started, the first included.
    `kind` is the stable word for this class in stored records; `retryable` says whether the same request may
    succeed later. `retry_after` is the pause that the service asked for, in seconds; None where it did not.
    """

    kind: ClassVar[str] = "service"
    retryable: ClassVar[bool] = False

    def __init__(self, service: str, problem: str, *, attempts: int = 0, retry_after: float | None = None) -> None:
        """Name the service and what went wrong; `problem` must not quote the document or the answer."""
        super().__init__(f"{service}: {problem}")
        self.service = service
        self.problem = problem
        self.retry_after = retry_after
        self.attempts = attempts

    @property
    def counts_as_visit(self) -> bool:
        """Whether it says something of what was asked for, and not just that the service takes no requests now."""
        return True

    @property
    def why(self) -> str:
        """What happened, in words that stay true: for records that are kept."""
        return f"{self.kind.replace('_', ' ')}: {self.problem}"


class Transient(ServiceError):
    """A failure that may pass: no connection, a timeout, a 5xx, an unusable body. Counts against the circuit."""

    kind = "transient"
    retryable = True


class InProgress(Transient):
    """An earlier request under the same Idempotency-Key is still being carried out: the service is alive."""


class RateLimited(ServiceError):
    """The service asked for a pause; `retry_after` is None where it did not say how long."""

    kind = "rate_limited"
    retryable = True

    def __init__(self, service: str, problem: str, *, retry_after: float | None, attempts: int = 0) -> None:
        """Say which pause was asked for, in seconds, or that none was."""
        super().__init__(service, problem, attempts=attempts, retry_after=retry_after)

    @property
    def counts_as_visit(self) -> bool:
        """False: it says something of how many were made."""
        return False


class Refused(ServiceError):
    """The service rejects who we are (401, 403, 407), or leads to another host: opens the circuit at once.

    Retryable, once the key is mended, or the service itself answers again.
    """

    kind = "refused"
    retryable = True

    @property
    def counts_as_visit(self) -> bool:
        """False: it says something of who makes it."""
        return False


class Permanent(ServiceError):
    """The service will never answer this request: other 4xx."""

    kind = "permanent"


class NotFound(ServiceError):
    """The service answered that there is no such thing."""

    kind = "not_found"


class OutcomeUnknown(ServiceError):
    """A request was made and its answer never came, so that repeating it might do the same thing twice."""

    kind = "outcome_unknown"


class BudgetExceeded(ServiceError):
    """The time allowed for the whole call is used up, or would be before the next attempt."""

    kind = "budget_exceeded"
    retryable = True

    @property
    def counts_as_visit(self) -> bool:
        """Whether a request was made, and no pause was asked for."""
        return self.attempts > 0 and self.retry_after is None


class CircuitOpen(ServiceError):
    """The circuit is open, so no request was started."""

    kind = "circuit_open"
    retryable = True

    def __init__(self, service: str, *, retry_in: float, reason: str = "", attempts: int = 0) -> None:
        """Say in how many seconds a call may be let through; `reason` is the kind of the last failure, or FORCED."""
        because = "" if not reason else " by force" if reason == FORCED else f" after {reason}"
        super().__init__(service, f"circuit open{because}; try again in {retry_in:.1f} s", attempts=attempts)
        self.retry_in = retry_in
        self.reason = reason

    @property
    def counts_as_visit(self) -> bool:
        """False: the request was not made."""
        return False

    @property
    def why(self) -> str:
        """That the circuit was open, and what the last request before it came to, if this call made one."""
        if isinstance(self.__cause__, ServiceError):
            return f"{self.__cause__.problem}, then the circuit was open"
        return "circuit open"
