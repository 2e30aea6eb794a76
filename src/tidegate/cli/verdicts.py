"""`retry`, `cancel` and `discard`: what a service goes on with, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import typer

from tidegate.cli.existing import existing
from tidegate.cli.text import print_json
from tidegate.errors import SettingsError
from tidegate.graph.runner import Pipeline


def retry(options: Mapping[str, str], thread_id: str | None, *, every: bool, results: bool, as_json: bool) -> None:
    """Queue a thread, or all that were given up, and make due the results that were."""
    if (every and thread_id is not None) or not (every or results or thread_id is not None):
        raise SettingsError("say what to retry: a THREAD, --all threads that were given up, or --results")

    async def work() -> tuple[list[str], int]:
        async with Pipeline.open(existing(options)) as pipeline:
            threads: list[str] = []
            if thread_id is not None:
                await pipeline.retry(thread_id)
                threads = [thread_id]
            elif every:
                threads = await pipeline.retry_all()
            return threads, await pipeline.outbox.retry() if results else 0

    threads, deliveries = asyncio.run(work())
    if as_json:
        print_json({"threads": threads, "results": deliveries})
        return
    for each in threads:
        typer.echo(f"queued thread {each}")
    if every and not threads:
        typer.echo("no thread was given up")
    if results:
        typer.echo(f"results to be delivered again: {deliveries}")


def cancel(options: Mapping[str, str], thread_id: str, *, as_json: bool) -> None:
    """Cancel one thread."""

    async def work() -> bool:
        async with Pipeline.open(existing(options)) as pipeline:
            return await pipeline.cancel(thread_id)

    was_open = asyncio.run(work())
    if as_json:
        print_json({"thread_id": thread_id, "cancelled": was_open})
    else:
        typer.echo(
            f"cancelled thread {thread_id}"
            if was_open
            else f"thread {thread_id} is finished, or was cancelled before; nothing was changed"
        )


def discard(options: Mapping[str, str], sink: str, *, as_json: bool) -> None:
    """Drop what was not delivered to one sink."""

    async def work() -> int:
        async with Pipeline.open(existing(options)) as pipeline:
            return await pipeline.outbox.discard(sink)

    number = asyncio.run(work())
    print_json({"sink": sink, "results": number}) if as_json else typer.echo(
        f"discarded results that sink {sink} did not get: {number}"
    )
