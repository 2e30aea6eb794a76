"""What is left running when a pipeline is closed: it ends before the store does, and nobody gets a traceback."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tidegate import Pipeline
from tidegate.settings import Settings
from tidegate.store.database import Database
from tidegate.store.leases import Leases
from tidegate.store.schema import STORE

TEXT = "The North Sea Ports Alliance met in Rotterdam on 14 October 2025. Bergen was not there."


def _settings(url: str) -> Settings:
    return Settings.read(checkpoints=url)


def _url(kind: str, tmp_path: Path) -> str:
    return "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/t.db"


@pytest.mark.parametrize(("kind", "last"), [("memory", 1), ("memory", 3), ("sqlite", 1), ("sqlite", 2)])
async def test_a_stream_that_a_break_left_ends_with_its_pipeline_without_a_word(
    kind: str, last: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    seen = 0
    async with Pipeline.open(_settings(_url(kind, tmp_path))) as pipeline:
        async for _ in pipeline.stream(text=TEXT, thread_id="t"):
            seen += 1
            if seen == last:
                break
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    if kind == "sqlite":
        with closing(sqlite3.connect(tmp_path / "t.db")) as database:
            assert database.execute("SELECT count(*) FROM leases WHERE held = 1").fetchone() == (0,)


async def test_a_lease_that_comes_after_its_store_was_closed_is_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(tmp_path / "t.db", STORE)
    blocked = threading.Event()
    writing = database.submit(lambda _: blocked.wait(10))
    acquiring = asyncio.create_task(Leases(database).acquire("t"))
    await asyncio.sleep(0)
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)
    closed = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    blocked.set()
    await asyncio.wrap_future(writing)
    await closed
    assert "exception calling callback" not in caplog.text


async def test_a_store_that_is_closed_after_settling_holds_no_lease(tmp_path: Path) -> None:
    database, blocked = Database(tmp_path / "t.db", STORE), threading.Event()
    leases = Leases(database)
    writing = database.submit(lambda _: blocked.wait(10))
    acquiring = asyncio.create_task(leases.acquire("t"))
    await asyncio.sleep(0)
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)
    settling = asyncio.create_task(leases.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    blocked.set()
    await asyncio.wrap_future(writing)
    await settling
    await database.close()
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        assert connection.execute("SELECT count(*) FROM leases WHERE held = 1").fetchone() == (0,)
