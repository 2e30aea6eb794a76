"""Processes to be killed: `python -m tests.e2e.supervisor` forks them, having imported everything and started nothing.

Reads a JSON object a line. `{"start": SETTINGS, "threads": {ID: TEXT}, "at": POINT, "output": FILE}` starts a process
which runs or resumes these threads side by side, and answers its PID. `{"wait": PID}` answers the signal that ended it,
0 for none. With `"persist": true` the process resumes its threads until none lacks anything that can be had, and with
`"reset": true` it begins with circuits that are closed.

A point is one of `tidegate.testing.crash`, or `commit:N`: directly before the Nth transaction of the store, or of the
circuits, is committed. The process kills itself there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import langchain.chat_models
import langchain_openai

from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.checkpointers import json_file, sqlite
from tidegate.errors import TidegateError
from tidegate.store import connection as connections
from tidegate.testing import crash_at
from tidegate.testing.crash import Fuse

IMPORTED = (langchain.chat_models, langchain_openai, json_file, sqlite)
ROOT = Path(__file__).parents[2]
LONGEST = 120
"""Seconds after which a process is ended by SIGALRM: one that hangs must not hang its test."""


class Supervisor:
    """The other end, for tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.supervisor"],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "OPENAI_API_KEY": "test-key"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def start(
        self,
        settings: dict[str, Any],
        threads: Mapping[str, str | None],
        at: str = "",
        *,
        persist: bool = False,
        reset: bool = False,
    ) -> Child:
        """Start a process; a thread without a text is resumed."""
        self._started += 1
        output = self._folder / f"output-{self._started}"
        how = {"at": at, "persist": persist, "reset": reset}
        return Child(
            self, self.tell({"start": settings, "threads": dict(threads), "output": str(output), **how}), output
        )

    def tell(self, command: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(command)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Child:
    """A process that runs threads."""

    def __init__(self, supervisor: Supervisor, pid: int, output: Path) -> None:
        self.pid = pid
        self._supervisor = supervisor
        self._output = output

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the signal that ended it, 0 for none."""
        return self._supervisor.tell({"wait": self.pid})

    @property
    def results(self) -> dict[str, Any]:
        """What each thread came to: its result, or the name of its error; empty if the process was killed."""
        found: dict[str, Any] = json.loads(self._output.read_text()) if self._output.exists() else {}
        return found


@contextmanager
def dying(point: str) -> Iterator[None]:
    """Have this process kill itself at the point."""
    if not point.startswith("commit:"):
        with crash_at(point) if point else nullcontext():
            yield
        return
    fuse, connect_writer = Fuse(point), connections.connect_writer

    def connect(*arguments: Any) -> sqlite3.Connection:
        connection = connect_writer(*arguments)
        connection.set_trace_callback(lambda statement: fuse.reach("commit") if statement == "COMMIT" else None)
        return connection

    setattr(connections, "connect_writer", connect)  # noqa: B010 - a stand-in has another type
    yield


async def execute(
    settings: dict[str, Any], threads: Mapping[str, str | None], *, persist: bool, reset: bool
) -> dict[str, Any]:
    """Run or resume the threads."""

    async def advance(pipeline: Pipeline, thread_id: str, text: str | None) -> Any:
        try:
            if text is None:
                result = await pipeline.resume(thread_id)
            else:
                result = await pipeline.run(text=text, name=thread_id, thread_id=thread_id)
            while persist and any(item.retryable for item in result.missing):
                await asyncio.sleep(max(result.retry_in or 0.0, 0.01))
                result = await pipeline.resume(thread_id)
        except TidegateError as error:
            return type(error).__name__
        return result.to_dict()

    async with Pipeline.open(Settings.read(**settings), recogniser=NamesByCapital()) as pipeline:
        for report in await pipeline.circuits() if reset else []:
            await pipeline.force_circuit(report.name, None)
        results = await asyncio.gather(*(advance(pipeline, *each) for each in threads.items()))
    return dict(zip(threads, results, strict=True))


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            signal.alarm(LONGEST)
            try:
                output = Path(command["output"])
                unfinished = output.with_suffix(".new")
                work = execute(command["start"], command["threads"], persist=command["persist"], reset=command["reset"])
                with dying(command["at"]):
                    unfinished.write_text(json.dumps(asyncio.run(work)))
                unfinished.replace(output)
            except BaseException as error:  # noqa: BLE001 - what a fork raises must not come out of its parent's code
                print(repr(error), file=sys.stderr, flush=True)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
