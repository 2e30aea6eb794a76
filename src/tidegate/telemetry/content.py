"""Prompts, answers and the messages of exceptions in spans: not at all, unless somebody asks for them.

OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is OpenTelemetry's variable for it: `true`, or in the form of later
conventions `SPAN_ONLY` or `SPAN_AND_EVENT`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

Redact: TypeAlias = Callable[[str], str]

LIMIT: Final = 8192
"""Characters of one text that are recorded; collectors refuse or cut off spans of megabytes."""

_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_WANTED: Final = frozenset({"true", "1", "span_only", "span_and_event"})
_redact: Redact | None = None


def redact_with(redact: Redact | None) -> None:
    """Have every text go through this function before it is recorded, in the whole process; None: no function.

    It is called on the event loop, so it must not wait. A text for which it raises an exception or returns anything
    but a text is not recorded.
    """
    global _redact
    _redact = redact


def is_wanted() -> bool:
    """Say whether content may be recorded."""
    return os.environ.get(_VARIABLE, "").strip().lower() in _WANTED


def shown(text: str) -> str:
    """Return a text as it may be recorded: redacted, and then cut off after `LIMIT` characters."""
    if _redact is not None:
        try:
            redacted: object = _redact(text)
        except Exception as error:  # noqa: BLE001 - telemetry fails nothing, and what was not redacted is not told
            return f"[not recorded: the redaction raised {type(error).__name__}]"
        if not isinstance(redacted, str):
            return f"[not recorded: the redaction returned {type(redacted).__name__}]"
        text = redacted
    text = encodable(text)
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}… [{len(text) - LIMIT} characters more]"


def message_of(error: BaseException) -> str:
    """Return the message of an exception as it may be recorded."""
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - an exception of somebody else's, which is on its way to its caller
        return f"[not recorded: its message raised {type(failure).__name__}]"
    return shown(text)


def encodable(text: str) -> str:
    """Return a text without lone surrogates, for which a whole batch would not be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")
