"""`retry`, `cancel`, `discard`, and what `doctor` says of threads and results that a service gave up."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_cli import Done
from tidegate import Pipeline, Settings
from tidegate.cli import main
from tidegate.cli.exit_codes import exit_code
from tidegate.errors import DocumentTooLarge, EventInvalid, QueueFull, ThreadError, ThreadNotFound
from tidegate.store.inbox import Envelope
from tidegate.store.registry import ThreadStatus

SINK = '[[sink]]\nkind = "file"\nname = "files"\npath = "out"\n'
Command = Callable[..., Done]


@pytest.fixture
def tidegate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in a folder whose settings name a sink, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")
    (tmp_path / "tidegate.toml").write_text(SINK)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


def kept(**statuses: ThreadStatus) -> dict[str, str]:
    """Keep threads of these statuses, each begun by an event, and return their IDs."""

    async def work() -> dict[str, str]:
        ids = {}
        async with Pipeline.open(Settings.read()) as pipeline:
            for name, status in statuses.items():
                event = Envelope(source="test", id=name, data=b"Ada went to Cairo.", name=name)
                ids[name] = (await pipeline.inbox.accept(event)).thread_id
                async with pipeline._wired.leases.hold(ids[name]) as lease:
                    if status != "queued":
                        await pipeline.registry.rule(
                            ids[name], seen=["queued"], status=status, lease=lease, error="RuntimeError", attempts=5
                        )
        return ids

    return asyncio.run(work())


def unreadable() -> str:
    async def work() -> str:
        async with Pipeline.open(Settings.read()) as pipeline:
            return (await pipeline.inbox.refuse("test", "x", DocumentTooLarge("x", "is big", "cut it"))).thread_id

    return asyncio.run(work())


def with_results(*, given_up: bool) -> None:
    async def work() -> None:
        async with Pipeline.open(Settings.read()) as pipeline:
            event = Envelope(source="test", id="1", data=b"Ada went to Cairo.", name="ada")
            await pipeline.resume((await pipeline.inbox.accept(event)).thread_id)
            if given_up:
                [delivery] = await pipeline.outbox.claim("files", limit=1, seconds=60.0)
                await pipeline.outbox.failed(delivery, "transient: answered 503", retry_in=None)

    asyncio.run(work())


def status_of(tidegate: Command, thread_id: str) -> tuple[str, int]:
    found = {each["thread_id"]: each for each in json.loads(tidegate("threads", "--json").stdout)}
    return found[thread_id]["status"], found[thread_id]["attempts"]


def test_a_thread_that_was_given_up_is_queued_as_if_it_were_new(tidegate: Command) -> None:
    ids = kept(one="dead", two="dead", failed="failed")
    done = tidegate("retry", ids["one"])
    assert (done.returncode, done.stdout) == (0, f"queued thread {ids['one']}\n")
    assert status_of(tidegate, ids["one"]) == ("queued", 0)
    assert status_of(tidegate, ids["two"]) == ("dead", 5)
    assert json.loads(tidegate("retry", "--all", "--json").stdout) == {"threads": [ids["two"]], "results": 0}
    assert status_of(tidegate, ids["failed"]) == ("failed", 5), "a service goes on with it by itself"
    assert tidegate("retry", "--all").stdout == "no thread was given up\n"


def test_what_cannot_be_retried_says_why(tidegate: Command) -> None:
    ids = kept(queued="queued")
    assert "is queued, and only one that" in tidegate("retry", ids["queued"]).stderr
    again = tidegate("retry", unreadable())
    assert "have its event delivered again" in again.stderr
    assert again.returncode == exit_code(ThreadError("t", ""))
    assert tidegate("retry", "none").returncode == exit_code(ThreadNotFound("t", ""))
    for wrong in ((), ("t", "--all")):
        assert "say what to retry" in tidegate("retry", *wrong).stderr


def test_a_thread_is_cancelled_once(tidegate: Command) -> None:
    ids = kept(one="queued", two="queued")
    assert tidegate("cancel", ids["one"]).stdout == f"cancelled thread {ids['one']}\n"
    assert "nothing was changed" in tidegate("cancel", ids["one"]).stdout
    assert json.loads(tidegate("cancel", ids["two"], "--json").stdout) == {"thread_id": ids["two"], "cancelled": True}
    assert tidegate("cancel", "none").returncode == exit_code(ThreadNotFound("t", ""))
    assert tidegate("doctor").returncode == 0, "a thread that was cancelled is seen to"


@pytest.mark.parametrize("status", ["queued", "dead", "cancelled"])
def test_threads_are_listed_by_what_a_service_made_of_them(tidegate: Command, status: ThreadStatus) -> None:
    ids = kept(one="queued", two="dead", three="cancelled")
    by_status: dict[str, str] = dict(zip(("queued", "dead", "cancelled"), ids.values(), strict=True))
    found = json.loads(tidegate("threads", "--status", status, "--json").stdout)
    assert [each["thread_id"] for each in found] == [by_status[status]]


def test_doctor_shows_what_was_given_up_and_the_command_that_helps(tidegate: Command) -> None:
    ids = kept(one="dead", two="queued")
    lost = unreadable()
    found = json.loads(tidegate("doctor", "--json").stdout)
    told = {each["thread_id"]: (each["state"], each["command"], each["reason"]) for each in found["threads"]}
    assert told[ids["one"]] == ("dead", f"tidegate retry {ids['one']}", "RuntimeError")
    assert told[ids["two"]][:2] == ("queued", f"tidegate resume {ids['two']}")
    assert told[lost][:2] == ("dead", f"tidegate delete {lost}")
    assert tidegate("doctor").returncode == 20


@pytest.mark.parametrize("given_up", [False, True])
def test_doctor_shows_results_that_were_not_delivered(tidegate: Command, given_up: bool) -> None:
    with_results(given_up=given_up)
    done = tidegate("doctor", "--json")
    [found] = json.loads(done.stdout)["results"]
    assert done.returncode == 20
    assert (found["sink"], found["named"], found["waiting"], found["given_up"]) == (
        "files",
        True,
        int(not given_up),
        int(given_up),
    )
    assert found["command"] == ("tidegate retry --results" if given_up else "-")
    text = tidegate("doctor").stdout
    assert ("1 given up" if given_up else "1 due") in text
    assert ("transient: answered 503" if given_up else "`tidegate serve` delivers them") in text
    assert tidegate("retry", "--results").stdout == f"results to be delivered again: {int(given_up)}\n"
    assert json.loads(tidegate("doctor", "--json").stdout)["results"][0]["waiting"] == 1


def test_results_for_a_sink_that_the_settings_do_not_name_are_shown_and_can_be_discarded(
    tidegate: Command, tmp_path: Path
) -> None:
    with_results(given_up=True)
    (tmp_path / "tidegate.toml").write_text("")
    [found] = json.loads(tidegate("doctor", "--json").stdout)["results"]
    assert (found["named"], found["command"]) == (False, "tidegate discard files")
    assert "the settings do not name this sink" in tidegate("doctor").stdout
    assert tidegate("discard", "files").stdout == "discarded results that sink files did not get: 1\n"
    assert tidegate("doctor").returncode == 0
    assert json.loads(tidegate("discard", "files", "--json").stdout) == {"sink": "files", "results": 0}


def test_a_full_queue_and_an_event_that_is_invalid_have_exit_codes_of_their_own(tidegate: Command) -> None:
    assert exit_code(QueueFull(5, retry_in=1.0)) == 21
    assert exit_code(EventInvalid("no ID")) == 22
    assert "21 queue full, 22 event invalid" in " ".join(tidegate("--help").stdout.split())
