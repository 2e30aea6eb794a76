"""`backfill`: a line for each thread that was brought forward, and a count at the end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing

import typer

from tidegate.cli.existing import existing
from tidegate.cli.exit_codes import INTERRUPTED, UNEXPECTED, exit_code
from tidegate.cli.notices import notice
from tidegate.cli.text import held_open, printable
from tidegate.errors import TidegateError
from tidegate.graph.healing import Healed
from tidegate.graph.runner import Pipeline
from tidegate.resilience.breaker import CircuitReport
from tidegate.resilience.circuits import CircuitsUnavailable
from tidegate.telemetry.setup import configure


def backfill(options: Mapping[str, str], *, watch: bool, as_json: bool) -> None:
    """Sweep; exits with the code of the first error, or of an interruption, which is how watching ends well."""
    settings = existing(options)
    count: Counter[str] = Counter()
    errors: list[Exception] = []

    async def sweep() -> list[CircuitReport]:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with Pipeline.open(settings) as pipeline:
            async with aclosing(pipeline.backfill(watch=watch)) as threads:
                async for healed in threads:
                    if healed.error is not None:
                        errors.append(healed.error)
                    count[healed.result.status if healed.result else "failed"] += 1
                    typer.echo(json.dumps(_row(healed), ensure_ascii=False) if as_json else _line(healed))
            try:
                return [report for report in await pipeline.circuits() if not report.admits]
            except CircuitsUnavailable:  # the sweep could do without them, and so can its count
                return []

    shutdown = configure()
    open_circuits: list[CircuitReport] = []
    interrupted = False
    try:
        try:
            open_circuits = asyncio.run(sweep())
        except (KeyboardInterrupt, asyncio.CancelledError):
            interrupted = True
        told = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        later = "".join(f"; {_later(report)}" for report in open_circuits)
        notice(f"{told or 'no thread could be brought forward'}{later}")
    finally:
        shutdown()
    if interrupted and not watch:
        raise typer.Exit(INTERRUPTED)
    if errors and not watch:
        raise typer.Exit(exit_code(errors[0]) if isinstance(errors[0], TidegateError) else UNEXPECTED)


def _later(report: CircuitReport) -> str:
    if report.forced:
        return held_open([report.name])
    return f"{report.name} may be tried again in {report.retry_in:,.0f} s"


def _line(healed: Healed) -> str:
    if healed.result is None:
        return f"{healed.thread_id}  failed: {printable(_told(healed.error))}"
    result = healed.result
    revision = f", revision {result.revision}" if result.revision else ""
    missing = f", {len(result.missing)} missing" if result.missing else ""
    why = f" ({result.reason})" if result.reason else ""
    return f"{healed.thread_id}  {result.status}{revision}{missing}{why}"


def _row(healed: Healed) -> dict[str, object]:
    result = healed.result
    return {
        "thread_id": healed.thread_id,
        "status": result.status if result else "failed",
        "revision": result.revision if result else None,
        "missing": len(result.missing) if result else None,
        "retry_in": result.retry_in if result else None,
        "error": None if healed.error is None else _told(healed.error),
    }


def _told(error: Exception | None) -> str:
    """Return what to say of an error: of others' errors the name alone, since their words may quote a document."""
    return str(error) if isinstance(error, TidegateError) else type(error).__name__
