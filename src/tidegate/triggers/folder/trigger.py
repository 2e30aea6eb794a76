"""The folder trigger: each new or changed file becomes a thread, and is moved away when that ended, if so set."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tidegate.engine.port import Unreadable
from tidegate.errors import (
    DocumentError,
    DocumentTooLarge,
    EmptyDocument,
    SettingsError,
    SourceUnavailable,
    StoreError,
    StoreUnavailable,
)
from tidegate.services.intake import shown
from tidegate.settings.service import FolderTrigger as FolderSettings
from tidegate.store.file_events import event_id
from tidegate.store.inbox import Envelope
from tidegate.triggers.door import Door
from tidegate.triggers.folder.listing import FileChangedError, FolderListing, Signature, is_below
from tidegate.triggers.folder.moves import move
from tidegate.triggers.folder.watch import FolderWatch

_log = logging.getLogger(__name__)

_PORTION = 500
"""Files that are looked at in one go of a thread: some milliseconds."""

_TURN = 100
"""Documents that are handed in before there is a look at what else is due."""

_AWAY_PAUSE = 5.0

_KEEP_EVERY = 8 * 3600.0
"""Seconds after which the door is told anew that a file is still there, so that its event is not forgotten."""


@dataclass(slots=True)
class _File:
    """A file as it was seen: `since` when, and the ID of its event once that was taken in, and kept until `keep_at`."""

    signature: Signature
    since: float
    event_id: str | None = None
    keep_at: float = -math.inf
    told: bool = False


class FolderTrigger:
    """Hands in each file of a folder once it has not changed for a while; the ID of its event is path and content.

    So the same content under the same name is one thread, however often it is found, and a changed file another. A
    watcher says early what changed; what it does not say is found by a scan, at the start and again and again.
    """

    def __init__(self, settings: FolderSettings) -> None:
        """Raise a SettingsError if files would be moved to where they come from."""
        root = os.path.realpath(settings.path)
        for option, target in (("done", settings.done), ("failed", settings.failed)):
            real = os.path.realpath(target or "")
            if target is not None and (real == root or is_below(root, real)):
                raise SettingsError(
                    f"trigger {settings.name!r}: {option} is {target}, and the watched folder {settings.path} is that "
                    "or lies in it; name another folder"
                )
        self._settings = settings
        self._targets = {"complete": settings.done, "degraded": settings.done, "dead": settings.failed}
        targets = tuple(each for each in (settings.done, settings.failed) if each is not None)
        self._listing = FolderListing(
            settings.path, recursive=settings.recursive, include=settings.include, but_not=targets
        )
        self._files: dict[str, _File] = {}
        self._unsettled: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._ready: dict[str, None] = {}
        self._ended: dict[str, str] = {}
        self._is_away = False

    @property
    def name(self) -> str:
        """The name in the settings."""
        return self._settings.name

    async def run(self, door: Door) -> None:
        """See `Trigger.run`.

        Raises:
            SettingsError: there is no such folder. One that goes away later is waited for.
        """
        identity = await asyncio.to_thread(self._listing.identity)
        if identity is None:
            path = self._settings.path
            problem = "is no folder" if await asyncio.to_thread(os.path.exists, path) else "does not exist"
            raise SettingsError(f"trigger {self.name!r}: {path} {problem}, or cannot be listed; make it, or set path")
        watch = FolderWatch(self._settings.path, recursive=self._settings.recursive, clock=door.clock)
        try:
            await self._run(door, watch)
        finally:
            await watch.stop()

    async def _run(self, door: Door, watch: FolderWatch) -> None:
        clock, settings = door.clock, self._settings
        next_scan = clock.monotonic()
        while True:
            if watch.lost_track or clock.monotonic() >= next_scan:
                watch.lost_track = False
                identity = await self._identity()
                begins = await watch.follow(identity)
                if identity is not None:
                    await self._scan(door)
                pause = min(settings.settle, settings.scan_every) if begins else settings.scan_every
                next_scan = clock.monotonic() + pause
            await self._look(watch.take(), clock.monotonic())
            for path in list(islice(self._ready, _TURN)):
                del self._ready[path]
                await self._take(path, door)
            for path in list(islice(self._ended, _TURN)):
                await self._move(path, self._ended.pop(path))
            if not self._ready and not self._ended:
                times = [next_scan, *self._unsettled.values(), *self._again.values()]
                await watch.wait(min(times) - clock.monotonic())

    async def _identity(self) -> tuple[int, int] | None:
        """Return what tells the folder that is there now from others; say it once that there is none."""
        identity = await asyncio.to_thread(self._listing.identity)
        if (identity is None) is not self._is_away:
            self._is_away = identity is None
            if self._is_away:
                _log.warning("trigger %s: folder %s is not there; it is waited for", self.name, self._settings.path)
            else:
                _log.info("trigger %s: folder %s is there again", self.name, self._settings.path)
        return identity

    async def _scan(self, door: Door) -> None:
        """Look at all files, forget those that are gone, and find those whose threads ended."""
        found: set[str] = set()
        walk = self._listing.walk()
        while portion := await asyncio.to_thread(lambda: list(islice(walk, _PORTION))):
            for path, signature in portion:
                found.add(path)
                self._consider(path, signature, door.clock.monotonic())
        for path in self._files.keys() - found:
            self._forget(path)
        await asyncio.to_thread(self._listing.forget_told)
        try:
            if self._settings.done is not None or self._settings.failed is not None:
                await self._find_ended(door)
            await self._keep(door)
        except (StoreUnavailable, StoreError) as error:
            _log.warning("trigger %s cannot tell what became of its files: %s", self.name, error)

    async def _look(self, reported: set[str], now: float) -> None:
        """Look at what the watcher told of, and at what may have settled by now."""
        settled = {path for path, at in self._unsettled.items() if at <= now}
        again = {path for path, at in self._again.items() if at <= now}
        for path in again:
            del self._again[path]
        looked_at = self._looked_at(reported | again | settled)
        while portion := await asyncio.to_thread(lambda: list(islice(looked_at, _PORTION))):
            for path, signature in portion:
                if signature is not None:
                    self._consider(path, signature, now)
                elif path in self._files:
                    self._forget(path)
                elif path in reported:  # a folder: what was put in before it was watched is not told
                    self._again[path] = now + self._settings.settle
        for path in settled:
            if self._unsettled.get(path, now + 1.0) <= now:  # it is what it was
                del self._unsettled[path]
                self._ready[path] = None

    def _looked_at(self, paths: Iterable[str]) -> Iterator[tuple[str, Signature | None]]:
        for path in paths:
            signature = self._listing.look(path)
            if signature is not None or path in self._files:
                yield path, signature
            elif self._listing.is_folder(path):
                yield path, None
                yield from self._listing.walk(path)

    def _consider(self, path: str, signature: Signature, now: float) -> None:
        file = self._files.get(path)
        if file is None or file.signature != signature:
            self._unsettled.pop(path, None)
            file = self._files[path] = _File(signature, since=now)
        if file.event_id is None and path not in self._unsettled and path not in self._ready:
            # What is empty may be about to be filled: an upload begins so, and may take its time.
            quiet = self._settings.settle if signature.size else max(self._settings.settle, self._settings.scan_every)
            self._unsettled[path] = file.since + quiet

    def _forget(self, path: str) -> None:
        for paths in (self._files, self._unsettled, self._ready):
            paths.pop(path, None)

    async def _take(self, path: str, door: Door) -> None:
        """Hand a file in, if it is still what it was; what cannot be read now is left to the next scan."""
        file = self._files.get(path)
        if file is None or file.event_id is not None:
            return
        event: Envelope | Unreadable | None
        try:
            data = await asyncio.to_thread(self._listing.read, path, file.signature, max_bytes=door.max_document_bytes)
            event = await asyncio.to_thread(self._event, path, data)
            del data
        except (FileChangedError, FileNotFoundError, NotADirectoryError):
            self._forget(path)
            self._again[path] = door.clock.monotonic()
            return
        except DocumentTooLarge as error:
            event = self._unreadable(path, file.signature, error)
        except OSError as error:
            if not file.told:
                file.told = True
                text = "trigger %s: %r cannot be read (%s); it is tried again at each scan"
                _log.warning(text, self.name, shown(path), error.strerror)
                if error.errno == errno.EIO:  # not just for the moment, as it seems: somebody has to look at the disk
                    damaged = SourceUnavailable(shown(path), f"cannot be read ({error.strerror})", "check the disk")
                    await self._offered(self._unreadable(path, file.signature, damaged), door)
            return
        if await self._offered(event, door) and self._files.get(path) is file:
            file.event_id = event.id

    def _event(self, path: str, data: bytes) -> Envelope | Unreadable:
        id_ = event_id(path, hashlib.sha256(data).hexdigest())
        if not data:
            error = EmptyDocument(shown(path), "is empty", "give a document with content")
            return Unreadable(source=self.name, id=id_, error=error)
        return Envelope(source=self.name, id=id_, data=data, name=shown(path))

    def _unreadable(self, path: str, signature: Signature, error: DocumentError) -> Unreadable:
        id_ = event_id(path, f"size={signature.size},mtime={signature.mtime_ns}")
        return Unreadable(source=self.name, id=id_, error=error)

    async def _offered(self, event: Envelope | Unreadable, door: Door) -> bool:
        """Hand an event in, unless it came before; waits for the store."""
        told = False
        while True:
            try:
                if await door.known(self.name, event.id) is None:
                    await door.take(event)
            except (StoreUnavailable, StoreError) as error:
                if not told:
                    told = True
                    _log.warning("trigger %s waits for the store: %s", self.name, error)
                await door.clock.sleep(_AWAY_PAUSE)
            else:
                return True

    async def _find_ended(self, door: Door) -> None:
        taken = {file.event_id: path for path, file in self._files.items() if file.event_id is not None}
        ids = iter(taken)
        while portion := list(islice(ids, _PORTION)):
            for id_, status in (await door.statuses(self.name, portion)).items():
                target = self._targets.get(status)
                if target is not None:
                    self._ended[taken[id_]] = target

    async def _keep(self, door: Door) -> None:
        """Have no event forgotten whose file is still there: it would be new at the next start."""
        now = door.clock.monotonic()
        due = iter([file for file in self._files.values() if file.event_id is not None and file.keep_at <= now])
        while portion := list(islice(due, _PORTION)):
            await door.keep(self.name, [file.event_id for file in portion if file.event_id is not None])
            for file in portion:
                file.keep_at = now + _KEEP_EVERY

    async def _move(self, path: str, target: str) -> None:
        file = self._files.get(path)
        if file is None:
            return
        try:
            # A link has another signature than the document that it leads to, and stays where it is, as that does.
            new_path = await asyncio.to_thread(move, self._settings.path, path, file.signature, target)
        except (FileChangedError, FileNotFoundError):
            return  # the next look sees what it is now
        except (OSError, ValueError) as error:
            if not file.told:
                file.told = True
                reason = getattr(error, "strerror", None) or "no valid name"
                text = "trigger %s: %r cannot be moved to %s (%s); it is tried again at each scan"
                _log.warning(text, self.name, shown(path), target, reason)
            return
        _log.info("trigger %s: %r was moved to %s", self.name, shown(path), f"{target}/{shown(new_path)}")
        self._forget(path)
