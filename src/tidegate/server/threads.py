"""/v1/threads: start, look at, list, stream, resume, retry and cancel threads."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from tidegate.errors import SettingsError, ThreadNotFound
from tidegate.graph.thread_ids import check_thread_id
from tidegate.server import cursors, views
from tidegate.server.context import Context
from tidegate.server.documents import Brought, Submission, brought
from tidegate.server.problems import Problem
from tidegate.server.progress import Progress
from tidegate.services.intake import LONGEST_NAME
from tidegate.store.inbox import LONGEST_ID, Envelope, Receipt
from tidegate.store.registry import ThreadRecord, ThreadStatus

SOURCE = "api"
"""The source of events that came over this interface."""

_LOOKS = 4
"""Threads that are looked at at once: each may take hundreds of MB."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "description": "a form with a file, JSON with a text or a URL, or the document itself with its content type",
    "content": {
        "application/json": {"schema": Submission.model_json_schema()},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}, "name": {"type": "string"}},
                "required": ["file"],
            }
        },
        **dict.fromkeys(("application/octet-stream", "application/pdf", "text/plain", "text/html"), _BINARY),
    },
}

Name = Annotated[str | None, Query(max_length=LONGEST_NAME, description="what to call the document in results")]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=LONGEST_ID,
        description="the same key and the same document are the same thread, however often they are sent",
    ),
]
Filter = Annotated[str | None, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]


def router(context: Context) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/threads", tags=["threads"])
    pipeline, engine = context.pipeline, context.engine
    progress = Progress(context)
    limit = context.door.max_document_bytes
    looks = asyncio.Semaphore(_LOOKS)

    @routes.post(
        "",
        status_code=202,
        response_model=views.Accepted,
        summary="Start a thread",
        responses={200: {"model": views.Accepted, "description": "the same key brought the same document before"}},
        openapi_extra={"requestBody": _BODY},
    )
    async def start(
        request: Request,
        name: Name = None,
        idempotency_key: Key = None,
        traceparent: Annotated[str | None, Header()] = None,
        tracestate: Annotated[list[str] | None, Header()] = None,
    ) -> Response:
        with context.room.share() as share:
            found = await brought(request, share, max_bytes=limit, name=name)
            if idempotency_key is not None:
                known = await context.door.known(SOURCE, idempotency_key)
                if known is not None and known.document_id:
                    return _known(known, found, idempotency_key)
            loaded = await found.load(context.fetch)
            receipt = await context.door.offer(
                Envelope(
                    source=SOURCE,
                    id=idempotency_key or str(uuid.uuid4()),
                    data=loaded.data,
                    name=loaded.source,
                    media_type=loaded.media_type,
                    traceparent=traceparent,
                    request_sha256=found.request_sha256,
                    tracestate=",".join(tracestate or ()),
                )
            )
            if not receipt.is_new:
                return _known(receipt, found, idempotency_key or "")
        return accepted(receipt)

    def _known(receipt: Receipt, found: Brought, key: str) -> Response:
        """Answer a key that came before, if the document is the same: a URL's is not read again, and may change."""
        if not receipt.document_id:
            detail = f"the thread that the key {key!r} began was deleted; send a new key"
            raise Problem(409, detail, kind="thread-deleted")
        if found.data is not None:
            is_same = hashlib.sha256(found.data).hexdigest() == receipt.document_id
        else:
            is_same = found.request_sha256 == receipt.request_sha256
        if not is_same:
            detail = f"the key {key!r} was sent with another document before; send a new key"
            raise Problem(422, detail, kind="idempotency-key-reused")
        return accepted(receipt)

    @routes.get("", response_model=views.ThreadPage, summary="List threads")
    async def threads(
        status: Annotated[ThreadStatus | None, Query(description="only those that are so now")] = None,
        source: Annotated[Filter, Query(description="only those of the document of this name")] = None,
        trigger: Annotated[
            Filter, Query(description="only those that this trigger began; api for this interface")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=500, description="threads on a page")] = 50,
        cursor: Annotated[
            str | None, Query(max_length=cursors.LONGEST, description="the next_cursor of the page before")
        ] = None,
    ) -> views.ThreadPage:
        """List threads, the most recently updated first.

        A thread that begins or goes on while you turn pages moves to the front, and shifts no other.
        """
        after = None if cursor is None else cursors.read(cursor)
        found = await pipeline.registry.page(
            status=status, source=source, trigger=trigger, after=after, limit=limit + 1
        )
        page = found[:limit]
        last = cursors.write(page[-1].updated_at, page[-1].thread_id) if len(found) > limit else None
        return views.ThreadPage(threads=[views.ThreadRow.of(each) for each in page], next_cursor=last)

    @routes.get("/{thread_id}", response_model=views.Thread, summary="Look at a thread")
    async def thread(thread_id: str) -> Response:
        record = await _existing(thread_id)
        async with looks:
            result = await pipeline.inspect(thread_id)
            origin = await pipeline.inbox.origin(thread_id)
            # In a thread: there may be tens of thousands of entities.
            return await asyncio.to_thread(lambda: JSONResponse(views.thread(record, result, origin)))

    @routes.get(
        "/{thread_id}/events",
        summary="Follow a thread",
        response_class=Response,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "events until it is finished"},
            204: {"description": "it is finished, and its end was told already"},
        },
    )
    async def events(thread_id: str, last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Response:
        """Server-sent events: `status` when that changes, `step` as steps end, `end` when the thread is finished."""
        return await progress.follow(await _existing(thread_id), last_event_id)

    @routes.post("/{thread_id}/resume", status_code=202, response_model=views.ThreadRow, summary="Go on now")
    async def resume(thread_id: str) -> views.ThreadRow:
        """Have a thread that waits, lacks something, failed or was stopped be brought as far as it gets now."""
        record = await _existing(thread_id)
        if record.status in ("failed", "dead", "cancelled"):
            await pipeline.retry(thread_id)
        elif record.status in ("waiting", "degraded"):
            await pipeline.ask_again(thread_id)
        engine.wake()
        return views.ThreadRow.of(await _existing(thread_id))

    @routes.post("/{thread_id}/retry", status_code=202, response_model=views.ThreadRow, summary="Bring back")
    async def retry(thread_id: str) -> views.ThreadRow:
        """Queue a thread that failed, was given up or cancelled, as if it were new; it goes on where it stopped."""
        await _existing(thread_id)
        await pipeline.retry(thread_id)
        engine.wake()
        return views.ThreadRow.of(await _existing(thread_id))

    @routes.post("/{thread_id}/cancel", response_model=views.ThreadRow, summary="Stop")
    async def cancel(thread_id: str) -> views.ThreadRow:
        """Stop a thread, and leave it so until it is resumed or retried; one that is finished stays as it is."""
        await _existing(thread_id)
        await engine.cancel(thread_id)
        return views.ThreadRow.of(await _existing(thread_id))

    async def _existing(thread_id: str) -> ThreadRecord:
        try:
            check_thread_id(thread_id)
        except SettingsError:
            raise ThreadNotFound(thread_id[:40], "does not exist") from None
        record = await pipeline.registry.look(thread_id)
        if record is None:
            raise ThreadNotFound(thread_id, "does not exist")
        return record

    return routes


def accepted(receipt: Receipt) -> JSONResponse:
    """Answer that a document was taken in: 202, or 200 if it had been before."""
    url = f"/v1/threads/{quote(receipt.thread_id, safe='')}"
    body: dict[str, Any] = {"thread_id": receipt.thread_id, "status_url": url, "is_new": receipt.is_new}
    return JSONResponse(body, 202 if receipt.is_new else 200, headers={"Location": url})
