"""One engine in a process: `python -m tests.e2e.engine URL LOG CONCURRENCY`, until nothing is left to do.

Each document whose names are to be found is noted in LOG, by its first word and the process. At the word `Poison` the
process kills itself, as the kernel does where memory runs out, once every document beside it is on its way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.engine.in_process import InProcessEngine
from tidegate.state import Document, Entity


class Step:
    """Finds names, after it was noted."""

    name = "deadly/1"

    def __init__(self, log: Path) -> None:
        self._log = log

    async def recognise(self, document: Document) -> list[Entity]:
        word = document.text.split()[0]
        with self._log.open("a") as file:
            file.write(f"{word} {os.getpid()}\n")
        if word == "Poison":
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.1)
        return await NamesByCapital().recognise(document)


async def main(url: str, log: Path, concurrency: int) -> None:
    """Work until every thread is finished or dead."""
    serve = {"concurrency": concurrency, "max_attempts": 3, "retry_initial": 0.1}
    settings = Settings.read(checkpoints=url, recogniser="rules", enrichment={"adapter": "none"}, serve=serve)
    async with Pipeline.open(settings, recogniser=Step(log)) as pipeline:
        engine = InProcessEngine(pipeline)
        worker = asyncio.create_task(engine.run_worker())
        while any((await pipeline.registry.count("queued", "running", "failed")).values()):  # noqa: ASYNC110 - others work, too
            await asyncio.sleep(0.05)
        engine.stop()
        await worker


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
