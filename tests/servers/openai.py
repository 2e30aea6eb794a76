"""A chat model on loopback, speaking OpenAI's protocol: it answers what the test scripted, and counts the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tidegate.resilience import faults
from tidegate.resilience.faults import Behaviour, FaultyServer


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in; `at` is monotonic time in seconds."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def prompt(self) -> str:
        """The messages' text, one after the other."""
        return "\n".join(message["content"] for message in self.body["messages"])


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted reply. `hang` never answers; `cut` closes the connection in the middle of the body."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    finish: str = "stop"
    refusal: str | None = None
    input_tokens: int = 100
    output_tokens: int = 20
    hang: bool = False
    cut: bool = False


def says(text: str, *, input_tokens: int = 100, output_tokens: int = 20, finish: str = "stop") -> Reply:
    """A completion."""
    return Reply(text=text, input_tokens=input_tokens, output_tokens=output_tokens, finish=finish)


def fails(status: int, *, code: str | None = None, message: str = "scripted failure", **headers: str) -> Reply:
    """An error as OpenAI words it; `retry_after="3"` becomes the header Retry-After."""
    error = {"error": {"message": message, "type": "scripted", "param": None, "code": code}}
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Reply(status=status, headers=named, raw=json.dumps(error).encode())


def garbage(body: bytes = b"<html>It works!</html>", content_type: str = "text/html") -> Reply:
    """A success with a body that is no completion."""
    return Reply(raw=body, headers={"Content-Type": content_type})


HANGS = Reply(hang=True)
CUT = Reply(text="This sentence is never heard to its end.", cut=True)

Script = Iterable[Reply] | Callable[[Request], Reply]


class OpenAIServer:
    """Serves `POST /v1/chat/completions`, streamed and not, from a thread, so that other processes can call it too.

    A script of replies is followed in order, its last reply for good; a function is asked for each request.
    """

    def __init__(self, script: Script) -> None:
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self._server = FaultyServer(self._behaviour)
        self.follow(script)

    def follow(self, script: Script) -> None:
        """Begin another script, and count from nothing."""
        with self._lock:
            self._script = script if callable(script) else _in_order(list(script))
            self.requests.clear()
            self._server.most_at_once = 0

    @property
    def url(self) -> str:
        """What `base_url` is to be set to."""
        return f"{self._server.url}/v1"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `init_chat_model("openai:...")`."""
        return {"base_url": self.url, "api_key": "test-key"}

    @property
    def most_at_once(self) -> int:
        """How many requests were in the server at once, at most."""
        return self._server.most_at_once

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()

    def _behaviour(self, came: faults.Request) -> Behaviour:
        request = _read(came)
        with self._lock:
            self.requests.append(request)
            reply = self._script(request)
        if request.path != "/v1/chat/completions":
            reply = fails(404)
        return "hang" if reply.hang else _worded(request, reply)


def completion(script: Callable[[Request], Reply]) -> Callable[[faults.Request], faults.Reply]:
    """Return healthy answers for a service of the fault kit, so that its faults come in OpenAI's protocol."""

    def answer(came: faults.Request) -> faults.Reply:
        request = _read(came)
        return _worded(request, script(request))

    return answer


def _read(came: faults.Request) -> Request:
    return Request(came.path, came.headers, came.json, came.at)


def _worded(request: Request, reply: Reply) -> faults.Reply:
    streamed = request.streamed and reply.raw is None
    if reply.raw is not None:
        body = reply.raw
    else:
        body = _events(request, reply) if streamed else json.dumps(_completion(request, reply)).encode()
    headers: dict[str, str | None] = {"Content-Type": "text/event-stream" if streamed else "application/json"}
    cut = len(body) // 2 if reply.cut else None
    return faults.Reply(reply.status, body=body, headers={**headers, **reply.headers}, cut=cut)


def _in_order(replies: list[Reply]) -> Callable[[Request], Reply]:
    rest = iter(replies)
    last = replies[-1]
    return lambda _: next(rest, last)


def _usage(reply: Reply) -> dict[str, int]:
    total = reply.input_tokens + reply.output_tokens
    return {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens, "total_tokens": total}


def _head(request: Request, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": request.body["model"]}


def _completion(request: Request, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": None if reply.refusal else reply.text, "refusal": reply.refusal}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish}
    return {**_head(request, "chat.completion"), "choices": [choice], "usage": _usage(reply)}


def _events(request: Request, reply: Reply) -> bytes:
    """Server-sent events, a word each; usage comes only if it was asked for, as at OpenAI."""
    head = _head(request, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    words = reply.text.replace(" ", " \0").split("\0")
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]
    chunks.append(chunk({"refusal": reply.refusal} if reply.refusal else {}, reply.finish))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": _usage(reply)})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
