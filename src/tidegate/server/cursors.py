"""Cursors: a place in the list of threads, as text that a caller hands back."""

from __future__ import annotations

import base64
import json
import math

from tidegate.server.problems import Problem

LONGEST = 1000


def write(updated_at: float, thread_id: str) -> str:
    """Return the cursor that stands behind a thread."""
    packed = json.dumps([updated_at, thread_id], ensure_ascii=False).encode("utf-8", "replace")
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read(cursor: str) -> tuple[float, str]:
    """Return `updated_at` and ID of the thread that a cursor stands behind.

    Raises:
        Problem: it is no cursor of ours.
    """
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        match json.loads(packed):
            case [int() | float() as at, str(thread_id)] if not isinstance(at, bool) and math.isfinite(at):
                if "\0" not in thread_id and thread_id.encode():  # which half of a surrogate pair cannot be
                    return float(at), thread_id
    except (ValueError, RecursionError, OverflowError):
        pass  # what it is instead is of no interest
    raise Problem(422, "cursor: none that this server gave; begin without one", kind="validation")
