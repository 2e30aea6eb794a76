"""`threads`, `show`, `graph`, `circuits` and `settings`: what is there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import typer

from tidegate.cli.existing import existing
from tidegate.cli.text import print_json, printable, result_text, table
from tidegate.errors import SettingsError
from tidegate.graph import drawing
from tidegate.graph.result import HistoryEntry
from tidegate.graph.runner import Pipeline
from tidegate.resilience.circuits import CircuitReport, Forced
from tidegate.settings import Settings, by_default, in_force
from tidegate.store.registry import ThreadStatus

Format: TypeAlias = Literal["mermaid", "svg", "png"]
_HELD: Mapping[str, Forced | None] = {"reset": None, "open": "open", "closed": "closed"}


def threads(options: Mapping[str, str], status: ThreadStatus | None, limit: int, *, as_json: bool) -> None:
    """Print the registry."""

    async def work() -> None:
        async with Pipeline.open(existing(options)) as pipeline:
            records = await pipeline.threads(status=status, limit=limit)
        if as_json:
            print_json([asdict(record) for record in records])
            return
        rows = [
            (
                record.thread_id,
                record.status,
                str(record.revision),
                str(record.retryable_missing),
                _time(record.updated_at),
                printable(f"{record.source}  ({record.error})" if record.error else record.source),
            )
            for record in records
        ]
        typer.echo(
            table(rows, ("THREAD", "STATUS", "REVISION", "MISSING", "UPDATED (UTC)", "")) if rows else "no threads"
        )

    asyncio.run(work())


def show(options: Mapping[str, str], thread_id: str, *, history: bool, text: bool, as_json: bool) -> None:
    """Print one thread."""

    async def work() -> None:
        settings = existing(options)
        async with Pipeline.open(settings) as pipeline:
            result = await pipeline.inspect(thread_id)
            entries = await pipeline.history(thread_id) if history else []
        if text:
            typer.echo(result.document.text if result.document else "", nl=False)
            return
        if as_json:
            print_json(result.to_dict() | ({"history": [asdict(entry) for entry in entries]} if history else {}))
            return
        typer.echo(result_text(result, options, doubt_not_found=settings.enrichment.adapter == "http"))
        if history:
            typer.echo(f"\n{_history(entries)}")

    asyncio.run(work())


def history(options: Mapping[str, str], thread_id: str, *, as_json: bool) -> None:
    """Print the checkpoints of one thread."""

    async def work() -> None:
        async with Pipeline.open(existing(options)) as pipeline:
            entries = await pipeline.history(thread_id)
        print_json([asdict(entry) for entry in entries]) if as_json else typer.echo(_history(entries))

    asyncio.run(work())


def draw(options: Mapping[str, str], thread_id: str | None, format_: Format, output: str | None) -> None:
    """Draw the graph, with the path of a thread if one is given."""

    async def work() -> bytes:
        settings = Settings.read(checkpoints="memory:") if thread_id is None else existing(options)
        async with Pipeline.open(settings) as pipeline:
            path = None if thread_id is None else await pipeline.path(thread_id)
            return drawing.draw(pipeline.graph.get_graph(), format_, path)

    picture = asyncio.run(work())
    if output is None and format_ == "png" and sys.stdout.isatty():
        raise SettingsError("a PNG does not belong on a terminal; name a file with --output")
    if output is None:
        sys.stdout.buffer.write(picture)
        return
    try:
        Path(output).write_bytes(picture)
    except OSError as error:
        raise SettingsError(f"cannot write {output}: {error.strerror}; name another file with --output") from error


def circuits(options: Mapping[str, str], forced: Mapping[str, str], *, as_json: bool) -> None:
    """Print every circuit, after those that are named were held `open` or `closed`, or were let go by `reset`."""

    if len(set(forced.values())) < len(forced):
        raise SettingsError(
            "a circuit can be held one way at a time; give --reset, --force-open or --force-close for it"
        )

    async def work() -> None:
        settings = existing(options)
        if forced and settings.checkpoints == "memory:":
            raise SettingsError("circuits in memory are each process's own; --checkpoints names those that are kept")
        async with Pipeline.open(settings) as pipeline:
            for to, name in forced.items():
                await pipeline.force_circuit(name, _HELD[to])
            reports = await pipeline.circuits()
        if as_json:
            print_json([asdict(report) for report in reports])
            return
        rows = [
            (
                report.name,
                report.state.replace("_", "-") + (" (forced)" if report.forced else ""),
                str(report.failures),
                _time(report.opened_at),
                f"{report.retry_in:.0f} s" if report.retry_in and not report.forced else "-",
                "-" if report.forced else _failure(report),
            )
            for report in reports
        ]
        typer.echo(table(rows, ("CIRCUIT", "STATE", "FAILURES", "OPENED (UTC)", "RETRY IN", "LAST FAILURE")))

    asyncio.run(work())


def _failure(report: CircuitReport) -> str:
    """Return kind and words of the last failure, as results word them."""
    kind = (report.reason or "-").replace("_", " ")
    return f"{kind}: {report.problem}" if report.problem else kind


def settings(options: Mapping[str, str], *, as_json: bool) -> None:
    """Print every setting; where one is wrong, what each is for all the same.

    Raises:
        SettingsError: one is wrong.
    """
    try:
        rows = in_force(Settings.read(**options), **options)
    except SettingsError:
        if not as_json:
            explained = [(row.name, row.value, row.description) for row in by_default()]
            typer.echo(table(explained, ("SETTING", "DEFAULT", "")))
        raise
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    typer.echo(
        table([(row.name, row.value, row.set_by, row.description) for row in rows], ("SETTING", "VALUE", "FROM", ""))
    )


def _history(entries: Sequence[HistoryEntry]) -> str:
    rows = [(entry.at[:23], _steps(entry.ran), _steps(entry.next), entry.reason) for entry in entries]
    return table(rows, ("WRITTEN (UTC)", "AFTER", "NEXT", "BECAUSE"))


def _steps(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "-"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
