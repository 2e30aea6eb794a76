"""LangGraph's own suite for checkpointers (langgraph-checkpoint-conformance), run over every saver."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES, BASE_CAPABILITIES, Capability

from tidegate.checkpointers import open_checkpointer

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

    report = await validate(make)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name for name, result in report.results.items() if result.passed} == capabilities


def test_the_suite_has_no_capability_we_do_not_know() -> None:
    assert len(Capability) == 8
