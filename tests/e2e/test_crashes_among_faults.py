"""Processes are killed while the services that they call misbehave: what was answered is not asked for again, and
every document ends as if nothing had happened.
"""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.supervisor import Child, Supervisor
from tests.servers.enrichment import about
from tests.servers.openai import Reply, completion, says
from tests.servers.openai import Request as Prompted
from tidegate.resilience.faults import FAULTS, Behaviour, FaultyServer, Request, Schedule

CONCURRENCY = 4
NAMES = [a + b + c for a in "BCDFGHJ" for b in "aeiou" for c in ("lan", "mor", "rith", "sund", "wick")]
SHOWER = "the harbour was closed and the ships waited. " * 25
EACH = 12  # names in a document, in three parts, so that the model is asked four times
DOCUMENTS = {
    f"d{n}": "\n\n".join(
        f"it rained in {' and '.join(NAMES[at : at + 4])} and {SHOWER}" for at in range(EACH * n, EACH * (n + 1), 4)
    )
    for n in range(8)
}

FOR_GOOD: tuple[Behaviour, ...] = (400, "redirect loop")
"""What is said of a request, not of the service, and for good: that item is never had."""

REJECTED = (*FOR_GOOD, 401, "redirect away")
"""After these nothing was done under the request's idempotency key, so that the next one may have another."""

PASSING = tuple(fault for fault in FAULTS if fault not in FOR_GOOD)
CASES = [(0, 40, ()), *((seed, 115, PASSING) for seed in (1, 2, 3, 4)), (5, 40, FAULTS)]
"""Seed, kills and faults."""

KEPT = {"file:///{}/kept": "kept/store.db", "sqlite:///{}/tidegate.db": "tidegate.db"}
"""Where threads are kept, and the database that the answers are in; every second seed has the one or the other."""


class Service(FaultyServer):
    """A service that follows a schedule until it is healed, and the ledger of what must not be asked of it again."""

    def __init__(self, answer: Callable[[Request], object], what: Callable[[Request], str]) -> None:
        super().__init__(self._meet, answer=answer)
        self.schedule = Schedule()
        self.begin(Schedule())
        self._what = what

    def begin(self, schedule: Schedule) -> None:
        """Begin a round, with nothing asked yet."""
        self.schedule = schedule
        self.asked: Counter[str] = Counter()
        self.failures = 0
        self.condemned: set[str] = set()
        self._met: list[tuple[Request, Behaviour]] = []
        self._number = 0
        self._last: dict[str, tuple[str, Behaviour]] = {}
        self._paid: set[str] = set()

    def see(self, answered: set[str]) -> None:
        """Check the requests of one process, after its end; `answered` are the keys whose answers are committed."""
        met, self._met = self._met, []
        for request, behaviour in met:
            what, key = self._what(request), request.headers["idempotency-key"]
            assert what not in self._paid, f"{what!r} was answered before"
            earlier, end = self._last.get(what, (key, 200))
            assert earlier == key or end in REJECTED, f"{what!r} was asked under another key, after {end!r}"
            self._last[what] = key, behaviour
            self.asked[what] += 1
            self.failures += behaviour != 200
            self.condemned |= {what} if behaviour in FOR_GOOD else set()
        self._paid |= {what for what, (key, _) in self._last.items() if key in answered}

    @property
    def repeats(self) -> int:
        """How many requests were for what had been asked before."""
        return self.asked.total() - len(self.asked)

    def _meet(self, request: Request) -> Behaviour:
        if request.method != "POST":
            return 405  # OpenAI's client follows a redirect, by GET
        self._number += 1
        behaviour = self.schedule.at(self._number, 0.0)
        self._met.append((request, behaviour))
        return behaviour


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("processes")) as supervisor:
        yield supervisor


@pytest.fixture
def api() -> Iterator[Service]:
    with Service(about, lambda request: str(request.json["text"])) as service:
        yield service


@pytest.fixture
def model() -> Iterator[Service]:
    with Service(
        completion(cite), lambda request: "\n".join(each["content"] for each in request.json["messages"])
    ) as s:
        yield s


def cite(prompted: Prompted) -> Reply:
    """Say of the first passage of a prompt that it rained there."""
    number = re.findall(r"\[(\d+)\]", re.split(r"\n(?:Text|Notes):\n", prompted.prompt)[1])[0]
    return says(f"It rained there all day. [{number}]")


def settings(url: str, api: Service, model: Service, *, attempt_timeout: float = 0.7) -> dict[str, Any]:
    limits = {
        "attempt_timeout": attempt_timeout,
        "backoff_initial": 0.01,
        "reset_timeout": 0.05,
        "concurrency": CONCURRENCY,
    }
    options = {"base_url": f"{model.url}/v1", "api_key": "test-key"}
    return {
        "checkpoints": url,
        "model": "openai:scripted",
        "enrichment": {"adapter": "http", "url": f"{api.url}/enrich", "batch_size": EACH, **limits},
        "summary": {"chunk_tokens": 400, "options": options, **limits},
        "max_visits": 1000,  # a process a visit: five would be used up by the kills alone
    }


