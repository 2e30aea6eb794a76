"""What must not cost a synchronous commit and may be lost, beside the store in PostgreSQL: circuits and rates."""

from __future__ import annotations

from typing import Any

import psycopg

from tidegate.store.clock import Clock
from tidegate.store.live import LIVE
from tidegate.store.postgres import PostgresDatabase
from tidegate.store.postgres_url import PostgresUrl

LIVE_PATIENCE = 2.0
"""Seconds that a call waits for the server, which answers in less than a millisecond unless something is wrong."""


class LivePostgres(PostgresDatabase):
    """What `tidegate.store.live.LiveDatabase` is for a SQLite file.

    Each statement is a transaction of its own and one round trip, under READ COMMITTED: what its WHERE says holds for
    the row as it changes it, so none meets another. Commits do not wait for the disk; a crash of the server takes the
    last half second of them. One connection does all in the order it was asked for, so that who reads sees what was
    submitted before. A statement whose connection was lost is run once more, though it may have been carried out: then
    a failure counts twice, or the lease of a probe has to end by itself.
    """

    _connections_at_most = 1
    _migrations_table = "tidegate_live_migrations"

    def __init__(self, url: PostgresUrl, *, clock: Clock | None = None, patience: float = LIVE_PATIENCE) -> None:
        """Name the database, connected to by the first use."""
        super().__init__(url, LIVE, clock=clock, patience=patience)

    def _set_up(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        connection.execute("SET synchronous_commit = off; SET default_transaction_isolation = 'read committed'")
