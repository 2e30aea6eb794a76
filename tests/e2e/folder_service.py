"""A service of one folder: `python -m tests.e2e.folder_service STORE INBOX DONE FAILED`, until it is killed.

It holds what is under test of `tidegate serve`: the trigger, the engine, and the deliveries to a file sink.
"""

from __future__ import annotations

import asyncio
import sys

from tidegate import Pipeline, Settings
from tidegate.engine.in_process import InProcessEngine
from tidegate.settings.service import FileSink, FolderTrigger, ServeSettings
from tidegate.sinks.opening import open_sink
from tidegate.triggers.door import Door
from tidegate.triggers.opening import open_trigger


def settings_of(store: str, inbox: str, done: str, failed: str) -> Settings:
    """Return settings that leave no time unused."""
    folder = FolderTrigger(kind="folder", path=inbox, done=done, failed=failed, settle=0.2, scan_every=1.0)
    return Settings(
        checkpoints=f"sqlite:///{store}",
        recogniser="rules",
        trigger=(folder,),
        sink=(FileSink(kind="file"),),
        serve=ServeSettings(retry_initial=0.1),
        max_document_bytes=100_000,
    )


async def serve(settings: Settings) -> None:
    """Run threads of what is in the folder, and deliver their results, until cancelled."""
    [trigger], [sink] = (
        map(open_trigger, settings.trigger),
        (open_sink(each, settings.trigger) for each in settings.sink),
    )
    async with Pipeline.open(settings) as pipeline:
        engine = InProcessEngine(pipeline)
        door = Door(engine, pipeline.inbox, max_document_bytes=settings.max_document_bytes)

        async def deliver() -> None:
            while True:
                for delivery in await pipeline.outbox.claim(limit=10, seconds=2.0):
                    await sink.deliver(delivery)
                    await pipeline.outbox.delivered(delivery)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            group.create_task(trigger.run(door))
            group.create_task(engine.run_worker())
            group.create_task(deliver())


if __name__ == "__main__":
    asyncio.run(serve(settings_of(*sys.argv[1:])))
