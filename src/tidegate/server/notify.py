"""Telling systemd how the service is (sd_notify), over the socket that NOTIFY_SOCKET names; nothing without one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

from tidegate.store.clock import Clock

_log = logging.getLogger(__name__)


class Notifier:
    """The socket of the service manager."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as sd_notify(3) and sd_watchdog_enabled(3) say."""
        environment = os.environ if environment is None else environment
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        pid, period = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
        ours = not pid or pid == str(os.getpid())
        self._period = int(period) / 1e6 if ours and period.isdecimal() and int(period) > 0 else None

    def tell(self, *lines: str) -> None:
        """Send lines as READY=1; what cannot be sent is logged, since nobody else can be told."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("systemd cannot be told %s: %s", lines[0], error.strerror)

    async def watch(self, is_well: Callable[[], Awaitable[bool]], clock: Clock) -> None:
        """Say twice in each period of the watchdog that the service is alive, as long as it is well.

        Returns at once where there is no watchdog.
        """
        while self._address and self._period is not None:
            # The loop turns, since this runs; whether the rest is well, has half of the other half to be found out.
            # Not `asyncio.wait_for`: that of Python 3.11 loses a cancellation, and the service never ended (gh-86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period / 4):
                    if await is_well():
                        self.tell("WATCHDOG=1")
            await clock.sleep(self._period / 2)
