"""When a cron expression fires, in a time zone, each time once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from tidegate.errors import SettingsError

_OVERLAP = timedelta(hours=3)  # clocks are set back by less


class Schedule:
    """The times at which a schedule fires, in seconds since 1970.

    At changes of daylight saving time it does what Debian's cron does: what is set for a time of the day runs once a
    day, also if the clock shows that time twice, or passes over it; what runs every so often runs on at its pace.
    """

    def __init__(self, expression: str, timezone: str, *, jitter: float = 0.0) -> None:
        """Fire as this expression says, up to `jitter` seconds late.

        Raises:
            SettingsError: the expression cannot be read, or never fires; or there is no such time zone.
        """
        self._expression = expression
        self._jitter = jitter
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise SettingsError(
                f"there is no time zone {timezone!r}; name one as Europe/Berlin, or leave timezone out for UTC"
            ) from error
        try:
            next(self._after(datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise SettingsError(
                f"schedule {expression!r} cannot be read, or never fires ({error}); write minute, hour, day, month and "
                "day of the week, as '0 6 * * MON-FRI'"
            ) from error
        except StopIteration as error:
            raise SettingsError(f"schedule {expression!r} never fires; name a day that there is") from error

    def after(self, moment: float) -> float:
        """Return the first time that it fires later than this."""
        return next(self._after(datetime.fromtimestamp(moment, UTC)))

    def latest(self, moment: float) -> float:
        """Return the last time that it fired by then, `moment` included."""
        until = datetime.fromtimestamp(moment, UTC)
        # Backwards it is not told which of two times with one name on the clock was meant: that is found forwards.
        backwards = CronSim(self._expression, (until + timedelta(seconds=1)).astimezone(self._zone), reverse=True)
        start = min(next(backwards).astimezone(UTC), until)
        while True:
            start -= _OVERLAP
            found = None
            for time in self._after(start):
                if time > moment:
                    break
                found = time
            if found is not None:
                return found

    def lateness(self, time: float) -> float:
        """Return the seconds by which the firing of this time is late: the same in every process, and less than it is
        to the next one.
        """
        digest = hashlib.sha256(f"{self._expression}\n{self._zone.key}\n{time:.0f}".encode()).digest()
        share = int.from_bytes(digest[:8]) / 2.0**64
        return share * min(self._jitter, self.after(time) - time)

    def _after(self, moment: datetime) -> Iterator[float]:
        """Yield the times later than a moment, in order; two that fall on one, as 2:00 and 2:30 may, are one."""
        last = moment.timestamp()
        for time in CronSim(self._expression, (moment - timedelta(seconds=1)).astimezone(self._zone)):
            if time.timestamp() > last:
                last = time.timestamp()
                yield last
