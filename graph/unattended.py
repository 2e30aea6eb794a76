"""Unattended executions: what an engine that brings threads forward says of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tidegate.store.registry import ThreadRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What becomes of a thread that failed: it is tried again in `pause` seconds, or given up where that is None.

    `counts` is whether the execution counts as an attempt: it does not where the error says nothing about the thread.
    """

    pause: float | None
    counts: bool = True


Judge: TypeAlias = Callable[[ThreadRecord, Exception], Sentence]
"""Says what becomes of a thread that failed with this error; `attempts` of its record counts this execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattended:
    """An execution that nobody waits for.

    It brings a thread forward only if the thread is as it was `seen`: somebody may have cancelled, resumed or retried
    it meanwhile. `judge` is asked if it fails, and what it says is recorded with the error, so that nobody finds the
    thread in between; without one it stays failed, until somebody resumes it.
    """

    seen: ThreadRecord
    judge: Judge | None = None

    def is_of(self, record: ThreadRecord | None) -> bool:
        """Whether this is the record that was seen. A sweep gives times of its own to what it has seen."""
        return record is not None and _what_counts(record) == _what_counts(self.seen)


def _what_counts(record: ThreadRecord) -> tuple[object, ...]:
    return record.status, record.revision, record.attempts, record.attempted_at, record.next_at, record.updated_at
