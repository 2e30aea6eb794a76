"""Forgetting: a service that runs for weeks forgets, once a day, what finished long ago."""

from __future__ import annotations

import logging

from tidegate.graph.runner import Pipeline
from tidegate.store.clock import Clock

_log = logging.getLogger(__name__)

FIRST = 3600.0
"""Seconds after the start: by then the folders have said which of their files are still there."""

EVERY = 86400.0


async def forget_daily(pipeline: Pipeline, older_than: float, clock: Clock) -> None:
    """Forget what has been finished for so many seconds, until cancelled.

    Raises:
        StoreUnavailable, StoreError: the store is away; begin anew later.
    """
    await clock.sleep(FIRST)
    while True:
        forgotten = await pipeline.forget_finished(older_than=older_than)
        _log.info("forgot %d threads that finished more than %.1f days ago", forgotten, older_than / EVERY)
        await clock.sleep(EVERY)
