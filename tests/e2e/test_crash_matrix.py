"""Processes are killed while they call services: nothing that was answered is asked for again."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.supervisor import Child, Supervisor
from tests.servers.enrichment import Behaviour, EnrichmentServer, Request
from tests.servers.openai import OpenAIServer, Reply, says
from tests.servers.openai import Request as Prompted

CONCURRENCY = 4
NAMES = [a + b + c for a in "BCDFGHJKLM" for b in "aeiou" for c in ("lan", "mor", "rith", "sund", "wick")]
EACH = 12  # names in a document
DOCUMENTS = {f"d{n}": f"in {' and '.join(NAMES[EACH * n : EACH * (n + 1)])} it rained." for n in range(20)}
POINTS = [("intent", "before"), ("intent", "after"), ("answer", "before"), ("answer", "after")]


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("processes")) as supervisor:
        yield supervisor


def settings(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    enrichment = {"adapter": "http", "url": url, "concurrency": CONCURRENCY, "batch_size": EACH}
    return {"checkpoints": f"file:///{folder}/kept", "enrichment": enrichment, **more}


def answered(folder: Path) -> set[str]:
    """Return the idempotency keys whose answers are committed."""
    path = folder / "kept" / "store.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path, timeout=10.0)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return set()
        return {key for (key,) in database.execute("SELECT idempotency_key FROM calls WHERE answered_at IS NOT NULL")}


class Witness:
    """What the service saw, request by request, and what must not come again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paid: set[str] = set()
        self.keys: dict[str, str] = {}
        self.requests: Counter[str] = Counter()

    def see(self, requests: list[Request]) -> None:
        """Check the requests of one process, up to its end."""
        for request in requests:
            text, key = request.json["text"], request.headers["idempotency-key"]
            assert text not in self._paid, f"{text} was answered before"
            assert self.keys.setdefault(text, key) == key, f"{text} was asked for under another key"
            self.requests[text] += 1
        committed = answered(self._folder)
        self._paid = {text for text, key in self.keys.items() if key in committed}

    @property
    def repeats(self) -> int:
        """How many requests were for what had been requested before."""
        return self.requests.total() - len(self.requests)


class Counted(Witness):
    """Counts, and leaves the judgement to the test."""

    def see(self, requests: list[Request]) -> None:
        self.requests.update(request.json["text"] for request in requests)


def undisturbed(supervisor: Supervisor, folder: Path, server: EnrichmentServer) -> dict[str, Any]:
    (folder / "undisturbed").mkdir()
    child = supervisor.start(settings(folder / "undisturbed", server.url), DOCUMENTS)
    assert child.wait() == 0
    assert {result["status"] for result in child.results.values()} == {"complete"}
    assert sorted(server.texts) == sorted(NAMES[: 20 * EACH])
    server.requests.clear()
    return child.results


def until_done(
    supervisor: Supervisor,
    folder: Path,
    server: EnrichmentServer,
    witness: Witness,
    kill: Callable[[int, Child], None],
    **options: Any,
) -> tuple[int, dict[str, Any]]:
    """Start process after process, to be killed; return how many were, and what the one came to that was not.

    `kill` is told how many were killed before, and whom to kill now, or not.
    """
    kills = 0
    while True:
        child = supervisor.start(settings(folder, server.url, **options), DOCUMENTS)
        kill(kills, child)
        kills += child.wait() == signal.SIGKILL
        requests, server.requests = server.requests, []
        witness.see(requests)
        if child.results:
            return kills, child.results


