"""What a caller gets: the result of an execution, the events on the way to it, the history of a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tidegate.state import (
    JSON,
    Document,
    Enrichment,
    Entity,
    Missing,
    Outcome,
    State,
    Summary,
    enrichments_of,
    entities_of,
)

Status: TypeAlias = Literal["complete", "degraded", "waiting", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How far a thread is and what it holds.

    `complete`: nothing is missing. `degraded`: finished, `missing` says what it lacks and why. `waiting`: stopped
    before a circuit that is open, by policy `wait`. `unfinished`: stopped on the way; `next` names the steps to come.
    `revision` counts what was published, 0 before the first time. `retry_in` is the seconds after which resuming may
    bring the thread further, 0.0 if it may now, None if there is nothing to try again. `reason` says why a thread that
    is not finished stopped where it did, empty if nobody could say, as after a kill. `held_open` names the circuits
    that somebody holds open, where nothing but those is in the way: until they are reset, `retry_in` brings nothing.
    """

    thread_id: str
    status: Status
    revision: int = 0
    source: str = ""
    document: Document | None = None
    entities: tuple[Entity, ...] = ()
    enrichments: Mapping[str, Enrichment] = field(default_factory=dict)
    summary: Summary | None = None
    missing: tuple[Missing, ...] = ()
    retry_in: float | None = None
    next: tuple[str, ...] = ()
    reason: str = ""
    held_open: tuple[str, ...] = ()

    @classmethod
    def of(cls, thread_id: str, state: State, *, status: Status | None, next_: tuple[str, ...] = ()) -> Result:
        """Read the channels; `status` None takes the published outcome's.

        Raises:
            StateInvalid: a channel does not fit this code.
        """
        outcome = Outcome.load(stored) if (stored := state.get("outcome")) else None
        return cls(
            thread_id=thread_id,
            status=status or (outcome.status if outcome else "unfinished"),
            revision=state.get("revision", 0),
            source=state.get("source", ""),
            document=Document.load(stored) if (stored := state.get("document")) else None,
            entities=tuple(entities_of(state)),
            enrichments=enrichments_of(state),
            summary=Summary.load(stored) if (stored := state.get("summary")) else None,
            missing=outcome.missing if outcome else (),
            next=next_,
        )

    @property
    def text(self) -> str:
        """The summary as running text, empty while there is none."""
        return " ".join(sentence.text for sentence in self.summary.sentences) if self.summary else ""

    @property
    def title(self) -> str:
        """The document's title, or its source while there is no document."""
        return self.document.title if self.document else self.source

    def to_dict(self) -> JSON:
        """Return everything but the document's text as JSON values."""
        return {
            "thread_id": self.thread_id,
            "status": self.status,
            "revision": self.revision,
            "source": self.source,
            "title": self.title,
            "document_sha256": self.document.id if self.document else None,
            "pages": [page.dump() for page in self.document.pages] if self.document else [],
            "text": self.text,
            "summary": self.summary.dump() if self.summary else None,
            "entities": [
                entity.dump()
                | {"enrichment": self.enrichments[entity.id].dump() if entity.id in self.enrichments else None}
                for entity in self.entities
            ],
            "missing": [item.dump() for item in self.missing],
            "retry_in": self.retry_in,
            "next": list(self.next),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in an execution, in order.

    `thread`: the first, with the thread's ID as `text`. `started`, `finished`, `failed`, `interrupted`: a step did;
    `detail` holds a few counts, never content. `token`: a piece of the text that the model is writing, in `text`.
    `result`: the last, with the `result`.
    """

    kind: Literal["thread", "started", "finished", "failed", "interrupted", "token", "result"]
    step: str = ""
    text: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    result: Result | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One checkpoint of a thread, written `at` (ISO 8601): which steps `ran` before it and, for a gate, its `reason`.

    `next` are the steps to come, `source` is LangGraph's word for what wrote it; `revision` and `status` are what is
    published by then.
    """

    checkpoint_id: str
    step: int
    at: str
    source: str
    ran: tuple[str, ...]
    reason: str
    next: tuple[str, ...]
    revision: int
    status: str | None
