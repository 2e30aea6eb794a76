"""All the ways into a service that there are on this machine, each with what sends by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.unattended import SECRET, Send, Senders, Service


@dataclass(frozen=True, slots=True)
class Source:
    """A trigger's settings, None for the HTTP interface, and what makes its sender once there is a service."""

    settings: Mapping[str, object] | None
    sender: Callable[[Service], Send]


@asynccontextmanager
async def open_sources(folder: Path) -> AsyncIterator[list[Source]]:
    """Open each source; brokers those that the environment names, or that can be started."""
    async with AsyncExitStack() as stack:
        (folder / "inbox").mkdir()
        senders: dict[Service, Senders] = {}

        def of(service: Service) -> Senders:
            if service not in senders:
                senders[service] = Senders(service)
                stack.push_async_callback(senders[service].aclose)
            return senders[service]

        yield [
            Source(
                {"kind": "folder", "path": "inbox", "settle": 0.3, "scan_every": 2.0},
                lambda service: of(service).file,
            ),
            Source({"kind": "webhook", "secrets": [SECRET]}, lambda service: of(service).webhook),
            Source(None, lambda service: of(service).api),
        ]
