"""Where threads live: one saver a file, all behind `open_checkpointer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tidegate.checkpointers.url import Location, locate

if TYPE_CHECKING:  # each saver is imported when it is opened: LangGraph alone takes half a second
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = ["Location", "locate", "open_checkpointer"]


@asynccontextmanager
async def open_checkpointer(url: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Open the saver that `url` names: `sqlite:///tidegate.db`, `file:///folder`, `postgresql://host/db` or `memory:`.

    The file, the last folder of the path, or the schema in the database is created if need be.

    Raises:
        SettingsError: no saver has this URL, or its file or server cannot be used; the message says what to change.
    """
    location = locate(url)
    if location.server is not None:
        from tidegate.checkpointers.postgres import PostgresSaver

        async with PostgresSaver.open(location.server) as saver:
            yield saver
    elif location.checkpoints is None:
        from tidegate.checkpointers.memory import MemorySaver

        yield MemorySaver()
    elif location.kind == "file":
        from tidegate.checkpointers.json_file import JsonFileSaver

        yield await asyncio.to_thread(JsonFileSaver, location.checkpoints)
    else:
        from tidegate.checkpointers.sqlite import SqliteSaver

        async with SqliteSaver.open(location.checkpoints) as sqlite:
            yield sqlite
