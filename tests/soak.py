"""Half an hour of `tidegate serve` under load and outages: `python -m tests.soak [--minutes 30] [--folder FOLDER]`.

Documents come from all sources, while the API that enriches them is down for a while every two minutes. What the
process holds is read every few seconds: memory, file handles, OS threads, and the size of the write-ahead log must be
no more in the last third of the time than in the second. Exits with 1 if they are, or if a document is not complete.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.e2e.sources import AWS, Source, open_sources
from tests.e2e.unattended import Api, Service, document, names
from tidegate.resilience.faults import Behaviour, Request

EVERY = 5.0
"""Seconds between two readings."""

OUTAGE = (120.0, 20.0)
"""Seconds from the beginning of one outage to that of the next, and how long each lasts."""

RATE = 6.0
"""Documents a second, from all sources."""

ALLOWED = {"memory": 1.10, "files": 1.05, "threads": 1.05, "wal": 1.50}
"""What the last third may be of the second, by measure."""

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """What the process holds: bytes of memory, open files, OS threads, bytes of its write-ahead logs."""

    memory: int
    files: int
    threads: int
    wal: int


def read(service: Service) -> Reading:
    """Look at the process, by /proc."""
    process = Path("/proc") / str(service.process.pid)
    return Reading(
        memory=int((process / "statm").read_text().split()[1]) * _PAGE,
        files=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
        wal=sum(file.stat().st_size for file in service.folder.glob("*.db-wal")),
    )


def judged(readings: Sequence[Reading]) -> list[tuple[str, float, float, bool]]:
    """Return of each measure its median in the second and in the last third, and whether it is flat."""
    third = len(readings) // 3
    rows = []
    for place, each in enumerate(fields(Reading)):
        second, last = (
            statistics.median(astuple(reading)[place] for reading in part)
            for part in (readings[third : 2 * third], readings[2 * third :])
        )
        rows.append((each.name, second, last, last <= second * ALLOWED[each.name] + 1))
    return rows


async def soak(folder: Path, seconds: float) -> tuple[list[Reading], dict[str, int], int]:
    """Run it; return the readings, the threads by status, and how many events there were."""
    began = time.monotonic()
    period, lasts = OUTAGE

    def behave(request: Request) -> Behaviour:
        return 503 if (time.monotonic() - began) % period > period - lasts else 200

    with Api(behave) as api:
        async with open_sources(folder) as sources:
            triggers = [source.settings for source in sources if source.settings]
            with Service(folder, api, triggers, environ=AWS) as service:
                await asyncio.to_thread(service.wait_until_ready)
                readings: list[Reading] = []
                sending = asyncio.create_task(_send(service, sources, seconds))
                while not sending.done():
                    await asyncio.sleep(EVERY)
                    readings.append(await asyncio.to_thread(read, service))
                    print(readings[-1], await asyncio.to_thread(service.statuses), file=sys.stderr)
                await _until(lambda: service.statuses() == {"complete": sending.result() + len(service.fires())}, 300.0)
                found = service.statuses(), sending.result() + len(service.fires())
                service.stop()
                return readings, *found


async def _send(service: Service, sources: Sequence[Source], seconds: float) -> int:
    chance = random.Random(30)  # noqa: S311 - arrivals
    senders = [source.sender(service) for source in sources if source.sender]
    places, until = list(names()), time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in count():
            if time.monotonic() > until:
                return number
            text = document(places[number % len(places)]) + f"It was day {number}.\n"
            group.create_task(chance.choice(senders)(f"event-{number}", text))
            await asyncio.sleep(chance.expovariate(RATE))
    raise AssertionError("it goes on until the time is over")


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until it holds, or so long: the threads by status show what is missing."""
    until = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        if time.monotonic() > until:
            return
        await asyncio.sleep(0.5)


def main() -> int:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder) as folder:
        readings, statuses, events = asyncio.run(soak(Path(folder), arguments.minutes * 60))
    rows = judged(readings)
    for name, second, last, flat in rows:
        print(f"{name:8} {second:14,.0f} {last:14,.0f}  {'flat' if flat else 'GROWS'}")
    print(f"{events} events, threads: {statuses}")
    return 0 if all(flat for *_, flat in rows) and statuses == {"complete": events} else 1


if __name__ == "__main__":
    sys.exit(main())
