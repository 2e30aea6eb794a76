"""What flows through the graph: Document -> Entity -> Enrichment -> Summary -> Outcome.

Channels hold plain JSON values. A step validates what it reads into these frozen models and dumps what it
returns, so that stored state which does not fit this code is refused. (A pydantic object stored as it is resumes
as an *empty* object once a field was renamed, without an error: LangGraph 1.2.22.)
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.errors import StateInvalid

SCHEMA_VERSION = 2
"""Raised by one whenever stored state of the version before needs a migration."""

JSON: TypeAlias = dict[str, Any]
EntityType: TypeAlias = Literal["PERSON", "ORG", "LOC", "DATE", "MONEY", "ENTITY"]
"""ENTITY is a name of unknown kind: recognisers that cannot tell do not guess."""

HEADINGS: Final[Mapping[EntityType, str]] = {
    "PERSON": "People",
    "ORG": "Organisations",
    "LOC": "Places",
    "MONEY": "Sums",
    "DATE": "Dates",
    "ENTITY": "Other names",
}
"""What entities of each type are called together, in the order in which people are shown them."""

_Value = TypeVar("_Value")


class _Flowing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def load(cls, value: object) -> Self:
        """Validate one stored value.

        Raises:
            StateInvalid: the value was written by other code, or was damaged. The message names fields, never contents.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            fields = sorted(
                {".".join(map(str, e["loc"])) + f" ({e['type']})" for e in error.errors(include_input=False)}
            )
            raise StateInvalid(f"stored {cls.__name__} does not fit this code: {', '.join(fields)}") from None

    def dump(self) -> JSON:
        """Return plain JSON values, for a channel."""
        return self.model_dump(mode="json")


class Span(_Flowing):
    """Part of a document: `document.text[start:end]`, in characters (code points), `end` excluded."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)


BlockKind: TypeAlias = Literal["heading", "paragraph", "list_item", "table", "caption", "code"]


class Block(Span):
    """One block of the text. Blocks are in order, do not overlap, and are separated by blank lines.

    Prose (`paragraph`, `list_item`) is unwrapped: a line break inside it is a real one. A `table` has a row a line,
    its cells separated by ` | `. `level` is 1 to 6 for headings, else 0.
    """

    kind: BlockKind
    level: int = Field(default=0, ge=0, le=6)


class Page(Span):
    """The part of the text that came from one page; `number` starts at 1."""

    number: int = Field(ge=1)


class Document(_Flowing):
    """A document as text. `id` is the SHA-256 of its raw bytes in hex; all offsets count characters of `text`."""

    id: str
    source: str
    media_type: str
    title: str
    text: str
    blocks: tuple[Block, ...]
    pages: tuple[Page, ...] = ()
    converter: str

    def slice(self, span: Span) -> str:
        """Return the text of a span."""
        return self.text[span.start : span.end]


class Entity(_Flowing):
    """Something the document names, with every place where it does.

    `text` is the fullest form of the name. `value` holds what a DATE or MONEY means:
    `{"iso": "1968-06-26"}` (a year, a month or a day, as ISO 8601 has them; an interval as `start/end`) or
    `{"amount": "12.50", "currency": "GBP"}` (a plain decimal; ISO 4217). `within` is the area that the document says a
    place lies in: Wales, where it has "Bangor, Wales".
    """

    id: str
    text: str
    type: EntityType
    mentions: tuple[Span, ...]
    value: dict[str, str] | None = None
    within: str | None = None


def entity_id(document_id: str, type_: str, text: str) -> str:
    """Return the ID that this entity has in every execution over this document: 16 hex digits, telling nothing."""
    name = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(f"{document_id}\n{type_}\n{name}".encode()).hexdigest()[:16]


class Enrichment(_Flowing):
    """What the external API said of one entity, or why it did not say anything.

    `enriched`: `data` is its answer. `not_found`: it knows no such thing, or does not cover this type (`attempts` 0).
    `failed`: the attempts came to nothing. `deferred`: no attempt, or no further one, was admitted, as the circuit was
    open or the service had asked, at `paused_at`, for a pause, which is over at `retry_at` (seconds since 1970).
    `attempts` counts requests over the thread's life (none for an answer that another thread was given), `visits` the
    executions that tried and were not cut short by an open circuit, refused credentials or a pause that was asked for,
    which say nothing of this entity; `error` says what the last failure was, never quoting the answer; `since` is when
    it was first missed (ISO 8601, UTC).
    """

    status: Literal["enriched", "not_found", "failed", "deferred"]
    source: str
    data: JSON | None = None
    attempts: int = 0
    visits: int = 0
    error: str | None = None
    retryable: bool = False
    retry_at: float | None = None
    paused_at: float | None = None
    since: str | None = None


class Route(_Flowing):
    """What a gate decided: the step to go `to`, the `reason`, and for an open circuit since when and for how long.

    `entities` are the IDs to work on now, `rounds` the times that this `execution` asked so far. `circuits` are those
    of the model to ask, or of the models to wait for; none where there is but one.
    """

    to: str
    reason: str
    since: str | None = None
    retry_in: float | None = None
    execution: str = ""
    rounds: int = 0
    entities: tuple[str, ...] = ()
    circuits: tuple[str, ...] = ()


class Sentence(_Flowing):
    """One sentence of a summary, with the parts of the document that it rests on and the entities it names.

    `supported` is False where the evidence that was cited does not carry the sentence.
    """

    text: str
    evidence: tuple[Span, ...] = ()
    entities: tuple[str, ...] = ()
    supported: bool = True


class Usage(_Flowing):
    """Tokens as the model's provider counted them, summed over the calls of one summary."""

    input_tokens: int = 0
    output_tokens: int = 0


