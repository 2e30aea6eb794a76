"""Listing checkpoints: a page at a time, by an index, newest first."""

from __future__ import annotations

import sqlite3
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id

from tidegate.checkpointers.sqlite_rows import COLUMNS, Row, metadata_of

PAGE = 32
"""Checkpoints that are read at a time, whose values are in memory together."""

_MAX_INTEGER = 1 << 63


class Listing:
    """Where a listing is. One thread at a time may ask for its next page."""

    def __init__(
        self,
        config: RunnableConfig | None,
        wanted: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        """Take LangGraph's arguments; `wanted` is metadata that a checkpoint has to have."""
        place = config.get("configurable", {}) if config else {}
        self._clauses = ["body IS NOT NULL"]
        self._values: list[Any] = []
        if config:
            self._where("thread_id = ?", str(place["thread_id"]))
            if place.get("checkpoint_ns") is not None:
                self._where("checkpoint_ns = ?", str(place["checkpoint_ns"]))
            if checkpoint_id := get_checkpoint_id(config):
                self._where("checkpoint_id = ?", checkpoint_id)
        if before and (end := get_checkpoint_id(before)):
            self._where("checkpoint_id < ?", end)
        self._wanted = wanted or {}
        self._left_to_python = False
        for key, value in self._wanted.items():
            if not (_comparable(key) and _comparable(value)):
                self._left_to_python = True
            elif key == "run_id" and isinstance(value, str):
                self._where("run_id = ?", value)
            else:
                clause = "CASE WHEN json_valid(metadata) THEN json_extract(metadata, ?) IS ? ELSE 1 END"
                self._where(clause, f'$."{key}"', value)
        self._after: tuple[str, int] | None = None
        self._left = limit

    @property
    def goes_on(self) -> bool:
        """Whether there may be another page."""
        return self._left is None or self._left > 0

    def _where(self, clause: str, *values: Any) -> None:
        self._clauses.append(clause)
        self._values += values

    def page(self, connection: sqlite3.Connection) -> list[Row]:
        """Return the next rows, at most `PAGE`; it may be none although there are more."""
        clauses, values = list(self._clauses), list(self._values)
        if self._after is not None:
            clauses.append("(checkpoint_id, id) < (?, ?)")
            values += self._after
        # Where only Python can tell which fit, a page of one row would be a read for each.
        asked = PAGE if self._left is None or self._left_to_python else min(PAGE, self._left)
        rows = [
            Row(*row)
            for row in connection.execute(
                f"SELECT {COLUMNS} FROM checkpoints WHERE {' AND '.join(clauses)}"  # noqa: S608 - our names
                " ORDER BY checkpoint_id DESC, id DESC LIMIT ?",
                (*values, asked),
            )
        ]
        if rows:
            self._after = (rows[-1].checkpoint_id, rows[-1].id)
        found = [row for row in rows if self._fits(row)][: self._left]
        if len(rows) < asked:
            self._left = 0
        elif self._left is not None:
            self._left -= len(found)
        return found

    def _fits(self, row: Row) -> bool:
        if not self._wanted:
            return True
        try:
            metadata = metadata_of(row)
        except ValueError:
            return True  # so that it is loaded, which tells that it is damaged
        return all(metadata.get(key) == value for key, value in self._wanted.items())


def _comparable(value: Any) -> bool:
    """Whether SQLite compares this as Python does: then it picks the rows, and Python has few left to look at."""
    if isinstance(value, str):
        return value != "" and value.isprintable() and '"' not in value and "\\" not in value
    return value is None or isinstance(value, bool) or (type(value) is int and -_MAX_INTEGER <= value < _MAX_INTEGER)
