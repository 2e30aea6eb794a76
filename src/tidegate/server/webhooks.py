"""Webhooks: paths that take documents, signed as Standard Webhooks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from tidegate.engine.port import Unreadable
from tidegate.errors import DocumentError, EventInvalid, SettingsError
from tidegate.server.bodies import read_body
from tidegate.server.context import Context
from tidegate.server.documents import FORM_OVERHEAD
from tidegate.server.problems import Problem, later, problem_of
from tidegate.server.threads import accepted
from tidegate.server.views import Accepted
from tidegate.services.signatures import SignatureError, Signatures
from tidegate.settings.service import WebhookTrigger
from tidegate.store.clock import Clock
from tidegate.triggers.messages import Message, fetched, may_pass, read_message

_log = logging.getLogger(__name__)

_OURS = ("/v1", "/healthz", "/readyz", "/metrics")
_PASSING_PAUSE = 60.0
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "description": "JSON with text, url or base64 and a name; a CloudEvent 1.0; or the document with its content type",
    "content": {"application/json": {"schema": {"type": "object"}}, "text/plain": _BINARY, "application/pdf": _BINARY},
}


class Webhook:
    """One path, and who may send to it."""

    def __init__(self, settings: WebhookTrigger, clock: Clock) -> None:
        """Read the secrets.

        Raises:
            SettingsError: one is none, or the path is one of the interface's own.
        """
        self.name = settings.name
        self.path = settings.path or f"/hooks/{settings.name}"
        if self.path.startswith(_OURS) or self.path == "/":
            raise SettingsError(f"trigger {self.name!r}: its path {self.path} is the interface's own; choose another")
        where = f"trigger {self.name!r}"
        self.signatures = Signatures(settings.secrets, where=where, clock=clock) if settings.secrets else None
        self._said = ""

    def refuse(self, problem: Problem) -> Problem:
        """Return a problem, and log it, once until it is another: anybody may send anything, as often as they like."""
        if problem.detail != self._said:
            self._said = problem.detail
            _log.warning("trigger %s refuses what is sent to %s: %s", self.name, self.path, problem.detail)
        return problem


def webhooks(settings: Sequence[WebhookTrigger], clock: Clock, *, is_loopback: bool) -> list[Webhook]:
    """Return the webhooks that there are.

    Raises:
        SettingsError: two have one path, or one is unsigned and other machines could send to it.
    """
    found = [Webhook(each, clock) for each in settings]
    for number, hook in enumerate(found):
        if any(hook.path == other.path for other in found[:number]):
            raise SettingsError(f"trigger {hook.name!r}: its path {hook.path} is another's, too; choose one of its own")
        if hook.signatures is None and not is_loopback:
            raise SettingsError(
                f"trigger {hook.name!r} is unsigned, and serve.host can be reached from other machines; give it "
                "secrets, or listen on 127.0.0.1"
            )
    return found


def router(context: Context, hooks: Sequence[Webhook]) -> APIRouter:
    """Return a route for each."""
    routes = APIRouter(tags=["webhooks"])
    for hook in hooks:
        _add(routes, context, hook)
    return routes


def _add(routes: APIRouter, context: Context, hook: Webhook) -> None:
    @routes.post(
        hook.path,
        name=f"webhook {hook.name}",
        status_code=202,
        response_model=Accepted,
        responses={200: {"model": Accepted, "description": "the same event came before"}},
        summary=f"Send a document to the trigger {hook.name}",
        openapi_extra={"requestBody": _BODY},
    )
    async def take(request: Request) -> Response:
        limit = context.door.max_document_bytes
        with context.room.share() as share:
            body = await read_body(request, share, limit=2 * limit + FORM_OVERHEAD)
            # In a thread: the JSON, or what is to be signed, may have some 100 MB.
            message = await asyncio.to_thread(_message, hook, request, body, limit)
            known = await context.door.known(message.source, message.id)
            if known is not None and known.document_id:
                return accepted(known)
            try:
                event = await fetched(message, lambda url: context.fetch(url, message.name), limit)
            except DocumentError as error:
                if may_pass(error):
                    detail = f"{error}"
                    raise Problem(503, detail, kind="document-away", headers=later(_PASSING_PAUSE)) from error
                # Seen here too, and not by its sender alone; if it comes again and can be read, it is taken in.
                refused = await context.door.offer(Unreadable(source=message.source, id=message.id, error=error))
                _log.error("thread %s was given up: %s", refused.thread_id, error)
                return problem_of(error).response(thread_id=refused.thread_id)
            return accepted(await context.door.offer(event))


def _message(hook: Webhook, request: Request, body: bytes, limit: int) -> Message:
    """Return the event that a request brings: signed, its `webhook-id` is what tells it from others."""
    headers = dict(request.headers.items())
    states = request.headers.getlist("tracestate")  # the one that may be there several times
    if states:
        headers["tracestate"] = ",".join(states)
    if len(headers) != len(request.headers) - len(states[1:]):
        raise hook.refuse(Problem(400, "a header is there twice", kind="event-invalid"))
    try:
        message_id = hook.signatures.verify(headers, body) if hook.signatures else headers.get("webhook-id")
        message = read_message(headers, body, message_id, hook.name, limit)
    except SignatureError as error:
        raise hook.refuse(Problem(401, str(error), kind="signature")) from None
    except EventInvalid as error:
        raise hook.refuse(Problem(422, str(error), kind="event-invalid")) from None
    return message if hook.signatures is None or message_id is None else replace(message, id=message_id)
