"""`doctor`, `check-threads`, `delete`, `copy`, `prune`, `forget` and `import`: looking after what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import typer

from tidegate.checkpointers import open_checkpointer
from tidegate.cli.existing import existing
from tidegate.cli.exit_codes import EXIT_CODES, FOUND
from tidegate.cli.text import command, print_json, printable, resume_command, table
from tidegate.errors import IncompatibleThread, SettingsError
from tidegate.graph.runner import Pipeline
from tidegate.graph.upkeep import Finding
from tidegate.settings import Settings
from tidegate.store.outbox import Undelivered
from tidegate.store.registry import ThreadRecord

_Result = TypeVar("_Result")
_DAY = 86400.0


def doctor(options: Mapping[str, str], *, as_json: bool) -> None:
    """Print what is not finished, what is damaged, and how many threads lack something."""

    async def look(pipeline: Pipeline) -> tuple[list[str], list[Finding], list[ThreadRecord], list[_Results]]:
        degraded = await pipeline.threads(status="degraded", limit=None)
        undelivered = await pipeline.outbox.undelivered()
        results = [_Results(sink, sink in pipeline.outbox.sinks, each) for sink, each in undelivered.items()]
        return await pipeline.damage(), await pipeline.diagnose(), degraded, results

    damage, findings, degraded, results = _with_pipeline(options, look)
    found = {finding.thread_id for finding in findings}
    degraded = [record for record in degraded if record.thread_id not in found]
    lacking = sum(record.retryable_missing > 0 for record in degraded)
    if as_json:
        threads = [asdict(finding) | {"command": _command(finding, options)} for finding in findings]
        print_json(
            {
                "damage": damage,
                "threads": threads,
                "degraded": len(degraded),
                "degraded_retryable": lacking,
                "results": [
                    {"sink": each.sink, "named": each.is_named}
                    | asdict(each.undelivered)
                    | {"command": each.command(options)}
                    for each in results
                ],
            }
        )
    else:
        for problem in damage:
            typer.echo(f"damaged: {problem}")
        rows = [(f.thread_id, f.state, _command(f, options), printable(f.reason)) for f in findings]
        typer.echo(table(rows, ("THREAD", "STATE", "HELPS", "WHY")) if rows else "every thread is finished")
        if degraded:
            more = f", of which {lacking} may be completed: {command('backfill', options=options)}"
            typer.echo(f"degraded threads: {len(degraded)}{more if lacking else '; what they lack is final'}")
        if results:
            kept = [(each.sink, each.state, each.command(options), printable(each.reason)) for each in results]
            typer.echo(table(kept, ("SINK", "RESULTS NOT DELIVERED", "HELPS", "WHY")))
    if damage or findings or results:
        raise typer.Exit(FOUND)


def _command(finding: Finding, options: Mapping[str, str]) -> str:
    """Return what to type about a finding."""
    if finding.helps == "resume":
        policy = {"when_open": "wait"} if finding.state == "waiting" else {}
        return resume_command(finding.thread_id, {**policy, **options})
    return "-" if finding.helps == "nothing" else command(finding.helps, finding.thread_id, options=options)


@dataclass(frozen=True, slots=True)
class _Results:
    """What a sink did not get, and whether the settings name that sink."""

    sink: str
    is_named: bool
    undelivered: Undelivered

    @property
    def state(self) -> str:
        """How many, and of which kind."""
        waiting, given_up = self.undelivered.waiting, self.undelivered.given_up
        return ", ".join(f"{number} {what}" for number, what in ((waiting, "due"), (given_up, "given up")) if number)

    @property
    def reason(self) -> str:
        """Why they were not delivered."""
        if not self.is_named:
            return "the settings do not name this sink; name it again, or discard its results"
        return self.undelivered.error or "`tidegate serve` delivers them"

    def command(self, options: Mapping[str, str]) -> str:
        """Return what to type about it."""
        if not self.is_named:
            return command("discard", self.sink, options=options)
        return command("retry", "--results", options=options) if self.undelivered.given_up else "-"


def check_threads(options: Mapping[str, str], *, as_json: bool) -> None:
    """Print for each thread whether it can be resumed."""
    checked = _with_pipeline(options, Pipeline.check_threads)
    if as_json:
        print_json([asdict(each) for each in checked])
    else:
        rows = [(each.thread_id, each.problem or "can be resumed") for each in checked]
        typer.echo(table(rows, ("THREAD", "")) if rows else "no threads")
    if any(each.problem for each in checked):
        raise typer.Exit(EXIT_CODES[IncompatibleThread])


def delete(options: Mapping[str, str], thread_id: str) -> None:
    """Delete one thread."""
    _with_pipeline(options, lambda pipeline: pipeline.delete(thread_id))
    typer.echo(f"deleted thread {thread_id}")


def copy(options: Mapping[str, str], thread_id: str, to: str) -> None:
    """Copy one thread."""
    _with_pipeline(options, lambda pipeline: pipeline.copy(thread_id, to))
    typer.echo(f"copied thread {thread_id} to {to}")


def prune(options: Mapping[str, str], keep_last: int | None, older_than: float | None, finished: float | None) -> None:
    """Remove old checkpoints, and what is finished."""
    if keep_last is None and older_than is None and finished is None:
        raise SettingsError("say what to keep: --keep-last N, or --older-than DAYS or --finished DAYS to remove")

    async def work(pipeline: Pipeline) -> None:
        if finished is not None:
            forgotten = await pipeline.forget_finished(older_than=finished * _DAY)
            typer.echo(f"forgot {forgotten} finished threads")
        if keep_last is not None or older_than is not None:
            seconds = None if older_than is None else older_than * _DAY
            pruned = await pipeline.prune(keep_last=keep_last, older_than=seconds)
            typer.echo(f"removed {pruned.checkpoints} checkpoints of {pruned.threads} threads")

    _with_pipeline(options, work)


def forget(options: Mapping[str, str], document: str | None, *, not_found: bool) -> None:
    """Remove a document with its threads and answers, or the answers "not found" of all documents."""
    if not_found == (document is not None):
        raise SettingsError(
            "say what to forget: a DOCUMENT, or --not-found for all answers that there is no such thing"
        )
    if document is None:
        dropped = _with_pipeline(options, Pipeline.forget_not_found)
        typer.echo(f"forgot {dropped} answers 'not found'; `tidegate run DOCUMENT --fresh` asks again")
        return
    forgotten = _with_pipeline(options, lambda pipeline: pipeline.forget(document))
    threads = ", ".join(forgotten.threads)
    typer.echo(f"forgot document {forgotten.document_id[:12]}, {forgotten.calls} calls, and threads {threads}")


def import_(options: Mapping[str, str], file: str) -> None:
    """Take over another file's checkpoints."""

    async def work() -> int:
        settings = Settings.read(**options)
        async with open_checkpointer(settings.checkpoints, key=settings.key) as saver:
            take_over = getattr(saver, "aimport_from", None)
            if take_over is None:
                raise SettingsError("threads are taken over into SQLite; name one with --checkpoints sqlite:///FILE")
            count: int = await take_over(Path(file))
            return count

    count = asyncio.run(work())
    typer.echo(f"took over {count} checkpoints, for the graph that wrote them; `tidegate threads` lists Tidegate's own")


def _with_pipeline(options: Mapping[str, str], use: Callable[[Pipeline], Awaitable[_Result]]) -> _Result:
    async def work() -> _Result:
        async with Pipeline.open(existing(options)) as pipeline:
            return await use(pipeline)

    return asyncio.run(work())
