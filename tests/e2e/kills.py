"""Kill processes that store checkpoints: `python -m tests.e2e.kills URL KILLS FOLDER`.

Each process is a fork of this one and stores in three threads at once. After every call that returned it notes what is
stored now, in a file of FOLDER. It is killed once that file has a random number of lines.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.checkpoints import at, checkpoint, place
from tidegate.checkpointers import open_checkpointer

TEXT = "a line of prose\n" * 200


def values(step: int) -> dict[str, Any]:
    """Return what the checkpoint of this step holds: a list, a long string and a number."""
    return {"document": [step] * 200, "text": f"{TEXT}{step // 3}", "step": step}


async def store(url: str, log: int, name: str) -> None:
    """Store checkpoints and writes until killed."""

    async def in_thread(thread_id: str) -> None:
        config = at(thread_id)
        for step in range(1_000_000):
            made = checkpoint(**values(step))
            made["channel_versions"] = {"document": step, "text": step // 3, "step": step}
            new: dict[str, str | int | float] = {
                "document": step,
                "step": step,
                **({} if step % 3 else {"text": step // 3}),
            }
            config = await saver.aput(config, made, {"step": step}, new)
            os.write(log, f"{thread_id} {place(config)['checkpoint_id']} {step} 0\n".encode())
            await saver.aput_writes(config, [("document", step), ("step", [step])], "task")
            os.write(log, f"{thread_id} {place(config)['checkpoint_id']} {step} 2\n".encode())

    async with open_checkpointer(url) as saver:
        await asyncio.gather(*(in_thread(f"{name}-{number}") for number in range(3)))


def main(url: str, kills: int, folder: Path) -> None:
    """Start and kill one process after the other."""
    chance = random.Random(1)  # noqa: S311 - not for secrets
    for number in range(kills):
        path = folder / f"{number}"
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(store(url, log, f"{number}"))
            finally:
                os._exit(1)
        os.close(log)
        lines = chance.randrange(0, 60)
        while path.read_bytes().count(b"\n") < lines:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                raise SystemExit("a process ended by itself")
            time.sleep(0.0005)
        time.sleep(chance.random() * 0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
