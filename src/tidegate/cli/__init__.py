"""The command line: results on stdout, everything else on stderr.

Nothing heavy is imported before a command runs: `tidegate --help` answers at once.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from tidegate.cli import notices
from tidegate.errors import TidegateError

app = typer.Typer(
    name="tidegate",
    help="Turn documents into enriched, sourced summaries, and keep doing so while services fail.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Policy = Literal["degrade", "wait", "fail"]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        help="Where threads live: sqlite:///FILE, file:///FOLDER, postgresql://HOST/DATABASE or memory:.", metavar="URL"
    ),
]
Model = Annotated[str | None, typer.Option(help="The chat model, as provider:name.", metavar="MODEL")]
WhenOpen = Annotated[Policy | None, typer.Option(help="What to do while a circuit is open.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
FailOnDegraded = Annotated[bool, typer.Option(help="Exit with 3 if the result is degraded.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
ThreadId = Annotated[str, typer.Argument(help="The thread's ID.", metavar="THREAD")]


def _at_least(least: int) -> Callable[[float | None], float | None]:
    def check(value: float | None) -> float | None:
        if value is not None and not value >= least:
            raise typer.BadParameter(f"give at least {least}, not {value:g}")
        return value

    return check


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("tidegate"))
        raise typer.Exit


_SERVICE = ("tidegate.engine", "tidegate.triggers", "tidegate.sinks", "tidegate.server")
"""What a service logs that nobody watches: not each step of each thread."""


@app.callback(
    epilog="Exit codes: 0 done, 1 unexpected error, 2 usage or settings, 3 degraded (--fail-on-degraded), "
    "4 waiting for a circuit, 5 a service failed (policy fail), 6-9 thread, 10-16 document, "
    "17 thread busy, 18 lease lost, 19 store unavailable, 20 doctor found something, 21 queue full, 22 event invalid, "
    "130 interrupted."
)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on stderr.")] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="How to log.", envvar="TIDEGATE_LOG_FORMAT")
    ] = "text",
) -> None:
    from tidegate.telemetry import logs

    told = _SERVICE if context.invoked_subcommand == "serve" else ()
    logs.set_up(log_format, verbose=verbose, told=(*told, notices.LOGGER) if log_format == "json" else told)
    notices.set_form(as_records=log_format == "json", is_verbose=verbose)


@app.command()
def run(
    document: Annotated[
        str, typer.Argument(help="A path, an http(s) URL, or - for standard input.", metavar="DOCUMENT")
    ],
    thread_id: Annotated[
        str | None, typer.Option(help="The thread's ID; by default made of name and content.", metavar="THREAD")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start another thread though the document has one.")] = False,
    when_open: WhenOpen = None,
    checkpoints: Checkpoints = None,
    model: Model = None,
    as_json: AsJson = False,
    fail_on_degraded: FailOnDegraded = False,
    quiet: Quiet = False,
) -> None:
    """Summarize a document: ingest, extract, enrich, summarize."""
    from tidegate.cli import execution

    execution.execute(
        _options_given(checkpoints=checkpoints, model=model),
        document,
        thread_id=thread_id,
        fresh=fresh,
        when_open=when_open,
        as_json=as_json,
        fail_on_degraded=fail_on_degraded,
        quiet=quiet,
    )


@app.command()
def resume(
    thread_id: ThreadId,
    when_open: WhenOpen = None,
    checkpoints: Checkpoints = None,
    model: Model = None,
    as_json: AsJson = False,
    fail_on_degraded: FailOnDegraded = False,
    quiet: Quiet = False,
) -> None:
    """Bring a thread as far as it can get now: go on after a crash, or ask for what is missing."""
    from tidegate.cli import execution

    execution.execute(
        _options_given(checkpoints=checkpoints, model=model),
        None,
        thread_id=thread_id,
        when_open=when_open,
        as_json=as_json,
        fail_on_degraded=fail_on_degraded,
        quiet=quiet,
    )


@app.command()
def backfill(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until interrupted, as circuits close.")] = False,
    checkpoints: Checkpoints = None,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each thread.")] = False,
) -> None:
    """Bring forward every thread that lacks something which can be had now. Exits with the code of the first error."""
    from tidegate.cli import healing

    healing.backfill(_options_given(checkpoints=checkpoints, model=model), watch=watch, as_json=as_json)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.", metavar="HOST")] = None,
    port: Annotated[
        int | None, typer.Option(help="The port; 0 takes a free one.", metavar="PORT", min=0, max=65535)
    ] = None,
    checkpoints: Checkpoints = None,
    model: Model = None,
) -> None:
    """Run unattended: take documents in from all triggers and over HTTP, deliver results, recover by itself.

    SIGTERM or Ctrl-C ends it once running steps have ended, a second one at once; the next start goes on.
    """
    from tidegate.cli import service

    service.serve(_options_given(checkpoints=checkpoints, model=model), host=host, port=port)


@app.command()
def threads(
    status: Annotated[
        Literal["queued", "running", "interrupted", "waiting", "failed", "dead", "cancelled", "complete", "degraded"]
        | None,
        typer.Option(help="Only these."),
    ] = None,
    limit: Annotated[
        int, typer.Option(help="How many at most, 1 or more.", metavar="NUMBER", callback=_at_least(1))
    ] = 20,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List threads, the most recently updated first."""
    from tidegate.cli import inspection

    inspection.threads(_options_given(checkpoints=checkpoints), status, limit, as_json=as_json)


