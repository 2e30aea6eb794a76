"""Tells early which paths below a folder changed; what it misses is left to scans."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable

import anyio
import anyio.to_thread
import watchfiles

from tidegate.graph.waiting import first_of
from tidegate.store.clock import Clock

_log = logging.getLogger(__name__)

_TOGETHER = 400  # milliseconds in which changes are told together
_STEP = 50  # milliseconds without a change after which they are told
_PAUSE = 2.0
_LONGEST_PAUSE = 60.0


class FolderWatch:
    """Watches one folder, in a thread of its own: to begin takes as long as there are folders in it."""

    def __init__(self, root: str, *, recursive: bool, clock: Clock) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - as the watcher tells it, links not followed
        self._recursive = recursive
        self._clock = clock
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._identity: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = False
        self.lost_track = False
        """Whether changes may have been missed just now, so that a scan is due."""

    async def follow(self, identity: tuple[int, int] | None) -> bool:
        """Watch the folder that is there now, which `identity` tells from another in its place; None: there is none.

        A watcher hears nothing of a folder that was made anew, or mounted, in the place of the one it began with. Say
        whether one begins now, which may miss what changes in its first moments.
        """
        if identity == self._identity:
            return False
        await self.stop()
        self._identity = identity
        if identity is not None:
            self._task = asyncio.create_task(self._watch())
        return identity is not None

    async def stop(self) -> None:
        """End watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def take(self) -> set[str]:
        """Return the paths that were told of since this was called last, relative to the folder."""
        changed, self._changed = self._changed, set()
        self._news.clear()
        return changed

    async def wait(self, seconds: float) -> None:
        """Wait for this long, or until there is news."""
        await first_of(self._news.wait(), self._clock.sleep(max(0.0, seconds)))

    async def _watch(self) -> None:
        pause = _PAUSE
        while True:
            stop = threading.Event()
            loop = asyncio.get_running_loop()
            try:
                # Not one of asyncio's threads, which are few, and this one is never free.
                limiter = anyio.CapacityLimiter(1)
                await anyio.to_thread.run_sync(self._listen, loop, stop, limiter=limiter, abandon_on_cancel=True)
            except OSError as error:  # too many watches for this machine, say
                self._warn(error)
                await self._clock.sleep(pause)
                pause = min(2.0 * pause, _LONGEST_PAUSE)
            except RuntimeError as error:  # at a name that is no Unicode watchfiles 1.3 stops
                self._warn(error)
                await self._clock.sleep(_PAUSE)
                self._tell((), lost_track=True)
            finally:
                stop.set()

    def _warn(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            reason = getattr(error, "strerror", None) or type(error).__name__
            _log.warning("folder %s cannot be watched without a gap (%s); scans go on", self._root, reason)

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        changes = watchfiles.watch(
            self._root,
            watch_filter=None,
            debounce=_TOGETHER,
            step=_STEP,
            stop_event=stop,
            recursive=self._recursive,
            ignore_permission_denied=True,
            raise_interrupt=False,
        )
        prefix = self._root.rstrip("/") + "/"
        for told in changes:
            paths = {path[len(prefix) :] for _, path in told if path.startswith(prefix)}
            # A root that was given by another path, or the root itself: all of it is to be looked at.
            loop.call_soon_threadsafe(self._tell, paths, len(paths) < len({path for _, path in told}))

    def _tell(self, paths: Iterable[str], lost_track: bool) -> None:
        self._changed.update(paths)
        self.lost_track = self.lost_track or lost_track
        self._news.set()
