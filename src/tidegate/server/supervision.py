"""Keeping something running: what ends is begun again, after a pause that grows while it goes on ending."""

from __future__ import annotations

import logging
import random as randomness
from collections.abc import Awaitable, Callable

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock

_log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds; whatever ran for as long begins with the first pause again."""


async def keep_running(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    is_over: Callable[[], bool] = lambda: False,
    random: randomness.Random | None = None,
) -> None:
    """Run something until cancelled, or until it ends and `is_over`.

    Raises:
        SettingsError: it raised that when it was begun for the first time, so it cannot work as it is set.
    """
    random = random or randomness.Random()  # noqa: S311 - jitter
    pause, is_first = FIRST_PAUSE, True
    while True:
        began = clock.monotonic()
        try:
            await run()
        except Exception as error:
            if is_first and isinstance(error, SettingsError):
                raise
            why = str(error) if isinstance(error, SettingsError) else type(error).__name__
            # All else goes on. The frames say where it was; its words may hold anything.
            _log.error("%s ended: %s; it is begun again", name, why, exc_info=not isinstance(error, SettingsError))
        else:
            if is_over():
                return
            _log.warning("%s ended; it is begun again", name)
        if is_over():
            return
        is_first = False
        if clock.monotonic() - began >= LONGEST_PAUSE:
            pause = FIRST_PAUSE
        await clock.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)
