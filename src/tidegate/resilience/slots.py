"""Places for a limited number at once, in the whole process, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import TracebackType


class _Waiter:
    """A caller in the queue. `holds` says that a place was handed to it, though it may not have noticed yet."""

    __slots__ = ("holds", "loop", "turn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.turn: asyncio.Future[None] = loop.create_future()
        self.holds = False


class Slots:
    """A semaphore for all event loops and threads of a process; asyncio's belongs to the first loop that waits on it.

    Whoever leaves hands the place to whoever has waited longest, so nobody is overtaken. One that is cancelled while it
    waits passes on what it was handed, and so does one whose loop was closed.
    """

    def __init__(self, count: int) -> None:
        """Let `count` in at once."""
        self._free = count
        self._queue: deque[_Waiter] = deque()
        self._lock = threading.RLock()  # one: a collected coroutine leaves wherever its thread is, even in here

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether a caller would have to wait."""
        return self._free <= 0 or bool(self._queue)

    async def __aenter__(self) -> None:
        with self._lock:
            if not self.full:
                self._free -= 1
                return
            waiter = _Waiter(asyncio.get_running_loop())
            self._queue.append(waiter)
            self._hand_on()
        try:
            await waiter.turn
        except BaseException:  # cancelled, or closed
            with self._lock:
                if waiter.holds:
                    self._leave()
                elif waiter in self._queue:
                    self._queue.remove(waiter)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._free += 1
            self._hand_on()

    def _hand_on(self) -> None:
        while self._free > 0 and self._queue:
            waiter = self._queue.popleft()
            waiter.holds = True
            self._free -= 1
            if waiter.loop is asyncio._get_running_loop():  # noqa: SLF001 - documented, and tells whose thread this is
                _tell(waiter.turn)
                continue
            try:
                waiter.loop.call_soon_threadsafe(_tell, waiter.turn)
            except RuntimeError:  # its loop was closed: nobody will come for the place
                waiter.holds = False
                self._free += 1


def _tell(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
