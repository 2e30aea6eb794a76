"""Whose result a file holds: what the file sink wrote tells it by itself."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from tidegate.store.file_events import RESULT_SUFFIXES

_MARK: Final = re.compile(rb"<!-- tidegate thread=(\S+) revision=(\d{1,18}) -->")
_LARGEST = 256 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Published:
    """A file that has the name; `thread_id` is None if it is none of ours."""

    thread_id: str | None
    revision: int = 0


def suffix_of(format_: str) -> str:
    """Return how the names of files of a format end."""
    return RESULT_SUFFIXES[("markdown", "json").index(format_)]


def published(folder: int, name: str, format_: str) -> Published | None:
    """Return whose result a file in an open folder is, None if there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return Published(None)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return _of_json(file.read(_LARGEST)) if format_ == "json" else _of_markdown(file.readline(4096))


def _of_markdown(line: bytes) -> Published:
    found = _MARK.match(line)
    return Published(unquote(found[1].decode("ascii", "replace")), int(found[2])) if found else Published(None)


def _of_json(data: bytes) -> Published:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return Published(None)
    if not isinstance(found, dict):
        return Published(None)
    thread_id, revision = found.get("thread_id"), found.get("revision")
    if not isinstance(thread_id, str) or not isinstance(revision, int):
        return Published(None)
    return Published(thread_id, revision)