class Summary(_Flowing):
    """The summary. `extractive` sentences are the document's own, verbatim; `model` is None for them.

    `inputs` is a hash of all that went into it: while it is unchanged, the summary is up to date.
    """

    sentences: tuple[Sentence, ...]
    method: Literal["llm", "extractive"]
    model: str | None = None
    usage: Usage | None = None
    inputs: str = ""


class ModelFailure(_Flowing):
    """Why a model did not do its work on these `inputs`, to be tried again if `retryable`.

    `deferred` means that its circuit was open, so that the last request was not made. At `paused_at` it asked for a
    pause, which is over at `retry_at` (seconds since 1970).
    """

    error: str
    retryable: bool
    deferred: bool
    attempts: int
    visits: int
    since: str
    execution: str
    inputs: str
    retry_at: float | None = None
    paused_at: float | None = None


class Missing(_Flowing):
    """One thing that the result lacks. `id` is the entity's ID for an `enrichment`, else the circuit's name.

    Before `retry_at` (seconds since 1970) the service does not want to be asked again.
    """

    what: Literal["extraction", "enrichment", "summary"]
    id: str
    why: str
    since: str
    retryable: bool
    attempts: int
    retry_at: float | None = None


class Outcome(_Flowing):
    """How complete the result is. `digest` is a hash of what this revision published."""

    status: Literal["complete", "degraded"]
    missing: tuple[Missing, ...] = ()
    digest: str = ""


def merge(old: Mapping[str, _Value] | None, new: Mapping[str, _Value] | None) -> dict[str, _Value]:
    """Merge by key, so that applying an update twice changes nothing (adding lists doubles them after a crash)."""
    return {**(old or {}), **(new or {})}


class Input(TypedDict, total=False):
    """What starts a thread: the raw bytes are in the document store already, under their SHA-256.

    Where no `Pipeline` took them in (a graph server), `text` is the document itself, and `ingest` stores it.
    """

    source: str
    document_sha256: str | None
    media_type: str | None
    text: str | None


class Output(TypedDict, total=False):
    """What the graph returns: the dumps of `Document`, `Entity` and `Enrichment` by entity ID, `Summary`, `Outcome`.

    Without reducers, so that in a graph around it the next document's entities replace the ones before.
    """

    document: JSON
    entities: dict[str, JSON]
    enrichments: dict[str, JSON]
    summary: JSON | None
    outcome: JSON | None
    revision: int


class State(Input, total=False):
    """The channels. Each holds the dump of the model it is named for; `entities` and `enrichments` are keyed by
    entity ID, `routes` by gate (`extraction`, `enrichment`, `summary`), `summary_failures`, each a `ModelFailure`, by
    the model's circuit.
    """

    schema_version: int
    document: JSON
    extraction: JSON | None
    extraction_failure: JSON | None
    entities: Annotated[dict[str, JSON], merge]
    enrichments: Annotated[dict[str, JSON], merge]
    routes: Annotated[dict[str, JSON], merge]
    summary: JSON | None
    summary_failures: dict[str, JSON] | None
    outcome: JSON | None
    revision: int


EXECUTION = "tidegate_execution"
"""Key of `config["configurable"]`: the ID of this execution, which bounds the rounds a gate allows."""

LEASE = "__tidegate_lease"
"""Key of `config["configurable"]`: `{"thread_id", "epoch"}` of the lease; LangGraph stores no key that begins so."""

WHEN_OPEN = "tidegate_when_open"
"""Key of `config["configurable"]`: the policy for this execution, in place of each service's own."""


def entities_of(state: State) -> list[Entity]:
    """Return the entities, in the recogniser's order."""
    return [Entity.load(entity) for entity in (state.get("entities") or {}).values()]


def enrichments_of(state: State) -> dict[str, Enrichment]:
    """Return the enrichments by entity ID; one whose entity is gone is ignored."""
    entities = state.get("entities") or {}
    return {key: Enrichment.load(value) for key, value in (state.get("enrichments") or {}).items() if key in entities}


_DOUBTFUL = 3
"""Names all of which are unknown to an API: fewer may well be."""


def none_found(enrichments: Mapping[str, Enrichment]) -> int:
    """Return how many names an API was asked about, three or more, if it knew none of them; else 0."""
    asked = [record for record in enrichments.values() if record.visits]  # types that it does not cover have none
    return len(asked) if len(asked) >= _DOUBTFUL and all(record.status == "not_found" for record in asked) else 0


def summary_failures_of(state: State) -> dict[str, ModelFailure]:
    """Return why models did not summarize, by circuit."""
    return {name: ModelFailure.load(value) for name, value in (state.get("summary_failures") or {}).items()}


def hash_of(*values: object) -> str:
    """Return a hash of JSON values, the same in every process: 32 hex digits."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
