"""What operators are told of a trigger: each thing once an hour, however often it happens."""

from __future__ import annotations

import logging
from collections import OrderedDict

from tidegate.store.clock import Clock

_AGAIN = 3600.0  # seconds
_KNOWN = 1000  # things that are remembered at most: what comes from outside has no end

_log = logging.getLogger("tidegate.triggers.s3.trigger")


class Notices:
    """The log of one trigger."""

    def __init__(self, trigger: str, clock: Clock) -> None:
        """Name the trigger in each line."""
        self._trigger = trigger
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()

    def tell(self, problem: object) -> None:
        """Say that there is this problem, unless that was said within the last hour."""
        text = str(problem)
        now = self._clock.monotonic()
        if text in self._told and now - self._told[text] < _AGAIN:
            return
        self._told[text] = now
        self._told.move_to_end(text)
        if len(self._told) > _KNOWN:
            self._told.popitem(last=False)
        _log.warning("trigger %r: %s", self._trigger, text)

    def over(self, problem: object) -> None:
        """Say that a problem is over: when it is back, that is said again."""
        if self._told.pop(str(problem), None) is not None:
            _log.info("trigger %r goes on; this is over: %s", self._trigger, problem)
