"""Files that are whole or not there, in folders that one process changes at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.errors import StoreError

_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")


def name_for(text: str) -> str:
    """Return a file name for any text: the text itself if it is plain, else its beginning, `~` and a hash.

    Different texts get different names even where case does not count, and no name leads out of its folder.
    """
    if _PLAIN.fullmatch(text):
        return text
    beginning = re.sub(r"[^a-z0-9_]+", "-", text[:40].lower()).strip("-") or "id"
    return f"{beginning}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


@contextmanager
def locked(folder: Path, *, exclusive: bool, create: bool = False) -> Iterator[bool]:
    """Hold a folder's lock, against other processes and other threads of this one; blocks until it is free.

    Whoever dies gives the lock back. Without `create`, yields False and holds nothing where there is no such folder.

    Raises:
        StoreError: the disk is full or fails, or the folder cannot be used; also for what the block meets of that.
    """
    try:
        descriptor = _lock(folder, exclusive=exclusive, create=create)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        problem = "there is no space left on its disk" if full else "it cannot be used"
        way_out = "free some and try again" if full else "check the disk, what is in its place, and its permissions"
        path = os.fsdecode(error.filename or folder)
        raise StoreError(path, f"{problem} ({error.strerror})", way_out) from error


def _lock(folder: Path, *, exclusive: bool, create: bool) -> int | None:
    path = folder / ".lock"
    while True:
        if create:
            make_folder(folder)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if not create:
                return None
            if folder.is_symlink() or path.is_symlink():  # to what is not there
                raise
            continue  # it was removed in this very moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            # A folder that was removed and made anew while we waited has another lock, which another may hold.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, so that they outlast a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with suppress(FileExistsError):  # not exist_ok, which fails where the folder is removed at once
            folder.mkdir()
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which names are in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, root: Path) -> None:
    """Write a file so that readers, and a power cut, find its old content or its new one, durable on return.

    `root` is the locked folder that `path` is in or under. It holds the one unfinished file there can be; what a killed
    process left of its own is replaced.
    """
    unfinished = root / ".new"
    unfinished.unlink(missing_ok=True)  # not truncated: after a power cut it may be a second name of a finished file
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:  # the disk is full, as it may be: what was begun takes up space
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
