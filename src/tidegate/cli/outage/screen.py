"""What the demo shows: lines, and on a terminal a table below them that is drawn anew while things happen."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidegate.resilience.circuits import CircuitState

_WIDTH = 72  # columns: narrower than any terminal that people have
_COLOURS: Final = {
    "answers": "green",
    "closed": "green",
    "complete": "green",
    "half_open": "yellow",
    "degraded": "yellow",
    "down": "red",
    "open": "red",
}
_REDRAWN = 8.0  # times a second


@dataclass(slots=True)
class Row:
    """One document in the table: how many names it holds, if that is known, and how many of them were found."""

    name: str
    status: str = ""
    names: int | None = None
    found: int = 0
    revision: int = 0


@dataclass(slots=True)
class Board:
    """What the table shows now. `probe_at` is the monotonic time at which an open circuit lets a probe through."""

    rows: list[Row]
    service: Literal["answers", "down"] = "answers"
    circuit: CircuitState = "closed"
    probe_at: float = 0.0
    requests: int = 0

    def drawn(self, now: float) -> Table:
        """Draw it as it is at this monotonic time."""
        wait = f", probe in {max(0.0, self.probe_at - now):.0f} s" if self.circuit == "open" else ""
        title = Text.assemble(
            "service: ",
            _coloured(self.service),
            "   circuit: ",
            _coloured(self.circuit),
            f"{wait}   ",
            str(self.requests),
            " requests",
        )
        table = Table(title=title, title_justify="left", title_style="", width=_WIDTH)
        for column in ("document", "names found", "result"):
            table.add_column(column)
        for row in self.rows:
            found = "" if row.names is None else f"{row.found} of {row.names}"
            revision = f", revision {row.revision}" if row.revision else ""
            table.add_row(row.name, found, Text.assemble(_coloured(row.status), revision))
        return table


def _coloured(word: str) -> tuple[str, str]:
    return word.replace("_", "-"), _COLOURS.get(word, "dim")


class Screen:
    """Standard output. The table is for people who watch: not in a pipe, nor under NO_COLOR, CI or a dumb terminal."""

    def __init__(self) -> None:
        """Find out what is on the other side."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") == "dumb"
        watched = sys.stdout is not None and sys.stdout.isatty()  # it is None if the shell closed it: `>&-`
        self._console = Console(highlight=False, markup=False) if watched and not plain else None
        self._shown = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shown.close()

    def show(self, board: Board) -> None:
        """Keep this table below the lines from now on."""
        if self._console is not None:
            drawing = Live(
                get_renderable=lambda: board.drawn(time.monotonic()),
                console=self._console,
                refresh_per_second=_REDRAWN,
            )
            self._shown.enter_context(drawing)

    def leave(self) -> None:
        """Draw the table for the last time; lines come below it."""
        self._shown.close()

    def say(self, line: str) -> None:
        """Print a line."""
        if self._console is not None:
            self._console.print(line, soft_wrap=True)
        else:
            typer.echo(line)
