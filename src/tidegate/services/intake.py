"""Intake: a path, a URL, bytes, text or standard input -> the raw bytes of a document."""

from __future__ import annotations

import asyncio
import io
import os
import re
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from tidegate.errors import (
    DocumentTooLarge,
    EmptyDocument,
    NotFound,
    RateLimited,
    Refused,
    ServiceError,
    SourceUnavailable,
    Transient,
)
from tidegate.services import http
from tidegate.store.clock import Clock, SystemClock

T = TypeVar("T")

STDIN: Final = "-"
"""The source that means standard input."""

LONGEST_NAME: Final = 200
"""Characters in the name that somebody outside gives a document, at most."""

_ATTEMPTS = 3
_REDIRECTS = 5
_LONGEST_PAUSE = 30.0
_STEP_TIMEOUT = 20.0  # seconds to connect, and to wait for each further part of the answer
_PIECE = 1024 * 1024
_SEPARATORS = re.compile(r"[/\\]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document's raw bytes, not yet looked into.

    `source` is a name to show and to store: no credentials and no query of a URL, no control characters of a file's
    name. `media_type` is a server's `Content-Type` as it came, or what the caller said; files and stdin have none.
    """

    data: bytes
    source: str
    media_type: str | None = None


async def load(
    source: str | os.PathLike[str] | bytes | None = None,
    *,
    text: str | None = None,
    name: str | None = None,
    media_type: str | None = None,
    max_bytes: int,
    timeout: float = 120.0,  # noqa: ASYNC109 - it is for each attempt, and three may be made
    clock: Clock | None = None,
) -> Loaded:
    """Read a document: a path, an http(s) URL, `-` for standard input, raw bytes; or, given as `text`, a string.

    `name` is shown in place of the source. A download may take `timeout` seconds, and is tried up to three times.

    Raises:
        SourceUnavailable: nothing can be read there. The message says why, and what to do.
        DocumentTooLarge: it has more than `max_bytes` bytes; no more than that was read.
        EmptyDocument: it has none.
    """
    if text is not None:
        if source is not None:
            raise TypeError("give a source or a text, not both")
        data = text.encode("utf-8", "replace")
        loaded = Loaded(data, shown(name or "text"), media_type or "text/plain; charset=utf-8")
    elif isinstance(source, bytes):
        loaded = Loaded(source, shown(name or "bytes"), media_type)
    elif source is None:
        raise TypeError("give a source or a text")
    elif source == STDIN:
        display = shown(name or "stdin")
        loaded = Loaded(await in_daemon_thread(lambda: _read_stdin(display, max_bytes), "stdin"), display, media_type)
    elif isinstance(source, str) and (scheme := _SCHEME.match(source)):
        loaded = await _download(source, scheme[1].lower(), name, max_bytes, timeout, clock or SystemClock())
        loaded = Loaded(loaded.data, loaded.source, media_type or loaded.media_type)
    else:
        path = Path(source)
        display = shown(name or str(path))
        loaded = Loaded(await asyncio.to_thread(_read_file, path, display, max_bytes), display, media_type)
    if not loaded.data:
        raise EmptyDocument(loaded.source, "is empty", "give a document with content")
    if len(loaded.data) > max_bytes:
        raise _too_large(loaded.source, max_bytes)
    return loaded


def shown(name: str) -> str:
    """Return a name that can be printed and stored: what is no printable character of Unicode is replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def only_name(name: str | None, otherwise: str) -> str:
    """Return the last part of what may be a path of somebody's machine, printable and of bounded length."""
    # Cut off first: a name may be as long as the message that brings it.
    end = (name or "").strip().rstrip("/\\")[-LONGEST_NAME:]
    cleaned = shown(_SEPARATORS.split(end)[-1]).strip()
    return cleaned if cleaned.strip(". ") else otherwise


def _too_large(source: str, max_bytes: int) -> DocumentTooLarge:
    return DocumentTooLarge(
        source, f"is larger than {max_bytes} bytes", "split it, or raise the limit (setting max_document_bytes)"
    )


def _read_file(path: Path, display: str, max_bytes: int) -> bytes:
    """Read a regular file. A pipe or a device is refused: reading from one may wait for ever, or never end."""
    try:
        _check_regular(path.stat(), display)
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_regular(status, display)  # again: another file may have taken its place
            if status.st_size > max_bytes:
                raise _too_large(display, max_bytes)
            return _read(file, display, max_bytes)
    except FileNotFoundError:
        raise SourceUnavailable(display, "does not exist", "check the path") from None
    except PermissionError:
        raise SourceUnavailable(display, "may not be read", "change its permissions, or run as another user") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or "no valid path"
        raise SourceUnavailable(display, f"cannot be read ({reason})", "check the path and the disk") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for a writer


def _check_regular(status: os.stat_result, display: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SourceUnavailable(display, "is a folder", "name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnavailable(display, "is no regular file", "copy its content to a file, or pipe it to '-'")


def _read(file: BinaryIO | io.RawIOBase, display: str, max_bytes: int) -> bytes:
    """Read to the end in pieces: memory for the limit is taken only by a document that needs it."""
    data = bytearray()
    while piece := file.read(_PIECE):
        data += piece
        if len(data) > max_bytes:
            raise _too_large(display, max_bytes)
    return bytes(data)


def _read_stdin(display: str, max_bytes: int) -> bytes:
    try:
        # A file object of our own: when the program ends while a thread waits on `sys.stdin.buffer`, Python aborts.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as file:
            return _read(file, display, max_bytes)
    except io.UnsupportedOperation:  # stdin was replaced by an object in memory
        return _read(sys.stdin.buffer, display, max_bytes)
    except (OSError, ValueError, AttributeError) as error:
        raise SourceUnavailable(display, "cannot be read", "pipe a document into it, or name a file") from error


async def in_daemon_thread(work: Callable[[], T], name: str) -> T:
    """Run `work`, which may take for ever, in a thread of its own.

    Those of `asyncio.to_thread` are few, and keep the program alive: others would wait for one, and Ctrl-C for all.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(done: Future[T]) -> None:
        if result.cancelled():
            return
        if (error := done.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result(done.result())

    def run() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised where the caller waits
            done.set_exception(error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=run, name=f"tidegate {name}", daemon=True).start()
    return await result


async def _download(source: str, scheme: str, name: str | None, max_bytes: int, seconds: float, clock: Clock) -> Loaded:
    try:
        url = httpx.URL(source)
        display = shown(name or str(url.copy_with(userinfo=b"", query=None, fragment=None)))
    except httpx.InvalidURL:
        raise SourceUnavailable(
            shown(source.partition("?")[0].rpartition("@")[2]), "is no valid URL", "check its spelling"
        ) from None
    if scheme not in {"http", "https"} or not url.host:
        raise SourceUnavailable(
            display, f"cannot be read by {scheme}", "give an http or https URL, or the path of a file"
        )

    clients = http.Clients(timeout=min(_STEP_TIMEOUT, seconds), connections=1)
    classify = http.classify(display, clock)

    async def attempt() -> Loaded:
        try:
            async with asyncio.timeout(seconds), clients.lent() as client:
                request = client.build_request("GET", url, headers={"Accept": "*/*"})
                reply = await http.exchange(client, request, max_bytes=max_bytes, redirects=_REDIRECTS)
        except http.BodyTooLargeError:
            raise _too_large(display, max_bytes) from None
        except Exception as error:
            failure = classify(error)
            if failure is None:
                raise
            raise failure from error
        return Loaded(reply.body, display, reply.headers.get("content-type"))

    try:
        async for trial in AsyncRetrying(
            retry=retry_if_exception_type((Transient, RateLimited)),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_pause,
            sleep=clock.sleep,
            reraise=True,
        ):
            with trial:
                return await attempt()
    except ServiceError as failure:
        raise _unavailable(display, failure) from failure
    finally:
        await clients.aclose()
    raise AssertionError("tenacity returns or raises")


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_PAUSE)
    return 0.5 * 2.0 ** (state.attempt_number - 1)


def _unavailable(display: str, failure: ServiceError) -> SourceUnavailable:
    match failure:
        case NotFound():
            way_out = "check the URL"
        case Refused():
            way_out = "download it with your credentials and give the file"
        case Transient() | RateLimited():
            way_out = "try again later, or download it and give the file"
        case _:
            way_out = "open it in a browser, download it and give the file"
    return SourceUnavailable(display, failure.problem, way_out)
