"""The file sink: results as files, whole or not there, in a folder or beside their documents."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote, urlsplit

from tidegate.errors import Permanent, Refused, ServiceError, Transient
from tidegate.settings.service import FileSink as FileSettings
from tidegate.settings.service import FolderTrigger
from tidegate.sinks.markdown import markdown
from tidegate.sinks.result_files import Published, published, suffix_of
from tidegate.store.file_events import path_of
from tidegate.store.folders import folder_below
from tidegate.store.outbox import Delivery

_LONGEST_NAME = 255  # bytes
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_FORMATS = ("markdown", "json")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ELOOP, errno.ENOTDIR, errno.EEXIST}


class FileSink:
    """Writes NAME.summary.md and NAME.summary.json, in `path` or beside the document.

    "Beside" is where the document will be: in the trigger's folder `done`, if it has one. Where another thread's
    result, or a file of somebody else's, has the name, the thread's ID is put in: NAME.THREAD.summary.md. A newer
    revision replaces the older one, and never the other way round.
    """

    def __init__(self, settings: FileSettings, folders: Sequence[FolderTrigger]) -> None:
        """Take the results of these folders' triggers, if no `path` is set, or else of any."""
        self._settings = settings
        self._folders = {each.name: each for each in folders}

    @property
    def name(self) -> str:
        """The name in the settings."""
        return self._settings.name

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink.deliver`.

        Raises:
            Transient: the disk is full or fails, or the watched folder is not there.
            Refused: the folder may not be written to.
            Permanent: there is no place for this result, and there will not be.
        """
        await asyncio.to_thread(self._deliver, delivery)

    async def aclose(self) -> None:
        """Do nothing: nothing stays open."""

    def _deliver(self, delivery: Delivery) -> None:
        root, folders, name = self._place(delivery)
        try:
            if root != self._watched(delivery):  # that one may be a disk that is not mounted
                os.makedirs(root, exist_ok=True)  # noqa: PTH103 - a path may be no Unicode
            with folder_below(root, folders, make=True) as folder:
                _lock(folder)
                name = self._free_name(folder, name, delivery)
                for format_ in self._settings.formats:
                    _write(folder, name + suffix_of(format_), format_, delivery)
        except OSError as error:
            raise self._told(error, root) from error
        except ValueError as error:
            raise Permanent(self.name, f"{delivery.id} has a path that leads out of its folder") from error

    def _place(self, delivery: Delivery) -> tuple[str, list[str], str]:
        """Return the folder that all is in, the names of those below it, and what the document's file is called."""
        source = str(delivery.result.get("source", ""))
        if self._settings.path is not None:
            return self._settings.path, [], _file_name(source)
        trigger = self._folders.get(delivery.trigger)
        path = None if trigger is None else path_of(delivery.event_id, source)
        if trigger is None or path is None:
            raise Permanent(self.name, f"{delivery.id} is of no file in a watched folder; set path, or triggers")
        *folders, name = path.split("/")
        return trigger.done or trigger.path, folders, name

    def _watched(self, delivery: Delivery) -> str | None:
        trigger = self._folders.get(delivery.trigger)
        return None if trigger is None else trigger.path

    def _free_name(self, folder: int, name: str, delivery: Delivery) -> str:
        """Return the name that this thread's files have already, or else may have."""
        plain, own = _cut(name, ""), _cut(name, f".{_file_name(delivery.thread_id)}")
        there = {each: self._published(folder, each) for each in (plain, own)}
        if any(found.thread_id == delivery.thread_id for found in there[own]):
            return own
        for each in (plain, own):
            if all(found.thread_id == delivery.thread_id for found in there[each]):
                return each
        raise Permanent(self.name, f"other files have the names that {delivery.id} could have; move them away")

    def _published(self, folder: int, name: str) -> list[Published]:
        found = (published(folder, name + suffix_of(each), each) for each in _FORMATS)
        return [each for each in found if each is not None]

    def _told(self, error: OSError, root: str) -> ServiceError:
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            return Transient(self.name, f"there is no space left for {root} ({reason}); free some")
        if error.errno in _CLOSED:
            return Refused(self.name, f"{root} may not be written to ({reason}); change its permissions, or set path")
        if error.errno in _NO_FOLDER:
            return Permanent(self.name, f"a link or a file stands where {root} has a folder; move it away")
        if error.errno == errno.ENAMETOOLONG:
            return Permanent(self.name, f"a path below {root} would be too long; set a shorter path")
        return Transient(
            self.name, f"{root} cannot be written to ({reason}); look whether it is there, and at its disk"
        )


def _write(folder: int, name: str, format_: str, delivery: Delivery) -> None:
    """Write one file so that readers, and a power cut, find the old one or the new one; durable on return."""
    old = published(folder, name, format_)
    if old is not None and old.revision > delivery.revision:
        return
    unfinished = f".{hashlib.sha256(delivery.thread_id.encode()).hexdigest()[:16]}.tmp"
    with suppress(FileNotFoundError):  # what a killed process left
        os.unlink(unfinished, dir_fd=folder)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # which follows no link either
        with os.fdopen(os.open(unfinished, flags, 0o666, dir_fd=folder), "wb") as file:
            file.write(_content(format_, delivery))
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:  # the disk is full, as it may be: what was begun takes up space
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise
    os.fsync(folder)


def _content(format_: str, delivery: Delivery) -> bytes:
    if format_ == "json":
        first = {"thread_id": delivery.thread_id, "revision": delivery.revision}
        text = json.dumps(first | dict(delivery.result) | first, ensure_ascii=False, indent=2) + "\n"
        return text.encode("utf-8", "backslashreplace")  # half of a surrogate pair, as JSON writes it
    thread = quote(delivery.thread_id, safe="").replace("--", "-%2D")
    head = f"<!-- tidegate thread={thread} revision={delivery.revision} -->\n\n"
    return (head + markdown(delivery.result)).encode("utf-8", "replace")


def _lock(folder: int) -> None:
    """Keep others from the folder until its descriptor is closed: names are looked up and then taken."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # some network disks have none; then one process at a time is to write there
            raise


def _file_name(source: str) -> str:
    """Return a name for the file of a document that is called so: its last part, without what no file may have."""
    path = urlsplit(source).path if "://" in source else source
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    clean = "".join("_" if each in '<>:"|?*' or not each.isprintable() else each for each in last)
    return clean.strip(". ") or "document"


def _cut(name: str, end: str) -> str:
    """Return a name with an end to it, so short that the longest suffix has room; no character is cut in two."""
    room = _LONGEST_NAME - max(len(suffix_of(each)) for each in _FORMATS) - len(os.fsencode(end))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name + end
