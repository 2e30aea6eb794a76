"""Folders that others may write to: what is opened below one lies in it, whatever links are put in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


@contextmanager
def folder_below(root: str, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """Yield a descriptor of the folder that these names lead to, one below the other; no symbolic link is followed.

    `root` itself may be a link, which its owner chose. With `make`, folders that are missing below it are made.

    Raises:
        ValueError: a name would lead out of the folder.
        OSError: a folder cannot be opened or made; ELOOP or ENOTDIR where a link stands in its place.
    """
    check_inside(parts)
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            below = _step(descriptor, part, make=make)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def check_inside(parts: Sequence[str]) -> None:
    """Check that each of these is a name, and leads nowhere else.

    Raises:
        ValueError: one of them is none.
    """
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            raise ValueError(f"{part!r} is no name of a file or a folder")


def _step(descriptor: int, part: str, *, make: bool) -> int:
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
    except FileNotFoundError:
        if not make:
            raise
    try:
        os.mkdir(part, dir_fd=descriptor)
        os.fsync(descriptor)
    except FileExistsError:
        pass  # another process was faster
    return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
