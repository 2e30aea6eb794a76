"""The service as a process: its start, its drain, its end, and what it tells systemd."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers.service import LONGEST, serving, wait_for
from tidegate import Pipeline, Settings
from tidegate.errors import MissingExtra, SettingsError, StoreUnavailable
from tidegate.resilience.faults import FaultyServer
from tidegate.server import service as services
from tidegate.server.notify import Notifier
from tidegate.server.service import Service
from tidegate.server.supervision import FIRST_PAUSE, LONGEST_PAUSE, keep_running
from tidegate.store.clock import Clock
from tidegate.testing import ManualClock
from tidegate.triggers.door import Door

ROOT = Path(__file__).parents[1]
SAMPLE = (Path(__file__).parent / "samples" / "harbour-report.md").read_text()


@contextmanager
def process(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, str]]:
    """Run `tidegate serve` in a folder, on a free port."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tidegate", "serve", "--port", "0"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TIDEGATE_RECOGNISER": "rules", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    try:
        line = started.stderr.readline()
        while line and "serves on" not in line:
            line = started.stderr.readline()
        found = re.search(r"http://\S+?:\d+", line)
        assert found is not None, started.stderr.read()
        with httpx.Client(base_url=found[0], trust_env=False, timeout=LONGEST) as client:
            yield started, client, line
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        started.stderr.close()


class Slow(FaultyServer):
    """An enrichment API whose answers take their time."""

    def __init__(self, seconds: float) -> None:
        from tidegate.resilience.faults.behaviours import Delay

        super().__init__(lambda _: Delay(seconds), answer=lambda request: {"text": "slow"})

    @property
    def settings(self) -> dict[str, str]:
        return {"TIDEGATE_ENRICHMENT__ADAPTER": "http", "TIDEGATE_ENRICHMENT__URL": f"{self.url}/{{text}}"}