@app.command()
def show(
    thread_id: ThreadId,
    history: Annotated[bool, typer.Option("--history", help="List its checkpoints too.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print the document's text, which offsets count in.")] = False,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Show what a thread holds, and how far it is."""
    from tidegate.cli import inspection

    options = _options_given(checkpoints=checkpoints)
    inspection.show(options, thread_id, history=history, text=text, as_json=as_json)


@app.command()
def history(thread_id: ThreadId, checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """List a thread's checkpoints: what ran, where it went, and why."""
    from tidegate.cli import inspection

    inspection.history(_options_given(checkpoints=checkpoints), thread_id, as_json=as_json)


@app.command()
def retry(
    thread_id: Annotated[str | None, typer.Argument(help="The thread's ID.", metavar="[THREAD]")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All threads that were given up.")] = False,
    results: Annotated[bool, typer.Option("--results", help="All results that could not be delivered.")] = False,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what a service gave up: it goes on with threads where they stopped, and delivers results again."""
    from tidegate.cli import verdicts

    verdicts.retry(_options_given(checkpoints=checkpoints), thread_id, every=all_, results=results, as_json=as_json)


@app.command()
def cancel(thread_id: ThreadId, checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """Have nothing go on with a thread that is not finished, until it is resumed or retried."""
    from tidegate.cli import verdicts

    verdicts.cancel(_options_given(checkpoints=checkpoints), thread_id, as_json=as_json)


@app.command()
def discard(
    sink: Annotated[str, typer.Argument(help="The sink's name.", metavar="SINK")],
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Drop the results that a sink did not get, as where it is gone for good. The threads keep theirs."""
    from tidegate.cli import verdicts

    verdicts.discard(_options_given(checkpoints=checkpoints), sink, as_json=as_json)


@app.command()
def doctor(checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """Say what is not finished, why, and what helps; check the store's file. Exits with 20 if there is anything."""
    from tidegate.cli import upkeep

    upkeep.doctor(_options_given(checkpoints=checkpoints), as_json=as_json)


@app.command("check-threads")
def check_threads(checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """Say of every thread whether this version can resume it, before a deploy. Exits with 8 if it cannot one."""
    from tidegate.cli import upkeep

    upkeep.check_threads(_options_given(checkpoints=checkpoints), as_json=as_json)


@app.command()
def delete(thread_id: ThreadId, checkpoints: Checkpoints = None) -> None:
    """Delete a thread. Its document stays: see forget."""
    from tidegate.cli import upkeep

    upkeep.delete(_options_given(checkpoints=checkpoints), thread_id)


@app.command()
def copy(
    thread_id: ThreadId,
    to: Annotated[str, typer.Argument(help="The ID of the copy.", metavar="COPY")],
    checkpoints: Checkpoints = None,
) -> None:
    """Copy a thread, its history included."""
    from tidegate.cli import upkeep

    upkeep.copy(_options_given(checkpoints=checkpoints), thread_id, to)


@app.command()
def prune(
    keep_last: Annotated[
        int | None,
        typer.Option(
            help="Keep so many checkpoints of each thread, 1 or more.", metavar="NUMBER", callback=_at_least(1)
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(help="Remove those older than so many days.", metavar="DAYS", callback=_at_least(0)),
    ] = None,
    finished: Annotated[
        float | None,
        typer.Option(
            help="Forget threads that finished more than so many days ago, 1 or more, with their documents, their "
            "results and the events that began them.",
            metavar="DAYS",
            callback=_at_least(1),
        ),
    ] = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Remove old checkpoints; the newest of each thread and what was published stay, unless it is finished long ago."""
    from tidegate.cli import upkeep

    upkeep.prune(_options_given(checkpoints=checkpoints), keep_last, older_than, finished)


@app.command()
def forget(
    document: Annotated[
        str | None, typer.Argument(help="Its SHA-256, the first 8 digits or more, or its source.", metavar="[DOCUMENT]")
    ] = None,
    not_found: Annotated[
        bool, typer.Option("--not-found", help="Drop what services answered by 'not found', as under a wrong URL.")
    ] = False,
    checkpoints: Checkpoints = None,
) -> None:
    """Remove a document and all that was made of it; or all answers 'not found', so that they are asked for again."""
    from tidegate.cli import upkeep

    upkeep.forget(_options_given(checkpoints=checkpoints), document, not_found=not_found)


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A database of langgraph-checkpoint-sqlite.", metavar="FILE")],
    checkpoints: Checkpoints = None,
) -> None:
    """Take over the threads of another LangGraph app's SQLite file."""
    from tidegate.cli import upkeep

    upkeep.import_(_options_given(checkpoints=checkpoints), file)


@app.command()
def graph(
    thread: Annotated[
        str | None, typer.Option(help="Highlight the path that this thread took.", metavar="THREAD")
    ] = None,
    format_: Annotated[Literal["mermaid", "svg", "png"], typer.Option("--format", help="What to draw.")] = "mermaid",
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write to this file.", metavar="FILE")] = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Draw the graph."""
    from tidegate.cli import inspection

    inspection.draw(_options_given(checkpoints=checkpoints), thread, format_, output)


@app.command()
def circuits(
    reset: Annotated[
        str | None, typer.Option(help="Close this circuit, as after a wrong URL or key was mended.", metavar="NAME")
    ] = None,
    force_open: Annotated[
        str | None, typer.Option(help="Let no call through until told otherwise.", metavar="NAME")
    ] = None,
    force_close: Annotated[
        str | None, typer.Option(help="Let every call through until told otherwise.", metavar="NAME")
    ] = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Show the circuit of every service: closed, open, or half-open; or hold one so."""
    from tidegate.cli import inspection

    forced = _options_given(reset=reset, open=force_open, closed=force_close)
    inspection.circuits(_options_given(checkpoints=checkpoints), forced, as_json=as_json)


@app.command()
def settings(checkpoints: Checkpoints = None, model: Model = None, as_json: AsJson = False) -> None:
    """Show the settings in force, and where each comes from; secrets are hidden."""
    from tidegate.cli import inspection

    inspection.settings(_options_given(checkpoints=checkpoints, model=model), as_json=as_json)


@app.command()
def demo() -> None:
    """Watch an outage, from beginning to end, in 20 seconds.

    Six short documents go through it, and the service that fails is the demo's own: it takes no network and no key,
    reads no settings, and leaves nothing behind.
    """
    from tidegate.cli import outage

    outage.demo()


def _options_given(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Run the command; errors of ours end in one line on stderr and their exit code."""
    from tidegate.cli.exit_codes import INTERRUPTED, UNEXPECTED, exit_code

    try:
        app()
    except TidegateError as error:
        notices.notice(f"tidegate: {error}", level=logging.ERROR)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        notices.notice("tidegate: interrupted; `tidegate threads` lists what can be resumed")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except (OSError, sqlite3.Error) as error:  # a full disk, a file damaged in the middle
        told = f"tidegate: {type(error).__name__}: {error}; check the disk, or restore the file from a copy"
        notices.notice(told, level=logging.ERROR)
        sys.exit(UNEXPECTED)