@pytest.mark.slow
@pytest.mark.parametrize("journal", [True, False])
def test_the_journal_is_what_keeps_answers_from_being_paid_for_again(
    tmp_path: Path, supervisor: Supervisor, journal: bool
) -> None:
    """Without it, the bound that `test_crashes_among_faults.py` is about does not hold."""

    def at_the_tenth_request(kills: int, child: Child) -> None:
        if kills < 6:
            server.wait_for(10)  # within the first branch, which was not saved
            child.kill()

    with EnrichmentServer() as server:
        expected = undisturbed(supervisor, tmp_path, server)
        witness = Counted(tmp_path)
        enabled = {"enabled": journal}
        kills, results = until_done(supervisor, tmp_path, server, witness, at_the_tenth_request, journal=enabled)
        assert (kills, results) == (6, expected)
        assert (witness.repeats <= kills * CONCURRENCY) is journal


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("write", "side"), [*POINTS, ("request", ""), ("commit", "")])
def test_a_process_killed_at_a_point_of_its_calls_pays_for_no_answer_twice(
    tmp_path: Path, supervisor: Supervisor, write: str, side: str, count: int
) -> None:
    doomed: list[Any] = []

    def script(request: Request) -> Behaviour:
        if len(server.requests) == count and doomed:
            doomed.pop().kill()  # the request was sent, the answer never comes
            return "reset"
        return 200

    documents = dict(list(DOCUMENTS.items())[:3])
    with EnrichmentServer(script) as server:
        witness = Witness(tmp_path)
        # Of 26 commits at least: how many there are depends on how many writes wait for each.
        at = {"request": "", "commit": f"commit:{3 + 3 * count}"}.get(write, f"{write}@enrichment:{side}:{count}")
        killed = supervisor.start(settings(tmp_path, server.url), documents, at)
        doomed += [killed] if write == "request" else []
        assert killed.wait() == signal.SIGKILL
        requests, server.requests = server.requests, []
        witness.see(requests)
        survivor = supervisor.start(settings(tmp_path, server.url), documents)
        assert survivor.wait() == 0
        witness.see(server.requests)
        assert {result["status"] for result in survivor.results.values()} == {"complete"}
        assert set(witness.requests) == set(NAMES[: 3 * EACH])
        assert witness.repeats <= CONCURRENCY
        if write == "request":
            assert witness.repeats >= 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("write", "side"), POINTS)
def test_a_process_killed_while_the_model_writes_pays_for_no_answer_twice(
    tmp_path: Path, supervisor: Supervisor, write: str, side: str, count: int
) -> None:
    shower = "The harbour was closed and the ships waited. " * 30
    text = "\n\n".join(f"It rained in {name}. {shower}" for name in NAMES[:3])

    def cite(prompted: Prompted) -> Reply:
        """Say of the first passage of a prompt that it rained there."""
        number = re.findall(r"\[(\d+)\]", re.split(r"\n(?:Text|Notes):\n", prompted.prompt)[1])[0]
        return says(f"It rained there all day. [{number}]")

    def options(folder: str) -> dict[str, Any]:
        summary = {"chunk_tokens": 400, "concurrency": 1, "options": server.options}
        chat = {"model": "openai:scripted", "summary": summary, "enrichment": {"adapter": "none"}}
        return {"checkpoints": f"file:///{tmp_path}/{folder}", **chat}

    with OpenAIServer(cite) as server:
        undisturbed = supervisor.start(options("undisturbed"), {"t": text})
        assert undisturbed.wait() == 0
        expected, asked = undisturbed.results["t"], len(server.requests)
        assert (expected["status"], expected["summary"]["method"]) == ("complete", "llm"), expected["missing"]
        assert asked > 2
        server.follow(cite)
        killed = supervisor.start(options("kept"), {"t": text}, f"{write}@model:{side}:{count}")
        assert killed.wait() == signal.SIGKILL
        survivor = supervisor.start(options("kept"), {"t": None})
        assert survivor.wait() == 0
        assert survivor.results["t"] == expected
        pairs = [(each.prompt, each.headers["idempotency-key"]) for each in server.requests]
        assert len(pairs) - len(dict(pairs)) == (1 if (write, side) == ("answer", "before") else 0)
        assert len(set(pairs)) == len(dict(pairs)) == asked