def answered(path: Path) -> set[str]:
    """Return the idempotency keys whose answers are committed."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path, timeout=10.0)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return set()
        return {key for (key,) in database.execute("SELECT idempotency_key FROM calls WHERE answered_at IS NOT NULL")}


def final(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a thread holds, without what tells how it came by it: attempts, visits, tokens, revisions."""
    assert isinstance(result, dict), result
    entities = {
        each["text"]: {name: each["enrichment"].get(name) for name in ("status", "data", "source")}
        for each in result["entities"]
    }
    summary = {name: result["summary"][name] for name in ("sentences", "method", "model", "inputs")}
    kept = {name: result[name] for name in ("thread_id", "status", "document_sha256", "text", "missing", "next")}
    return {**kept, "entities": entities, "summary": summary}


def check(result: dict[str, Any], expected: dict[str, Any], api: Service, model: Service) -> None:
    """It is complete, and what it would have been undisturbed, but for what a service rejected for good."""
    found = final(result)
    names = {each["id"]: each["text"] for each in result["entities"]}
    rejected = {names[item["id"]] for item in result["missing"] if item["what"] == "enrichment"}
    assert not any(item["retryable"] for item in result["missing"])
    assert rejected <= api.condemned
    if any(item["what"] == "summary" for item in result["missing"]):
        assert any(name in prompt for prompt in model.condemned for name in names.values())
    if not result["missing"]:
        assert found == expected
    for name, record in expected["entities"].items():
        assert name in rejected or found["entities"][name] == record


def kill(child: Child, services: list[Service], chance: random.Random) -> str:
    """Kill it at some moment, and say which: while it calls the services, or from its very start on."""
    before, at_start = requests(services), chance.random() < 0.1
    count, patience, pause = chance.randint(1, 16), chance.uniform(0.1, 0.8), chance.uniform(0.0, 0.02)
    if at_start:
        pause = chance.uniform(0.0, 0.3)
    else:
        wait_for(services, before + 1, 3.0)
        wait_for(services, before + count, patience)
    time.sleep(pause)
    child.kill()
    called = requests(services) - before
    return f"{pause:.3f} s after {'its start' if at_start else f'request {count}'}; it made {called}"


def requests(services: list[Service]) -> int:
    return sum(len(service.requests) for service in services)


def wait_for(services: list[Service], count: int, patience: float) -> None:
    """Return when they were sent so many requests in all, or after so many seconds."""
    until = time.monotonic() + patience
    while requests(services) < count and time.monotonic() < until:
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "most", "faults"), CASES, ids=[f"seed {seed}" for seed, *_ in CASES])
def test_processes_killed_at_any_moment_among_any_faults_pay_for_no_answer_twice(
    tmp_path: Path,
    supervisor: Supervisor,
    api: Service,
    model: Service,
    seed: int,
    most: int,
    faults: tuple[Behaviour, ...],
) -> None:
    """Requests for what was asked before are at most `kills x CONCURRENCY + failures`, for each service.

    A request that was not met by a fault was answered. Either that answer was recorded, which happens once for what is
    asked, or the process was killed before: with an answer unrecorded a call keeps its place in the guard, so at most
    CONCURRENCY of a service are lost in a kill. All others were met by a fault. Without faults, kills alone repeat.

    What a failure prints is all that chance decided; the seed decides it again.
    """
    chance = random.Random(seed)  # noqa: S311 - moments
    services = [api, model]
    url, database = [*KEPT.items()][seed % 2]
    undisturbed = supervisor.start(settings(url.format(tmp_path), api, model, attempt_timeout=20.0), DOCUMENTS)
    assert undisturbed.wait() == 0
    expected = {thread_id: final(result) for thread_id, result in undisturbed.results.items()}
    assert {each["status"] for each in expected.values()} == {"complete"}
    assert (len(api.requests), len(model.requests)) == (len(DOCUMENTS) * EACH, len(DOCUMENTS) * 4)

    kills, rounds = 0, 0
    while kills < most:
        folder = tmp_path / f"round-{rounds}"
        folder.mkdir()
        for number, service in enumerate(services):
            service.begin(Schedule(seed=1000 * seed + 10 * rounds + number, rate=0.3, faults=faults))
        print(f"round {rounds}: {api.schedule!r}, {model.schedule!r}")
        before, results = kills, dict[str, dict[str, Any]]()
        while left := [thread_id for thread_id in DOCUMENTS if thread_id not in results]:
            if kills == most:
                api.schedule = model.schedule = Schedule()
            mine = {thread_id: DOCUMENTS[thread_id] for thread_id in chance.sample(left, min(3, len(left)))}
            # A prober that was killed has the probe for five seconds; in most processes nobody waits for it.
            reset = kills == most or chance.random() < 0.8
            child = supervisor.start(settings(url.format(folder), api, model), mine, persist=True, reset=reset)
            if kills < most:
                print(f"kill {kills} of {', '.join(mine)}: {kill(child, services, chance)}")
            ended = child.wait()
            assert ended in (0, signal.SIGKILL)
            kills += ended == signal.SIGKILL
            for service in services:
                service.see(answered(folder / database))
            results |= child.results
        for thread_id, result in results.items():
            check(result, expected[thread_id], api, model)
        for service in services:
            print(f"{service.asked.total()} requests, {service.repeats} again, {service.failures} failed")
            assert service.repeats <= (kills - before) * CONCURRENCY + service.failures
        assert set(api.asked) == set(NAMES[: len(DOCUMENTS) * EACH])
        rounds += 1
