"""Pipelines and savers on a PostgreSQL server that is shared, restarted, and left by processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import at
from tests.e2e.kills import values
from tests.fakes import ScriptedChat
from tests.servers.postgres import Server, serving
from tidegate import Pipeline, Settings
from tidegate.checkpointers import open_checkpointer
from tidegate.checkpointers.postgres import PostgresSaver
from tidegate.errors import StoreUnavailable
from tidegate.store.postgres import PostgresDatabase

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "harbour-report.md"


def module(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.e2e.{name}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_four_processes_share_a_database_with_25_threads_each(postgres_url: str) -> None:
    processes = [module("crowd", postgres_url, f"p{number}", "25") for number in range(4)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    ended: dict[str, list[Any]] = {}
    for output in outputs:
        ended |= json.loads(output)
    assert len(ended) == 100
    assert {tuple(each) for each in ended.values()} == {("complete", 1, 3)}

    async def stored() -> list[Any]:
        async with Pipeline.open(Settings.read(checkpoints=postgres_url, recogniser="rules")) as pipeline:
            records = await pipeline.threads(limit=200)
            results = await asyncio.gather(*(pipeline.inspect(record.thread_id) for record in records))
        return [
            (record.status, record.revision, result.status) for record, result in zip(records, results, strict=True)
        ]

    assert asyncio.run(stored()) == [("complete", 1, "complete")] * 100


@pytest.mark.slow
@pytest.mark.parametrize("kills", [int(os.environ.get("TIDEGATE_TEST_KILLS", "200"))])
async def test_what_was_stored_is_there_though_the_process_was_killed(
    kills: int, postgres_url: str, tmp_path: Path
) -> None:
    killing = module("kills", postgres_url, str(kills), str(tmp_path))
    await asyncio.to_thread(killing.communicate, timeout=1200)
    assert killing.returncode == 0
    told = [line.split() for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert len(told) > 10 * kills
    async with open_checkpointer(postgres_url) as saver:
        for thread_id in {line[0] for line in told}:
            stored = {each.checkpoint["id"]: each async for each in saver.alist(at(thread_id))}
            steps = sorted(each.metadata.get("step", -1) for each in stored.values())
            assert steps == list(range(len(steps)))  # what comes after what was told may be there, with no gap
            for each in stored.values():
                assert each.checkpoint["channel_values"] == values(each.metadata.get("step", -1))
                assert len(each.pending_writes or []) in (0, 2)
            for _, checkpoint_id, step, writes in (line for line in told if line[0] == thread_id):
                found = stored[checkpoint_id]
                assert found.metadata.get("step") == int(step)
                assert len(found.pending_writes or []) >= int(writes)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        if server is None:
            pytest.skip("needs the programs of a PostgreSQL server, initdb among them")
        yield server


def model(*happenings: Callable[[], None]) -> ScriptedChat:
    """A chat model: before each of its answers one of these happens, then nothing any more."""
    left = list(happenings)

    def answer(prompt: str) -> str:
        if left:
            left.pop(0)()
        return "The harbours agreed on a standard. [1]"

    return ScriptedChat(answer=answer)


@pytest.mark.slow
async def test_a_server_restarted_in_the_middle_of_a_step_is_not_noticed(server: Server) -> None:
    def restart() -> None:
        server.stop()
        server.start()

    settings = Settings.read(checkpoints=server.url, recogniser="rules")
    async with Pipeline.open(settings, model=model(restart)) as pipeline:
        result = await pipeline.run(SAMPLE, thread_id="t")
        assert (result.status, result.revision) == ("complete", 1)
        assert [record.status for record in await pipeline.threads()] == ["complete"]


@pytest.mark.slow
async def test_a_thread_whose_server_went_away_is_resumed_once_it_is_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresSaver, "open", partial(PostgresSaver.open, patience=0.2))
    monkeypatch.setattr("tidegate.store.postgres.PostgresDatabase", partial(PostgresDatabase, patience=0.2))
    settings = Settings.read(checkpoints=server.url, recogniser="rules")
    async with Pipeline.open(settings, model=model(server.stop)) as pipeline:
        with pytest.raises(StoreUnavailable, match=r"postgresql:///postgres cannot be used: .*resume the thread once"):
            await pipeline.run(SAMPLE, thread_id="t")
        await asyncio.to_thread(server.start)
        monkeypatch.undo()
    async with Pipeline.open(settings, model=model()) as pipeline:
        result = await pipeline.resume("t")
    assert (result.status, result.revision) == ("complete", 1)
