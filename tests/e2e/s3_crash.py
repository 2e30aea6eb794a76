"""Consume a queue and be killed around the commit: `python -m tests.e2e.s3_crash ENDPOINT QUEUE STORE before|after`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from tidegate.engine.port import Unreadable
from tidegate.settings.service import S3Trigger as Settings
from tidegate.store.database import Database
from tidegate.store.inbox import Envelope, Inbox, Receipt
from tidegate.store.schema import STORE
from tidegate.triggers.door import Door
from tidegate.triggers.s3.trigger import S3Trigger


class Dying:
    """An engine that dies as it takes an event in."""

    def __init__(self, inbox: Inbox, moment: str) -> None:
        self._inbox = inbox
        self._moment = moment

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        assert isinstance(event, Envelope)
        if self._moment == "after":
            await self._inbox.accept(event)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("we are dead")


async def main(endpoint: str, queue: str, store: str, moment: str) -> None:
    inbox = Inbox(Database(store, STORE), max_queued=1000)
    engine: Any = Dying(inbox, moment)
    settings = Settings(kind="s3", queue_url=queue, endpoint_url=endpoint, region="eu-central-1", wait=1, visibility=3)
    await S3Trigger(settings).run(Door(engine, inbox, max_document_bytes=1000))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
