"""Pytest fixtures: name them by `pytest_plugins = ["tidegate.testing.fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from tidegate.resilience.faults import FaultyServer, Request, Script
from tidegate.resilience.faults.replies import echo
from tidegate.store.clock import Clock
from tidegate.testing.clock import ManualClock


class Serve(Protocol):
    """Starts servers."""

    def __call__(
        self,
        script: Script[Request] = (),
        *,
        answer: Callable[[Request], object] = echo,
        clock: Clock | None = None,
    ) -> FaultyServer:
        """Start one; its arguments are those of `FaultyServer`. Without a `clock`, outages are in real seconds."""
        ...


@pytest.fixture
def manual_clock() -> ManualClock:
    """Return a clock that jumps to whatever is slept for next, so that no test waits."""
    return ManualClock(auto=True)


@pytest.fixture
def faulty_server() -> Iterator[Serve]:
    """Start services that misbehave, on loopback; they are stopped after the test.

    Give one `clock=manual_clock` if your code sleeps by that too: nothing else moves it.
    """
    with ExitStack() as servers:

        def serve(
            script: Script[Request] = (),
            *,
            answer: Callable[[Request], object] = echo,
            clock: Clock | None = None,
        ) -> FaultyServer:
            return servers.enter_context(FaultyServer(script, answer=answer, clock=clock))

        yield serve
