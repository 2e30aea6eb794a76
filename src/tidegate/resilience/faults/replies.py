"""What happens to an HTTP request -> the reply that is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from tidegate.resilience.faults.behaviours import Behaviour, Delay, Reply, RetryAfter

_HUGE = b'{"name": "' + b"x" * (16 * 1024 * 1024) + b'"}'


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in; `at` is the clock's monotonic time, header names are in lower case."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def echo(request: Request) -> dict[str, Any]:
    """Answer with what was asked."""
    try:
        asked = request.json
    except ValueError:
        asked = None
    return {"path": request.path, "asked": asked}


def reply_to(behaviour: Behaviour, request: Request, answer: Callable[[Request], object], now: float) -> Reply:
    """Return what is answered, its `body` in it; `now` is in seconds since 1970. What hangs or is reset gets none."""
    match behaviour:
        case Reply(json=None, body=None):
            healthy = _healthy(request, answer)
            return replace(behaviour, body=healthy.body, headers={**healthy.headers, **behaviour.headers})
        case Reply():
            return with_body(behaviour)
        case RetryAfter():
            return _error(behaviour.status, {"Retry-After": pause(behaviour, now)})
        case "half body" | "stall":
            healthy = _healthy(request, answer)
            return replace(healthy, cut=len(healthy.body or b"") // 2)
        case "slow drip":
            return replace(_healthy(request, answer), every=1.0)
        case "garbage":
            return Reply(body=b'{"name": "a text that never en')
        case "wrong shape":
            return Reply(body=b'["not", "what", "was", "asked", "for"]')
        case "huge body":
            return Reply(body=_HUGE, headers={"Content-Length": None})
        case "redirect loop":
            return Reply(302, body=b"", headers={"Location": request.path})
        case "redirect away":
            return Reply(302, body=b"", headers={"Location": "http://elsewhere.invalid/"})  # RFC 2606, section 2
        case int() if behaviour != HTTPStatus.OK:
            return _error(behaviour, {})
        case int() | Delay():
            return _healthy(request, answer)
        case _:
            raise ValueError(f"{behaviour!r} has no answer")


def pause(asked: RetryAfter, now: float) -> str:
    """Return the value of `Retry-After`."""
    if asked.as_date:  # dates have whole seconds; the pause must not come out shorter
        return formatdate(math.ceil(now + asked.seconds), usegmt=True)
    return f"{asked.seconds:f}".rstrip("0").removesuffix(".")  # no client reads 1e+06


def _healthy(request: Request, answer: Callable[[Request], object]) -> Reply:
    answered = answer(request)
    return with_body(answered if isinstance(answered, Reply) else Reply(json=answered))


def _error(status: int, headers: dict[str, str | None]) -> Reply:
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Reply(status, body=b"", headers={**headers, "Content-Length": None})
    return with_body(Reply(status, {"error": f"status {status}, as scheduled"}, headers=headers))


def with_body(reply: Reply) -> Reply:
    """Return the reply, its JSON written as its `body`."""
    return reply if reply.body is not None else replace(reply, body=json.dumps(reply.json).encode())
