"""A service that runs unattended: its process, the services that it calls, and all that sends it documents."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
from standardwebhooks.webhooks import Webhook

from tests.servers.enrichment import about
from tidegate.resilience.faults import Behaviour, FaultyServer, Request

SECRET = f"whsec_{base64.b64encode(b'a secret of tests, 24 b.').decode()}"
TOKEN = "token-of-tests"
_PATIENCE = 60.0


def names() -> Iterator[str]:
    """Return names of places, all different, which the rules find."""
    for first in ("lan", "mor", "rith", "sund", "wick", "holm", "stad", "berg"):
        for a in "BCDFGHJKLMNPRSTV":
            for b in "aeiou":
                for c in "bdfgklmn":
                    for d in "aeiou":
                        yield f"{a}{b}{c}{d}{first}"


def document(name: str) -> str:
    return f"The harbour of {name} was closed, and the ships waited. {name} is a town on the coast.\n"


class Api(FaultyServer):
    """The enrichment API, and the ledger of what must not be asked of it again."""

    def __init__(self, behaviour: Callable[[Request], Behaviour] = lambda request: 200) -> None:
        self._meant = behaviour
        self.asked: Counter[str] = Counter()
        self._keys: dict[str, str] = {}
        super().__init__(self._meet, answer=about)

    def _meet(self, request: Request) -> Behaviour:
        name = str(request.json["text"])
        self.asked[name] += 1
        self._keys[name] = request.headers["idempotency-key"]
        return self._meant(request)

    def answered(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the names asked for under these idempotency keys, with how often they were asked for."""
        wanted = set(keys)
        return {name: self.asked[name] for name, key in self._keys.items() if key in wanted}


class Service:
    """`tidegate serve` in a folder of its own, which can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        api: Api | None,
        triggers: Iterable[Mapping[str, object]] = (),
        *,
        sink: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        **serve: object,
    ) -> None:
        """Configure it; documents go in by the `triggers`, results come out in `results`, or by the `sink`.

        Without an API none is asked. `environ` is added to the environment of the process, `serve` are settings of that
        section.
        """
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None
        enrichment: Mapping[str, object] = {"adapter": "none"}
        if api is not None:
            limits = {"attempt_timeout": 5.0, "backoff_initial": 0.01, "reset_timeout": 0.2, "concurrency": 4}
            enrichment = {"adapter": "http", "url": f"{api.url}/enrich", **limits}
        tables: list[tuple[str, Mapping[str, object]]] = [
            ("serve", {"port": self.port, "tokens": [TOKEN], "retry_initial": 0.1, **serve}),
            ("enrichment", enrichment),
            *(("[trigger]", trigger) for trigger in triggers),
            ("[sink]", sink or {"kind": "file", "path": str(self.results), "formats": ["json"]}),
        ]
        lines = ['recogniser = "rules"', "max_visits = 1000"]
        for name, values in tables:
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        (folder / "tidegate.toml").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start the process; `wait_until_ready` tells when it takes requests."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "OTEL_"))}
        command = [sys.executable, "-m", "tidegate", "serve"]
        log = (self.folder / "serve.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env={**environ, **self._environ}, stdout=log, stderr=log
            )
        self.starts += 1

    def wait_until_ready(self) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.log()[-2000:]}")
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it is not ready: {self.log()[-2000:]}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def log(self) -> str:
        return (self.folder / "serve.log").read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a supervisor does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=_PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Read from its store; nothing before there is one."""
        file = self.folder / "tidegate.db"
        if not file.exists():
            return []
        try:
            with closing(sqlite3.connect(file, timeout=30.0)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise

    def statuses(self) -> dict[str, int]:
        return dict(self.select("SELECT status, count(*) FROM threads GROUP BY status"))

    def fires(self) -> dict[datetime, datetime]:
        """Return the times of its schedule that were taken in, each with when it was."""
        taken = self.select("SELECT event_id, received_at FROM inbox WHERE source = 'cron' ORDER BY 1")
        return {datetime.fromisoformat(time): datetime.fromtimestamp(at, UTC) for time, at in taken}

    def undelivered(self) -> int:
        return sum(row[0] for row in self.select("SELECT count(*) FROM outbox WHERE result IS NOT NULL"))

    def delivered(self) -> list[dict[str, Any]]:
        """Return the results that lie in the folder."""
        return [json.loads(file.read_text()) for file in self.results.glob("*.json")]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


Send = Callable[[str, str], Coroutine[Any, Any, None]]
"""Sends an event, of an ID and a document, until it is taken in; may be called again with the same."""


class Senders:
    """One way in for each kind of trigger."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._client = httpx.AsyncClient(timeout=10.0)
        self._webhook = Webhook(SECRET)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def file(self, event: str, text: str) -> None:
        """Write a file in pieces; a second time, the same content anew."""
        path = self._service.folder / "inbox" / f"{event}.txt"
        data = text.encode()
        with path.open("wb") as file:
            file.write(data[:20])
            file.flush()
            await asyncio.sleep(0)
            file.write(data[20:])

    async def webhook(self, event: str, text: str) -> None:
        """POST it signed."""
        body = json.dumps({"text": text, "name": f"{event}.txt"})
        at = datetime.now(UTC)
        headers = {
            "webhook-id": event,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._webhook.sign(event, at, body),
            "content-type": "application/json",
        }
        await self._post("/hooks/webhook", content=body, headers=headers)

    async def api(self, event: str, text: str) -> None:
        """POST it with a token and a key."""
        headers = {"authorization": f"Bearer {TOKEN}", "idempotency-key": event}
        await self._post("/v1/threads", json={"text": text, "name": f"{event}.txt"}, headers=headers)

    async def _post(self, path: str, **request: Any) -> None:
        while True:
            try:
                response = await self._client.post(self._service.url + path, **request)
            except httpx.TransportError:
                await asyncio.sleep(0.1)  # it was killed, and is started again
                continue
            if response.status_code in (200, 202):
                return
            assert response.status_code == 503, f"{response.status_code}: {response.text}"
            await asyncio.sleep(0.1)


async def send_all(send: Send, documents: Mapping[str, str], chance: random.Random, *, at_once: int = 8) -> None:
    """Send each document one to three times, in no order."""
    deliveries = [event for event in documents for _ in range(chance.randint(1, 3))]
    chance.shuffle(deliveries)
    room = asyncio.Semaphore(at_once)

    async def one(event: str) -> None:
        async with room:
            await send(event, documents[event])

    await asyncio.gather(*(one(event) for event in deliveries))
