"""Circuits that processes share, by the place where they are kept: a file, or the URL of a server."""

from __future__ import annotations

from tidegate.resilience.postgres_circuits import PostgresCircuits
from tidegate.resilience.shared_circuits import SharedCircuits, SqliteCircuits
from tidegate.store.clock import Clock
from tidegate.store.live import LiveDatabase
from tidegate.store.live_postgres import LivePostgres
from tidegate.store.postgres_url import read_url


def circuits_at(place: str, clock: Clock | None = None) -> tuple[SharedCircuits, LiveDatabase | LivePostgres]:
    """Return the circuits and their database, which is the caller's to close."""
    if not place.startswith("postgresql:"):
        file = LiveDatabase(place, clock=clock)
        return SqliteCircuits(file), file
    server = LivePostgres(read_url(place), clock=clock)
    return PostgresCircuits(server, clock=clock), server
