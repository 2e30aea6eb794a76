"""The course of a schedule: requests are counted and listed, and each is told what happens to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypeVar

from tidegate.resilience.faults.behaviours import Behaviour, all_checked, checked
from tidegate.resilience.faults.schedule import Schedule
from tidegate.store.clock import Clock, SystemClock

R = TypeVar("R")

Script: TypeAlias = Schedule | Iterable[Behaviour] | Callable[[R], Behaviour]
"""A schedule, what happens to the first requests, or a function of the request: that one cannot be replayed."""


class Course(Generic[R]):
    """What a service was asked, and what it did."""

    def __init__(self, script: Script[R] = (), *, clock: Clock | None = None) -> None:
        """Begin the schedule; `clock` tells the time in it."""
        self.requests: list[R] = []
        """Every request that came in, in order. May be cleared."""
        self.most_at_once = 0
        """How many requests were in the service at once, at most."""
        self.mistake: Exception | None = None
        """The first error of the test's own, such as a function that returned what is no behaviour."""
        self._clock = clock or SystemClock()
        self._at_once = 0
        self._changed = threading.Condition()
        self._down: Behaviour | None = None
        self.follow(script)

    def follow(self, script: Script[R]) -> None:
        """Begin another schedule, with its first request, at its second 0.

        Raises:
            ValueError, TypeError: the script has no end, or a million behaviours, or what is none; a function of the
                request is asked later, and then it is the client, or who leaves a `FaultyServer`, that is told.
        """
        with self._changed:
            self._script = script if callable(script) or isinstance(script, Schedule) else Schedule(all_checked(script))
            self._began = self._clock.monotonic()
            self.behaviours: list[Behaviour] = []
            """What happened to each request of this schedule: `Schedule(behaviours)` replays it."""

    def down(self, how: Behaviour = 503) -> None:
        """Do this from now on, whatever the schedule says."""
        self._down = checked(how)

    def up(self) -> None:
        """Go on with the schedule."""
        self._down = None

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        """Block until so many requests are in the list.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} requests within {timeout} s, not {count}")

    @contextmanager
    def meeting(self, make: Callable[[float], R]) -> Iterator[Behaviour]:
        """Let a request in, made with the clock's monotonic time, and say what happens to it; it leaves at the end."""
        with self._changed:
            now = self._clock.monotonic()
            request = make(now)
            self.requests.append(request)
            with self._noted():
                behaviour = self._behaviour(request, now - self._began)
            self.behaviours.append(behaviour)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
        try:
            yield behaviour
        finally:
            with self._changed:
                self._at_once -= 1

    def _behaviour(self, request: R, seconds: float) -> Behaviour:
        if self._down is not None:
            return self._down
        if isinstance(self._script, Schedule):
            return self._script.at(len(self.behaviours) + 1, seconds)
        return checked(self._script(request))

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note an error of the test's own: where a server serves, nobody else would hear of it."""
        try:
            yield
        except Exception as error:
            self.mistake = self.mistake or error
            raise
