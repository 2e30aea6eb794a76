"""LangGraph's own suite for checkpointers (langgraph-checkpoint-conformance), run over every saver."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES, Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from tests.conformance.sync_door import SyncDoor
from tidegate.checkpointers import open_checkpointer, open_checkpointer_sync

ALL = {each.value for each in ALL_CAPABILITIES}
URLS = ["memory:", "sqlite:///{folder}/tidegate.db", "file:///{folder}/threads"]


@pytest.mark.parametrize("url", URLS)
async def test_a_saver_conforms(url: str, tmp_path: Path) -> None:
    count = 0

    @checkpointer_test(name=url)
    async def make() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        async with open_checkpointer(url.format(folder=folder)) as saver:
            yield saver

    await _conforms(make)


@pytest.mark.parametrize("url", URLS)
async def test_a_saver_conforms_when_it_is_called_from_blocking_code(url: str, tmp_path: Path) -> None:
    count = 0

    @checkpointer_test(name=url)
    async def make() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        with open_checkpointer_sync(url.format(folder=folder)) as saver:
            yield SyncDoor(saver)

    await _conforms(make)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_the_saver_in_postgres_conforms(sync: bool, postgres_url: str) -> None:
    @checkpointer_test(name="postgres")
    async def make() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with open_checkpointer(postgres_url) as saver:
            yield SyncDoor(saver) if sync else saver

    await _conforms(make)


async def _conforms(make: RegisteredCheckpointer) -> None:
    report = await validate(make)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name for name, result in report.results.items() if result.passed} == ALL


def test_the_suite_has_no_capability_we_do_not_know() -> None:
    assert len(Capability) == 8
