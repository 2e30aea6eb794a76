"""`serve`: the service, from its start to its drained end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import typer

from tidegate.cli.exit_codes import INTERRUPTED
from tidegate.cli.notices import notice
from tidegate.errors import MissingExtra
from tidegate.settings import Settings
from tidegate.telemetry.setup import configure


def serve(options: Mapping[str, str], *, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT; exits with 0 after a drain, with 130 after a second signal.

    Raises:
        MissingExtra: the packages of the service are not installed.
    """
    given: dict[str, Any] = {"host": host, "port": port}
    listening = {name: value for name, value in given.items() if value is not None}
    settings = Settings.read(**options, **({"serve": listening} if listening else {}))
    try:
        from tidegate.server.exposition import Exposition
        from tidegate.server.service import Service
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tidegate"):
            raise
        raise MissingExtra("`tidegate serve`", "serve") from error

    service = Service(settings, exposition=(exposition := Exposition()))
    shutdown = configure([exposition.reader()])
    try:
        asyncio.run(service.run(lambda told: notice(f"tidegate serves on {told}")))
    except asyncio.CancelledError:
        if not service.was_interrupted:
            raise
    finally:
        shutdown()
    if service.was_interrupted:
        raise typer.Exit(INTERRUPTED)
    notice("tidegate: drained, and ended")
