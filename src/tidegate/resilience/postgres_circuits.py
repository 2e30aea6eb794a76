"""Circuits in PostgreSQL: all workers share one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import psycopg

from tidegate.resilience.circuits import Circuit, CircuitReport, CircuitsUnavailable
from tidegate.resilience.shared_circuits import SharedCircuits
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.live_postgres import LIVE_PATIENCE, LivePostgres

_Result = TypeVar("_Result")


class PostgresCircuits(SharedCircuits):
    """Circuits shared by all workers, by the server's time.

    A permit reads the circuit, which is a round trip to the server, and so is the success after it: nothing is kept
    here in between, as a worker that went by what it read before would start requests after the circuit opened.

    The server has no monotonic clock. Where its clock is set back, each process goes by the time that it has itself
    seen the circuit open for, and so no circuit stays open for longer.
    """

    _errors = (psycopg.Error,)

    def __init__(self, store: LivePostgres, *, clock: Clock | None = None, patience: float = LIVE_PATIENCE) -> None:
        """Use the database, which stays the caller's to close. One that hangs is given up after `patience` seconds."""
        super().__init__(store)
        self._clock = clock or SystemClock()
        self._patience = patience
        self._seen: dict[tuple[str, bool], tuple[int, float, float]] = {}

    def _report(self, row: tuple[Any, ...]) -> CircuitReport:
        circuit = Circuit(*row[:12])
        since_failure = self._elapsed(circuit, max(row[12:14]), probe=False)
        return circuit.report(since_failure, self._elapsed(circuit, max(row[14:16]), probe=True))

    def _elapsed(self, circuit: Circuit, told: float, *, probe: bool) -> float:
        """Return how long ago it was: as the server tells, or as long as it is since the server first told, if longer.

        A generation has one beginning: for an open circuit its failure, for a half-open one its probe.
        """
        now = self._clock.monotonic()
        generation, then, first = self._seen.get((circuit.name, probe), (-1, now, told))
        if generation != circuit.generation:
            self._seen[circuit.name, probe] = circuit.generation, now, told
            return told
        return max(told, first + now - then) if first >= 0.0 else told

    async def _run(self, work: Awaitable[_Result]) -> _Result:
        limit = asyncio.timeout(self._patience)
        try:
            async with limit:
                return await super()._run(work)
        except TimeoutError as error:
            raise CircuitsUnavailable(f"{self._store.path} did not answer within {self._patience:g} s") from error
