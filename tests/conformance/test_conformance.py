"""LangGraph's own suite for checkpointers (langgraph-checkpoint-conformance), run over every saver."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES, BASE_CAPABILITIES, Capability

from tidegate.checkpointers import open_checkpointer, open_checkpointer_sync

ALL = {each.value for each in ALL_CAPABILITIES}
BASE = {each.value for each in BASE_CAPABILITIES}


@pytest.mark.parametrize(
    ("url", "capabilities"),
    [("memory:", BASE), ("sqlite:///{folder}/tidegate.db", ALL), ("file:///{folder}/threads", ALL)],
)
async def test_a_saver_conforms(url: str, capabilities: set[str], tmp_path: Path) -> None:
    count = 0

    @checkpointer_test(name=url)
    async def make() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        async with open_checkpointer(url.format(folder=folder)) as saver:
            yield saver

    await _validate(make, capabilities)


@pytest.mark.parametrize("url", ["sqlite:///{folder}/tidegate.db", "file:///{folder}/threads"])
async def test_a_saver_conforms_when_it_is_called_from_blocking_code(url: str, tmp_path: Path) -> None:
    count = 0

    @checkpointer_test(name=url)
    async def make() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        with open_checkpointer_sync(url.format(folder=folder)) as saver:
            yield Blocking(saver)

    await _validate(make, ALL)


class Blocking(BaseCheckpointSaver[Any]):
    """A saver whose asynchronous methods call the blocking ones of another."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.saver.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for each in self.saver.list(config, filter=filter, before=before, limit=limit):
            yield each

    async def aput(self, *args: Any, **options: Any) -> RunnableConfig:
        return self.saver.put(*args, **options)

    async def aput_writes(self, *args: Any, **options: Any) -> None:
        self.saver.put_writes(*args, **options)

    async def adelete_thread(self, thread_id: str) -> None:
        self.saver.delete_thread(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.saver.delete_for_runs(run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.saver.copy_thread(source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self.saver.prune(thread_ids, strategy=strategy)


async def _validate(make: Any, capabilities: set[str]) -> None:
    report = await validate(make)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name for name, result in report.results.items() if result.passed} == capabilities


def test_the_suite_has_no_capability_we_do_not_know() -> None:
    assert len(Capability) == 8
