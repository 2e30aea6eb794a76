"""`tidegate serve` for tests: the real service on loopback, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tidegate import Settings
from tidegate.server.service import Service
from tidegate.store.clock import Clock

LONGEST = 20.0
"""Seconds that anything may take before its test fails."""


@dataclass
class Served:
    """A running service, and a client of it; `service.stop` may be called from any thread by `call`."""

    service: Service
    client: httpx.Client
    loop: asyncio.AbstractEventLoop

    def start(self, text: str, **options: Any) -> str:
        """Start a thread, and return its ID."""
        answer = self.client.post("/v1/threads", json={"text": text}, **options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["thread_id"])

    def until(self, thread_id: str, *statuses: str) -> dict[str, Any]:
        """Return a thread once it has one of these statuses."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.get(f"/v1/threads/{thread_id}").raise_for_status().json()
            return found if found["status"] in statuses else None

        found: dict[str, Any] = wait_for(look)
        return found


def wait_for(look: Callable[[], Any], seconds: float = LONGEST) -> Any:
    """Return what `look` returns once that is something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def _print_tasks(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.print_stack()


@contextmanager
def serving(
    *,
    clock: Clock | None = None,
    headers: dict[str, str] | None = None,
    serve: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Run a service on a free port, with threads in memory unless told otherwise; drain it at the end."""
    options = {"checkpoints": "memory:", "recogniser": "rules", **options}
    service = Service(Settings.read(**options, serve={"port": 0, "grace": 5.0, **(serve or {})}), clock=clock)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    ended: list[BaseException] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await service.run(lambda _: ready.set())

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - it is raised where the test waits
            ended.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="tidegate serve")
    thread.start()
    assert ready.wait(LONGEST)
    try:
        if not ended:
            with httpx.Client(base_url=service.url, trust_env=False, timeout=LONGEST, headers=headers) as client:
                yield Served(service, client, loops[0])
    finally:
        if not ended:
            loops[0].call_soon_threadsafe(service.stop)
        thread.join(LONGEST)
        if thread.is_alive():  # say at what it hangs
            loops[0].call_soon_threadsafe(_print_tasks, loops[0])
            time.sleep(1.0)
    assert not thread.is_alive()
    if ended:
        raise ended[0]
