"""`run` and `resume`: an execution, with its progress."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping

import typer

from tidegate.cli.existing import existing
from tidegate.cli.exit_codes import DEGRADED, INTERRUPTED, WAITING, exit_code
from tidegate.cli.notices import notice
from tidegate.cli.progress import Progress
from tidegate.cli.text import held_open, result_text, resume_command, when_to_retry
from tidegate.errors import ServiceError
from tidegate.graph.result import Result
from tidegate.graph.runner import Pipeline
from tidegate.settings import Policy, Settings
from tidegate.telemetry.setup import configure


def execute(
    options: Mapping[str, str],
    document: str | None,
    *,
    thread_id: str | None,
    when_open: Policy | None,
    as_json: bool,
    fail_on_degraded: bool,
    quiet: bool,
    fresh: bool = False,
) -> None:
    """Run a document, or resume a thread, and print the result; exits with the code that the result asks for."""
    settings = Settings.read(**options) if thread_id is None or document is not None else existing(options)
    progress = Progress(shown=not quiet)

    async def stream() -> Result:
        result: Result | None = None
        task = asyncio.current_task()
        if task is not None:  # as Ctrl-C does; else the execution's span would never be sent
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with Pipeline.open(settings) as pipeline:
            with progress:
                async for event in pipeline.stream(document, thread_id=thread_id, when_open=when_open, fresh=fresh):
                    progress.show(event)
                    result = event.result
        if result is None:
            raise RuntimeError("the stream ended without a result")
        return result

    shutdown = configure()
    try:
        try:
            result = asyncio.run(stream())
        except (ServiceError, KeyboardInterrupt, asyncio.CancelledError) as error:
            if not progress.thread_id:
                raise
            again = f"go on with: {resume_command(progress.thread_id, options)}"
            notice(f"tidegate: {error if isinstance(error, ServiceError) else 'interrupted'}; {again}")
            raise typer.Exit(exit_code(error) if isinstance(error, ServiceError) else INTERRUPTED) from None
        shown = {**options, **({"when_open": when_open} if when_open else {})}
        if not progress.steps:
            notice(_why_nothing_ran(result, resumed=document is None))
        doubtful = settings.enrichment.adapter == "http"
        if as_json:
            typer.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
        else:
            typer.echo(result_text(result, shown, doubt_not_found=doubtful))
    finally:
        shutdown()  # last: a collector that does not answer keeps nobody from the result
    if result.status == "waiting":
        raise typer.Exit(WAITING)
    if result.status == "degraded" and fail_on_degraded:
        raise typer.Exit(DEGRADED)


def _why_nothing_ran(result: Result, *, resumed: bool) -> str:
    if result.status == "complete":
        again = "" if resumed else "; --fresh runs the document again"
        return f"thread {result.thread_id} was complete already, nothing was run{again}"
    if result.retry_in is None:
        return f"what is missing is final{'' if resumed else '; --fresh runs the document again'}"
    if result.held_open:
        return f"nothing of what is missing can be had now: {held_open(result.held_open)}"
    return (
        f"nothing of what is missing can be had now, {when_to_retry(result)}\n"
        "(after mending its URL or key, `tidegate circuits --reset NAME` saves the wait)"
    )
