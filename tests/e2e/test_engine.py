"""Engines in processes of their own: killed by what they run, and several at one store."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.engines import Step, until
from tests.servers.postgres import serving
from tidegate import Pipeline, Settings
from tidegate.engine.in_process import InProcessEngine
from tidegate.settings import EnrichmentSettings
from tidegate.settings.service import ServeSettings
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


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_threads_go_on_after_their_server_went_away_in_the_middle(how: signal.Signals) -> None:
    with serving() as server:
        if server is None:
            pytest.skip("needs PostgreSQL's programs, to stop a server of its own")
        settings = Settings(
            checkpoints=server.url,
            recogniser="rules",
            enrichment=EnrichmentSettings(adapter="none"),
            serve=ServeSettings(concurrency=2, retry_initial=0.2, max_attempts=2),
        )
        step = Step()
        step.acts = dict.fromkeys((f"Number{n}" for n in range(8)), lambda: asyncio.sleep(0.2))
        async with Pipeline.open(settings, recogniser=step) as pipeline:
            for word in step.acts:
                event = Envelope(source="test", id=word, data=f"{word} in Cairo.".encode(), name=word)
                await pipeline.inbox.accept(event)
            engine = InProcessEngine(pipeline)
            worker = asyncio.create_task(engine.run_worker())
            for begun in (1, 4):
                await until(lambda: len(step.begun) >= begun)  # noqa: B023 - awaited here
                await asyncio.to_thread(server.stop, how)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)

            async def complete() -> bool:
                return (await pipeline.registry.count()) == {"complete": 8}

            await until(complete, patience=120.0)
            engine.stop()
            await worker
