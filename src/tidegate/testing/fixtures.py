"""Pytest fixtures: name them by `pytest_plugins = ["tidegate.testing.fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from tidegate.resilience.faults import FaultyServer, Request, Script
from tidegate.resilience.faults.replies import echo
from tidegate.testing.clock import ManualClock


class Serve(Protocol):
    """Starts servers."""

    def __call__(self, script: Script[Request] = (), *, answer: Callable[[Request], object] = echo) -> FaultyServer:
        """Start one; its arguments are those of `FaultyServer`."""
        ...


@pytest.fixture
def manual_clock() -> ManualClock:
    """Return a clock that jumps to whatever is slept for next, so that no test waits."""
    return ManualClock(auto=True)


@pytest.fixture
def faulty_server(manual_clock: ManualClock) -> Iterator[Serve]:
    """Start services that misbehave, on loopback, by the time of `manual_clock`; they are stopped after the test."""
    with ExitStack() as servers:

        def serve(script: Script[Request] = (), *, answer: Callable[[Request], object] = echo) -> FaultyServer:
            return servers.enter_context(FaultyServer(script, answer=answer, clock=manual_clock))

        yield serve
