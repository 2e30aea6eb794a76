"""The ID of a file's event: its path below the watched folder, and what the file was then."""

from __future__ import annotations

import hashlib
import os
from typing import Final
from urllib.parse import unquote_to_bytes

from tidegate.store.folders import check_inside

RESULT_SUFFIXES: Final = (".summary.md", ".summary.json")
"""How the names of files end that the file sink writes: no documents."""

_LONGEST_PATH = 900  # characters: with the hash of the content, an event's ID may have 1000
_HASHED = "%:"  # which no quoted path begins with


def event_id(path: str, version: str) -> str:
    """Return the ID of a file's event. `path` is relative, with `/`; `version` is the SHA-256 of its content, in hex.

    It can be stored and printed whatever bytes the name is of: those of other characters are written as `%0A`, and `%`
    as `%25`. A path that is too long for an ID is replaced by its hash.
    """
    quoted = "".join(
        character if character.isprintable() and character != "%" else _hex(character) for character in path
    )
    if len(quoted) > _LONGEST_PATH:
        quoted = _HASHED + _hash(path)
    return f"{quoted}#{version}"


def path_of(event: str, source: str) -> str | None:
    """Return the path that an ID was made of, None if it cannot be told or would lead out of the folder.

    `source` is what the document is called, which is its path where that can be printed.
    """
    quoted, mark, _ = event.rpartition("#")
    if not mark:
        return None
    if quoted.startswith(_HASHED):
        path = source if _HASHED + _hash(source) == quoted else None
    else:
        path = os.fsdecode(unquote_to_bytes(quoted))
    try:
        check_inside((path or "").split("/"))
    except ValueError:
        return None
    return path


def _hex(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(character))


def _hash(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()
