"""A relay in a process: `python -m tests.e2e.relay CHECKPOINTS URL`, which delivers to URL until it is killed."""

from __future__ import annotations

import asyncio
import sys

from tests.servers.receiver import Hook, Receiver
from tidegate import Pipeline, Settings
from tidegate.settings.service import WebhookSink
from tidegate.sinks.delivery import Relay


async def main(checkpoints: str, url: str) -> None:
    """Deliver what is due, and what a process that was killed had claimed a second ago."""
    settings = Settings(checkpoints=checkpoints, sink=(WebhookSink(kind="webhook", name="hook", url=url),))
    async with Pipeline.open(settings) as pipeline:
        await Relay(pipeline, [Hook("hook", Receiver(url=url))], claim=1.0).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
