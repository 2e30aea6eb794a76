"""Log records that say which trace, thread and node they belong to: as text, as JSON lines, or over OTLP.

Of an exception they hold the type and where it came from, never its message: that may quote a document.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Literal, TypeAlias

from opentelemetry import context, trace

from tidegate.telemetry import names

Format: TypeAlias = Literal["text", "json"]

_FRAMES = 20
"""Frames of an exception that are told, the innermost ones."""


def here() -> dict[str, str]:
    """Return what the code that runs now is part of: `trace_id`, `span_id`, `thread_id`, `node`, as far as it is."""
    span = trace.get_current_span().get_span_context()
    found = {"thread_id": context.get_value(names.THREAD_KEY), "node": context.get_value(names.NODE_KEY)}
    place = {key: str(value) for key, value in found.items() if value is not None}
    if span.is_valid:
        place |= {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}
    return place


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: `time` (ISO 8601, UTC), `level`, `logger`, `message`, and what `here` returns.

    An exception is `error`, with its `type` and `at`, the frames that it went through.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
            **here(),
            **error_of(record),
        }
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record as a line to read, with the thread and the node that it is about."""

    def __init__(self, *, clears: bool = False) -> None:
        """Let each record take the place of the line that a terminal is on, which shows progress."""
        super().__init__()
        self._before = "\r\x1b[K" if clears else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the frames of an exception."""
        place = here()
        about = ", ".join(place[key] for key in ("thread_id", "node") if key in place)
        told = f"{self._before}{record.levelname} {record.name}: {_printable(message_of(record))}"
        told += f" [{about}]" if about else ""
        if error := error_of(record).get("error"):
            told += "".join(f"\n  {frame}" for frame in error["at"]) + f"\n  {error['type']}"
        return told


def message_of(record: logging.LogRecord) -> str:
    """Return what a record says, without what the exception says that it may be of: asyncio's records quote that."""
    try:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = text.replace(repr(record.exc_info[1]), type(record.exc_info[1]).__name__)
    except Exception:  # noqa: BLE001 - a slip in a record is not to fail what it tells of, nor to show its arguments
        told = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{told} [its arguments do not fit]"
    return text


def _printable(text: str) -> str:
    """Return a text that stays on its line and leaves a terminal alone, whoever chose the names in it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def error_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return `{"error": {"type", "at"}}` for a record of an exception, else nothing."""
    kind, _, frames = record.exc_info or (None, None, None)
    if kind is None:
        return {}
    at = [f"{each.filename}:{each.lineno} in {each.name}" for each in traceback.extract_tb(frames)[-_FRAMES:]]
    return {"error": {"type": kind.__name__, "at": at}}


def set_up(shape: Format, *, verbose: bool, told: Collection[str] = (), stream: IO[str] | None = None) -> None:
    """Write this process's records to `stream` (stderr): all from INFO if `verbose`, else from WARNING.

    Those of loggers whose names begin with one of `told` are written from INFO on all the same.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if shape == "json" else TextFormatter(clears=handler.stream.isatty()))
    handler.setLevel(logging.INFO if verbose or told else logging.WARNING)
    if not verbose:
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith(tuple(told)))
    logging.basicConfig(level=handler.level, handlers=[handler], force=True)
    # It logs the whole address of each request that a model's client makes, in which there may be a key.
    logging.getLogger("httpx").setLevel(logging.WARNING)
