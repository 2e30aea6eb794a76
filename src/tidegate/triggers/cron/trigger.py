"""The cron trigger: at each time of a schedule, a document is read and becomes a thread."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

from tidegate.engine.port import Unreadable
from tidegate.errors import (
    DocumentError,
    DocumentTooLarge,
    ServiceError,
    SettingsError,
    StoreError,
    StoreUnavailable,
)
from tidegate.services.intake import STDIN, load
from tidegate.settings.service import CronTrigger as CronSettings
from tidegate.store.inbox import Envelope
from tidegate.triggers.cron.schedule import Schedule
from tidegate.triggers.door import Door

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

_GLANCE = 30.0
"""Seconds after which the clock is looked at again: it may be set, and a machine that sleeps does not count them."""

_ON_TIME = 90.0
"""Seconds by which a time that came while this runs may be noticed late without being missed."""

_RETRY_INITIAL = 5.0
_RETRY_MAX = 300.0
_AWAY_PAUSE = 5.0


class CronTrigger:
    """Hands a document in at each time of a schedule; the ID of its event is that time.

    So any number of processes may run the same schedule, and a time runs once, whatever the clock does. Of times that
    were missed, because nothing ran or the machine slept, the last one runs, or none, as the settings say.
    """

    def __init__(self, settings: CronSettings) -> None:
        """Raise a SettingsError if the schedule, its time zone or the document's address is wrong."""
        self._settings = settings
        try:
            self._schedule = Schedule(settings.schedule, settings.timezone, jitter=settings.jitter)
            _check_source(settings.document)
        except SettingsError as error:
            raise SettingsError(f"trigger {settings.name!r}: {error}") from error

    @property
    def name(self) -> str:
        """The name in the settings."""
        return self._settings.name

    async def run(self, door: Door) -> None:
        """See `Trigger.run`."""
        seen = await self._missed_before(door)
        while True:
            time = self._schedule.after(seen)
            at = time + self._schedule.lateness(time)
            now = door.clock.now()
            if now < seen:  # the clock was set back, up to a glance ago; what ran already is known by its time
                seen = now - _ON_TIME
            elif now < at:
                await door.clock.sleep(min(at - now, _GLANCE))
            elif now - at <= _ON_TIME:
                seen = time
                await self._fire(time, door)
            else:
                seen = await self._missed(time, now, door)

    async def _missed_before(self, door: Door) -> float:
        """Run what was missed before this process, if that is wanted; return the time to go on after."""
        now = door.clock.now()
        last = self._schedule.latest(now)
        if last + self._schedule.lateness(last) > now:
            return last - 1.0  # it comes yet
        if self._settings.missed == "once":
            ran = await self._patiently(lambda: door.latest(self.name), door)
            if ran is not None and _time(ran) < last:  # if none ever ran, it is new, and nothing was missed
                _log.warning("trigger %s: times after %s were missed; %s runs now", self.name, ran, _id(last))
                await self._fire(last, door)
        return last

    async def _missed(self, first: float, now: float, door: Door) -> float:
        """Do what is wanted about times that passed unnoticed; return the last of them."""
        last = self._schedule.latest(now)
        if last > first and last + self._schedule.lateness(last) > now:
            last = self._schedule.latest(last - 1.0)
        on_time = now - last - self._schedule.lateness(last) <= _ON_TIME
        runs = self._settings.missed == "once" or on_time
        what = f"{_id(last)} runs now" if runs else "none of them runs"
        if not (on_time and last == first):
            _log.warning("trigger %s: times since %s were missed; %s", self.name, _id(first), what)
        if runs:
            await self._fire(last, door)
        return last

    async def _fire(self, time: float, door: Door) -> None:
        event_id = _id(time)
        if await self._patiently(lambda: door.known(self.name, event_id), door) is None:  # no process was faster
            event = await self._read(time, door)
            await self._patiently(lambda: door.take(event), door)

    async def _read(self, time: float, door: Door) -> Envelope | Unreadable:
        """Read the document; while that cannot be done, try again until the next time comes."""
        until, pause = self._schedule.after(time), _RETRY_INITIAL
        while True:
            try:
                loaded = await load(self._settings.document, max_bytes=door.max_document_bytes, clock=door.clock)
            except DocumentError as error:
                if not _may_pass(error) or not time <= door.clock.now() + pause < until:
                    _log.error("trigger %s: the document of %s was given up: %s", self.name, _id(time), error)
                    return Unreadable(source=self.name, id=_id(time), error=error)
                _log.warning("trigger %s: %s; it is read again in %g s", self.name, error, pause)
                await door.clock.sleep(pause)
                pause = min(2.0 * pause, _RETRY_MAX)
            else:
                return Envelope(
                    source=self.name,
                    id=_id(time),
                    data=loaded.data,
                    name=loaded.source,
                    media_type=loaded.media_type,
                )

    async def _patiently(self, ask: Callable[[], Awaitable[_Answer]], door: Door) -> _Answer:
        """Ask until the store answers."""
        told = False
        while True:
            try:
                return await ask()
            except (StoreUnavailable, StoreError) as error:
                if not told:
                    told = True
                    _log.warning("trigger %s waits for the store: %s", self.name, error)
                await door.clock.sleep(_AWAY_PAUSE)


def _check_source(document: str) -> None:
    scheme, mark, _ = document.partition("://")
    if not document or document == STDIN or "\0" in document:
        raise SettingsError("document names nothing that can be read again and again; name a file or a URL")
    if mark and (scheme.lower() not in {"http", "https"} or not urlsplit(document).hostname):
        raise SettingsError(f"document cannot be read by {scheme}; give an http or https URL, or the path of a file")


def _may_pass(error: DocumentError) -> bool:
    """Say whether the document may be readable later: a file may be brought or mended, a server may come back."""
    if isinstance(error, DocumentTooLarge):
        return False
    failure = error.__cause__
    return failure.retryable if isinstance(failure, ServiceError) else True


def _id(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(event_id: str) -> float:
    try:
        return datetime.fromisoformat(event_id).timestamp()
    except ValueError:  # events of another trigger, which had this name before
        return 0.0
