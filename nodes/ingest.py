"""Step 1: stored bytes -> document."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from tidegate.errors import EmptyDocument
from tidegate.state import SCHEMA_VERSION, Document, State


class Documents(Protocol):
    """Where the raw bytes are, under their SHA-256."""

    async def get(self, sha256: str) -> bytes:
        """Return the bytes; raises StateInvalid where they are not there."""
        ...

    async def put(self, data: bytes) -> str:
        """Keep the bytes and return their SHA-256."""
        ...


class Convert(Protocol):
    """What turns bytes into a document."""

    async def __call__(self, data: bytes, *, source: str, media_type: str | None) -> Document:
        """Convert; raises a DocumentError where that cannot be done."""
        ...


def ingest_step(documents: Documents, convert: Convert) -> Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]:
    """Return the step.

    Reads `document_sha256`, `source` and `media_type`, or `text` where a graph server takes the place of `Pipeline`;
    writes `document`, and clears whatever was made from another document. Run again on the same bytes, it does nothing.

    Fails with the DocumentError that says what is wrong with the document: resuming the thread says it again.
    """

    async def ingest(state: State, config: RunnableConfig) -> dict[str, Any]:
        sha256, source = state.get("document_sha256"), state.get("source") or "text"
        text = state.get("text")
        if text is not None:
            sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if sha256 is None:
            raise EmptyDocument(
                source, "no document was given", "start the thread with `document_sha256` or with `text`"
            )
        if (state.get("document") or {}).get("id") == sha256:
            return {"text": None} if text is not None else {}
        if text is not None:
            await documents.put(text.encode("utf-8", "surrogatepass"))
        document = await convert(await documents.get(sha256), source=source, media_type=state.get("media_type"))
        return {
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "document_sha256": sha256,
            "text": None,
            "document": document.dump(),
            **(cleared() if state.get("document") else {}),
        }

    return ingest


def cleared() -> dict[str, Any]:
    """Return the update that forgets everything made from an earlier document: merging alone cannot delete."""
    return {
        "extraction": None,
        "extraction_failure": None,
        "entities": Overwrite({}),
        "enrichments": Overwrite({}),
        "routes": Overwrite({}),
        "summary": None,
        "summary_failures": None,
        "outcome": None,
        "revision": 0,
    }
