"""`tidegate backfill` in processes of its own: an idle one heals, a killed one leaves its threads to the next."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.enrichment import EnrichmentServer
from tidegate import Pipeline, Settings

ROOT = Path(__file__).parents[2]
NAMES = ["Arne Lund", "Berta Moe", "Carl Nygaard", "Dina Olsen", "Egil Pran", "Frida Quist"]


@pytest.fixture
def server() -> Iterator[EnrichmentServer]:
    with EnrichmentServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "file", "postgres"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/t.db" if request.param == "sqlite" else f"file:///{tmp_path}/kept"


def configure(folder: Path, checkpoints: str, server: EnrichmentServer, reset_timeout: float) -> Settings:
    """Settings for this process, and in a file for others."""
    (folder / "tidegate.toml").write_text(
        f'checkpoints = "{checkpoints}"\nrecogniser = "rules"\n[enrichment]\nadapter = "http"\nurl = "{server.url}"\n'
        f'types = ["PERSON"]\nconcurrency = 1\nattempt_timeout = 2.0\nbackoff_initial = 0.0\n'
        f"reset_timeout = {reset_timeout}\n"
    )
    section = {"adapter": "http", "url": server.url, "types": ["PERSON"], "concurrency": 1, "backoff_initial": 0.0}
    return Settings.read(
        checkpoints=checkpoints, recogniser="rules", enrichment={**section, "reset_timeout": reset_timeout}
    )


def backfill(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tidegate", "backfill", "--json", *options]
    environ = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def degrade(settings: Settings, server: EnrichmentServer) -> None:
    """Run a thread for each name while the API is down."""

    async def run() -> None:
        async with Pipeline.open(settings) as pipeline:
            for name in NAMES:
                result = await pipeline.run(text=f"They met Mr {name} there.", thread_id=name)
                assert result.status == "degraded"

    server.down(503)
    asyncio.run(run())
    server.requests.clear()


def statuses(settings: Settings) -> dict[str, str]:
    async def read() -> dict[str, str]:
        async with Pipeline.open(settings) as pipeline:
            return {record.thread_id: record.status for record in await pipeline.threads()}

    return asyncio.run(read())


@pytest.mark.slow
def test_an_idle_process_heals_every_thread_when_the_api_is_back_and_ends_on_a_signal(
    tmp_path: Path, checkpoints: str, server: EnrichmentServer
) -> None:
    settings = configure(tmp_path, checkpoints, server, reset_timeout=0.3)
    degrade(settings, server)
    with backfill(tmp_path, "--watch") as idle:
        server.wait_for(2, timeout=60.0)  # probes, which fail
        server.up()
        assert idle.stdout is not None
        found: dict[str, str] = {}
        while {*found.values()} != {"complete"} or len(found) < len(NAMES):
            row = json.loads(idle.stdout.readline())
            found[row["thread_id"]] = row["status"]
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(20) == 0
    assert statuses(settings) == dict.fromkeys(NAMES, "complete")


@pytest.mark.slow
def test_what_a_killed_sweep_was_doing_is_done_by_the_next(
    tmp_path: Path, checkpoints: str, server: EnrichmentServer
) -> None:
    settings = configure(tmp_path, checkpoints, server, reset_timeout=0.3)
    degrade(settings, server)
    time.sleep(0.3)
    server.up()
    server.down("hang")
    with backfill(tmp_path) as killed:
        server.wait_for(1, timeout=60.0)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.communicate()[0] == ""
    server.up()
    with backfill(tmp_path, "--watch") as heir:  # the probe's lease is the dead process's for some seconds
        assert heir.stdout is not None
        for _ in NAMES:
            assert json.loads(heir.stdout.readline())["status"] == "complete"
        heir.send_signal(signal.SIGINT)
        assert heir.wait(20) == 0
    assert statuses(settings) == dict.fromkeys(NAMES, "complete")


@pytest.mark.slow
def test_processes_that_sweep_at_once_run_no_thread_twice(
    tmp_path: Path, checkpoints: str, server: EnrichmentServer
) -> None:
    settings = configure(tmp_path, checkpoints, server, reset_timeout=0.3)
    degrade(settings, server)
    time.sleep(0.3)
    server.up()
    completed: list[str] = []
    while len(completed) < len(NAMES):  # one that comes while another has the probe brings its thread no further
        sweeps = [backfill(tmp_path) for _ in range(3)]
        printed = [sweep.communicate(timeout=60)[0] for sweep in sweeps]
        assert [sweep.returncode for sweep in sweeps] == [0, 0, 0]
        rows = [json.loads(line) for output in printed for line in output.splitlines()]
        completed += [row["thread_id"] for row in rows if row["status"] == "complete"]
    assert sorted(completed) == NAMES
    assert sorted(server.texts) == NAMES
