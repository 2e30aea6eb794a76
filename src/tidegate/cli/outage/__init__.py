"""`demo`: documents go through an outage of a service of the demo's own, in front of the user's eyes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from pathlib import Path

import typer

from tidegate.cli import notices
from tidegate.cli.exit_codes import INTERRUPTED
from tidegate.cli.outage.screen import Screen
from tidegate.cli.outage.story import Story


def demo() -> None:
    """Tell the story; all that it stores is in a temporary folder, which is removed however it ends."""
    if not notices.tell_routes():  # what the log warns of is the story
        logging.getLogger("tidegate").setLevel(logging.ERROR)
    os.environ["no_proxy"] = "*"  # whatever proxy there is for the network, and be it one that cannot be used
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-demo-") as folder, Screen() as screen:
            asyncio.run(_tell(screen, Path(folder)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("tidegate: demo interrupted; nothing is left behind", err=True)
        raise typer.Exit(INTERRUPTED) from None


async def _tell(screen: Screen, folder: Path) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed leaves nothing behind either
        loop.add_signal_handler(number, task.cancel)
    await Story(screen, stop=task.cancel).tell(folder)
