"""Kill a real process in a step and resume its thread in another: `python -m tests.e2e.crash URL DOCUMENT MOMENT...`.

A moment is `STEP:enter:N` or `STEP:exit:N`, for the Nth time that a step is entered or has returned. Each process is a
fork of this one, which has imported everything and started nothing, so that a kill costs a fraction of a second.
Prints a JSON object a moment: the steps that each process entered, and the result.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel

import tidegate.graph.pipeline as declaration
from tidegate import Pipeline, Settings
from tidegate.services import gazetteer
from tidegate.testing import Fuse

SETTINGS: dict[str, Any] = {
    "recogniser": "rules",
    "enrichment": {"batch_size": 2, "concurrency": 2, "types": ("LOC", "ENTITY", "PERSON", "ORG")},
}


def watched(log: Path, moment: str) -> Callable[[str, Any], Any]:
    """Return a stand-in for `traced` that notes every step, and kills the process at the moment."""
    fuse = Fuse(moment)

    def wrap(name: str, step: Callable[..., Awaitable[Any]]) -> Any:
        async def run(state: Any, config: Any) -> Any:
            with log.open("a") as file:
                file.write(f"{name}\n")
            fuse.reach(f"{name}:enter")
            update = await step(state, config)
            fuse.reach(f"{name}:exit")
            return update

        run.__annotations__ = step.__annotations__ | {"return": Any}
        return run

    return wrap


async def execute(url: str, document: str | None, thread_id: str) -> dict[str, Any]:
    """Run the document, or resume the thread."""
    model = FakeListChatModel(responses=["The harbour is busy. [1]"])
    async with Pipeline.open(Settings.read(checkpoints=url, **SETTINGS), model=model) as pipeline:
        result = await (pipeline.resume(thread_id) if document is None else pipeline.run(document, thread_id=thread_id))
    return result.to_dict()


def in_a_process(url: str, document: str | None, thread_id: str, moment: str, folder: Path) -> dict[str, Any]:
    """Do it in a process of its own; return its exit status, its steps and its result."""
    log, output = folder / "steps", folder / "result"
    for file in (log, output):
        file.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            setattr(declaration, "traced", watched(log, moment))  # noqa: B010 - a stand-in has another type
            output.write_text(json.dumps(asyncio.run(execute(url, document, thread_id))))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "steps": log.read_text().split() if log.exists() else [],
        "result": json.loads(output.read_text()) if output.exists() else None,
    }


def main(url: str, document: str, *moments: str) -> None:
    """Run each moment on a thread of its own."""
    gazetteer.load()  # else each process would read it anew, which is most of what one has to do
    folder = Path.cwd()
    for number, moment in enumerate(moments):
        thread_id = f"thread-{number}"
        killed = in_a_process(url, document, thread_id, moment, folder)
        resumed = in_a_process(url, None, thread_id, "", folder)
        print(json.dumps({"moment": moment, "killed": killed, "resumed": resumed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