@pytest.mark.slow
def test_sigterm_drains_and_a_restart_goes_on(tmp_path: Path) -> None:
    with Slow(0.3) as api:
        with process(tmp_path, **api.settings) as (served, client, _):
            thread_id = client.post("/v1/threads", json={"text": SAMPLE}).json()["thread_id"]
            wait_for(lambda: api.requests or None)
            served.send_signal(signal.SIGTERM)
            wait_for(lambda: True if served.poll() is not None else None)
            assert served.returncode == 0
            assert served.stderr is not None
            assert "drained" in served.stderr.read()
        with process(tmp_path, **api.settings) as (_, client, told):
            assert "unfinished threads: 1" in told
            wait_for(lambda: True if status(client, thread_id) == "complete" else None)
        names = [request.path for request in api.requests]
    assert len(set(names)) == len(names), "no answer that was recorded is asked for again"


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with FaultyServer(lambda _: "hang") as api:
        hanging = {"TIDEGATE_ENRICHMENT__ADAPTER": "http", "TIDEGATE_ENRICHMENT__URL": f"{api.url}/{{text}}"}
        with process(tmp_path, TIDEGATE_SERVE__GRACE="60", **hanging) as (served, client, _):
            thread_id = client.post("/v1/threads", json={"text": SAMPLE}).json()["thread_id"]
            wait_for(lambda: api.requests or None)
            served.send_signal(signal.SIGTERM)
            wait_for(lambda: True if client.get("/readyz").status_code == 503 else None)
            assert client.get("/healthz").status_code == 200, "while it drains, it lives"
            began = time.monotonic()
            served.send_signal(signal.SIGTERM)
            wait_for(lambda: True if served.poll() is not None else None)
            assert served.returncode == 130
            assert time.monotonic() - began < services.AT_ONCE + 3.0
    with process(tmp_path) as (served, client, _):
        wait_for(lambda: True if status(client, thread_id) == "complete" else None)


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with Slow(0.3) as api:
        with process(tmp_path, **api.settings) as (served, client, _):
            ids = [client.post("/v1/threads", json={"text": f"{SAMPLE}\n{n}"}).json()["thread_id"] for n in range(6)]
            wait_for(lambda: api.requests or None)
            served.kill()
        with process(tmp_path, **api.settings) as (_, client, _):
            wait_for(lambda: True if {status(client, each) for each in ids} == {"complete"} else None, 60.0)
            page = client.get("/v1/threads").json()["threads"]
    assert sorted(each["thread_id"] for each in page) == sorted(ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TIDEGATE_SERVE__HOST": "0.0.0.0"}, "there is no token"),  # noqa: S104
        ({"TIDEGATE_SERVE__HOST": "nowhere.invalid"}, "cannot listen on nowhere.invalid"),
        ({"TIDEGATE_TRIGGER": '[{"kind": "folder", "path": "gone"}]'}, "tidegate: "),
    ],
)
def test_what_cannot_work_ends_the_start_with_one_line(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "serve", "--port", "0"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TIDEGATE_RECOGNISER": "rules", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def status(client: httpx.Client, thread_id: str) -> str:
    return str(client.get(f"/v1/threads/{thread_id}").json()["status"])


class Listener:
    """systemd's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(LONGEST)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def next(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


def test_systemd_is_told_of_its_start_its_life_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(tmp_path / "notify") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        with serving() as served:
            told = [systemd.next() for _ in range(4)]
            url = served.service.url
        while (last := systemd.next()) == ["WATCHDOG=1"]:
            pass
    assert ["READY=1", f"STATUS={url}"] in told
    assert told.count(["WATCHDOG=1"]) == 3
    assert last == ["STOPPING=1"]


async def test_the_watchdog_hears_nothing_while_the_store_does_not_answer(tmp_path: Path) -> None:
    clock = ManualClock()
    answers = True

    async def is_well() -> bool:
        return answers

    with Listener(tmp_path / "notify") as systemd:
        systemd.socket.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"})
        watching = asyncio.create_task(notifier.watch(is_well, clock))
        await clock.until_sleeping()
        assert systemd.next() == ["WATCHDOG=1"]
        assert clock.slept == [30.0], "half of the period"
        answers = False
        clock.advance(30.0)
        await clock.until_sleeping()
        with pytest.raises(BlockingIOError):
            systemd.next()
        watching.cancel()


@pytest.mark.parametrize(
    "environment",
    [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"WATCHDOG_USEC": "1"}, {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"}],
)
async def test_without_systemd_nothing_is_told(environment: dict[str, str]) -> None:
    async def never() -> bool:
        raise AssertionError

    notifier = Notifier(environment)
    notifier.tell("READY=1")
    await asyncio.wait_for(notifier.watch(never, ManualClock()), 1.0)


async def test_a_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    async def never() -> bool:
        raise AssertionError

    environment = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    await asyncio.wait_for(Notifier(environment).watch(never, ManualClock()), 1.0)


async def test_what_ends_is_begun_again_after_a_pause_that_grows() -> None:
    clock = ManualClock(auto=True)
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 9:
            raise RuntimeError("a bug")

    await keep_running("it", run, clock=clock, is_over=lambda: runs == 9)
    assert runs == 9
    assert FIRST_PAUSE / 2 <= clock.slept[0] <= FIRST_PAUSE
    assert all(pause <= LONGEST_PAUSE for pause in clock.slept)
    assert clock.slept[-1] >= LONGEST_PAUSE / 2


async def test_a_setting_that_is_wrong_from_the_start_is_told_and_later_it_is_tried_again() -> None:
    clock = ManualClock(auto=True)
    runs = 0

    async def wrong() -> None:
        raise SettingsError("no such folder")

    with pytest.raises(SettingsError):
        await keep_running("it", wrong, clock=clock)

    async def wrong_later() -> None:
        nonlocal runs
        runs += 1
        raise StoreUnavailable("away") if runs == 1 else SettingsError("the folder is gone")

    await keep_running("it", wrong_later, clock=clock, is_over=lambda: runs == 3)
    assert runs == 3


def test_the_log_says_which_error_ended_it_and_never_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        raise RuntimeError("the secret of the document")

    asyncio.run(keep_running("trigger x", run, clock=ManualClock(auto=True), is_over=lambda: True))
    [record] = caplog.records
    assert record.getMessage().startswith("trigger x ended: RuntimeError")


class Broken:
    """A trigger that cannot begin."""

    name = "broken"

    async def run(self, door: Door) -> None:
        raise SettingsError("trigger 'broken': its folder is not there; make it")


def test_a_trigger_that_cannot_begin_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "open_trigger", lambda *_, **__: Broken())
    with (
        pytest.raises(SettingsError, match="its folder is not there"),
        serving(trigger=[{"kind": "folder", "path": "x"}]),
    ):
        pytest.fail("it was ready")


class Patient:
    """A trigger that ends only when it is cancelled."""

    name = "patient"
    cancelled = False

    async def run(self, door: Door) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            Patient.cancelled = True


def test_triggers_are_cancelled_by_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "open_trigger", lambda *_, **__: Patient())
    with serving(trigger=[{"kind": "folder", "path": "x"}]):
        assert not Patient.cancelled
    assert Patient.cancelled


@pytest.mark.parametrize("keeps", [None, 172800.0])
def test_a_service_forgets_what_finished_where_so_set(monkeypatch: pytest.MonkeyPatch, keeps: float | None) -> None:
    asked: list[float] = []

    async def noted(pipeline: Pipeline, older_than: float, clock: Clock) -> None:
        asked.append(older_than)
        await asyncio.Event().wait()

    monkeypatch.setattr(services, "forget_daily", noted)
    with serving(serve={"keep_finished": keeps}):
        pass
    assert asked == ([] if keeps is None else [keeps])


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1, port {port}: .*--port"):
            Service(Settings.read(serve={"port": port}))


def test_without_the_extra_the_command_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tidegate.cli import service

    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("tidegate.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match="pip install 'tidegate\\[serve\\]'"):
        service.serve({}, host=None, port=0)
