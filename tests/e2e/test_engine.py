"""Engines in processes of their own: killed by what they run, and several at one store."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tidegate import Pipeline, Settings
from tidegate.store.inbox import Envelope
from tidegate.store.registry import ThreadRecord

MAX_ATTEMPTS = 3


def start(url: str, log: Path, concurrency: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.e2e.engine", url, str(log), str(concurrency)])


async def submit(url: str, *words: str) -> None:
    async with Pipeline.open(Settings(checkpoints=url)) as pipeline:
        for word in words:
            text = f"{word} went from Cairo to Dover."
            await pipeline.inbox.accept(Envelope(source="test", id=word, data=text.encode(), name=word))


async def threads(url: str) -> dict[str, ThreadRecord]:
    async with Pipeline.open(Settings(checkpoints=url)) as pipeline:
        return {each.source: each for each in await pipeline.threads(limit=None)}


def urls(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> str:
    places = {"sqlite": f"sqlite:///{tmp_path}/t.db", "file": f"file:///{tmp_path}/threads"}
    return places[where] if where in places else str(request.getfixturevalue("postgres_url"))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "file", "postgresql"])
async def test_a_document_that_kills_its_process_is_given_up_and_those_beside_it_are_not(
    tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    url, log = urls(tmp_path, request, where), tmp_path / "log"
    others = [f"Other{number}" for number in range(6)]
    await submit(url, "Poison", *others)
    codes: list[int] = []
    while 0 not in codes and len(codes) < 3 * MAX_ATTEMPTS:
        codes.append(start(url, log, 4).wait(60))
    found = await threads(url)
    assert {name: found[name].status for name in others} == dict.fromkeys(others, "complete")
    assert (found["Poison"].status, found["Poison"].error) == ("dead", "its process ended 3 times at this step")
    begun = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert begun["Poison"] == MAX_ATTEMPTS
    assert codes == [-signal.SIGKILL] * MAX_ATTEMPTS + [0]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "file", "postgresql"])
async def test_engines_in_several_processes_run_each_thread_once(
    tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    url, log = urls(tmp_path, request, where), tmp_path / "log"
    words = [f"Number{number}" for number in range(24)]
    await submit(url, *words)
    engines = [start(url, log, 3) for _ in range(2)]
    assert [each.wait(120) for each in engines] == [0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert Counter(word for word, _ in lines) == dict.fromkeys(words, 1)
    assert len({process for _, process in lines}) == 2, "both had a part in it"
    found = await threads(url)
    assert {each.status for each in found.values()} == {"complete"}
    assert {each.revision for each in found.values()} == {1}
