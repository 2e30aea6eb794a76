"""Reading the bodies of requests: no more bytes, for no longer, and no more of them at once than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from tidegate.errors import DocumentTooLarge
from tidegate.server.problems import Problem, later, problem_of

BODY_SECONDS = 60.0
"""Seconds that a body may take to come in."""


class Room:
    """The bytes of bodies that may be held in memory at once, of all requests together."""

    def __init__(self, most: int) -> None:
        """Hold `most` bytes."""
        self._most = most
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Give a request room for its body, for as long as it is worked on."""
        share = Share(self)
        try:
            yield share
        finally:
            self._held -= share.taken

    def take(self, size: int) -> None:
        """Take so many bytes more.

        Raises:
            Problem: there is no room now.
        """
        if self._held + size > self._most:
            detail = "too many documents are coming in at once; send this one again later"
            raise Problem(503, detail, kind="too-many-bodies", headers=later(2.0))
        self._held += size


class Share:
    """What one request took of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def take(self, size: int) -> None:
        """Take so many bytes more."""
        self._room.take(size)
        self.taken += size


async def read_body(
    request: Request,
    share: Share,
    *,
    limit: int,
    setting: str = "max_document_bytes",
    seconds: float = BODY_SECONDS,
) -> bytes:
    """Read a body to its end.

    Raises:
        Problem: it has more than `limit` bytes, of which no more was read; it took more than so many `seconds`; there
            is no room for it; or the client went away.
    """
    declared = request.headers.get("content-length", "")
    too_large = DocumentTooLarge("the request", f"has more than {limit} bytes", f"send less, or raise {setting}")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise problem_of(too_large)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise problem_of(too_large)
                share.take(len(chunk))
                body += chunk
    except TimeoutError:
        detail = f"the body did not come in {seconds:g} s; send it faster, or give a URL"
        raise Problem(408, detail, kind="body-too-slow", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "the body was cut off", kind="body-cut-off") from None
    return bytes(body)
