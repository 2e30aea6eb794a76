"""Progress on stderr: a line a step, rewritten while it works on a terminal, written once in a pipe, or a record."""

from __future__ import annotations

import sys
from collections import Counter
from types import TracebackType
from typing import Any, Self

from tidegate.cli.notices import are_records, notice, tell_routes
from tidegate.graph.result import Event


class Progress:
    """Shows the events of one execution; `steps` counts the steps that started, `thread_id` is empty until known."""

    def __init__(self, *, shown: bool) -> None:
        self.steps = 0
        self.thread_id = ""
        self._shown = shown
        self._live = shown and sys.stderr.isatty() and not are_records()
        self._step = ""
        self._started = 0
        self._ended: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._step and self._live and len(self._ended) < self._started:
            sys.stderr.write("\n")

    def show(self, event: Event) -> None:
        """Take the next event."""
        if event.kind == "thread":
            self.thread_id = event.text
        elif event.kind == "started":
            self.steps += 1
            if event.step != self._step or len(self._ended) == self._started:
                if 0 < len(self._ended) < self._started:  # its other branches had ended before a crash
                    self._write(_line(self._ended), final=True)
                self._step, self._started, self._ended = event.step, 0, []
            self._started += 1
            self._write(f"{self._bar()}…", final=False)
        elif event.kind in ("finished", "failed", "interrupted") and event.step == self._step:
            self._ended.append(event)
            final = len(self._ended) == self._started
            if final and tell_routes() and "to" in event.detail:
                self._forget_line()
                return
            self._write(_line(self._ended) if final else f"{self._bar()}…", final=final)

    def _bar(self) -> str:
        return f"{len(self._ended)} of {self._started} batches " if self._started > 1 else ""

    def _write(self, text: str, *, final: bool) -> None:
        line = f"  {self._step:<21}{text}"
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if final else ""))
            sys.stderr.flush()
        elif self._shown and final:
            notice(f"{self._step}: {text}" if are_records() else line)

    def _forget_line(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _line(ended: list[Event]) -> str:
    """Say what a step brought: counts of all its branches, or the route that a gate took."""
    last = ended[-1]
    if last.kind == "failed":
        return "failed"
    if last.kind == "interrupted":
        return f"waits for the circuit {last.detail['circuit']}, {last.detail['retry_in']:.0f} s"
    if "to" in last.detail:
        later = f", retry in {last.detail['retry_in']:.0f} s" if "retry_in" in last.detail else ""
        return f"-> {last.detail['to']} ({last.detail['reason']}{later})"
    if "failed" in last.detail:
        return f"failed: {last.detail['failed']}"
    if "revision" in last.detail:
        missing = f", {last.detail['missing']} missing" if last.detail["missing"] else ""
        return f"{last.detail['status']}, revision {last.detail['revision']}{missing}"
    counts: Counter[str] = Counter()
    words: dict[str, Any] = {}
    for event in ended:
        for key, value in event.detail.items():
            if isinstance(value, int):
                counts[key] += value
            else:
                words[key] = value
    if "model" in words:
        words = {"model": f"by {words['model']}"}
    return (
        ", ".join(
            [
                *(f"{value:,} {key}" if value else f"no {key}" for key, value in counts.items()),
                *map(str, words.values()),
            ]
        )
        or "done"
    )
