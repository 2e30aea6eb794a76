"""A dropped file becomes a summary, and is moved, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from tests.doors import until
from tests.e2e.unattended import Service
from tidegate import Pipeline, Settings

TEXT = "# Harbour report {0}\n\nOn 3 March 2026 the port of Hamburg received {0} ships. {0} of them came from Bergen.\n"
pytestmark = pytest.mark.slow


def in_folder(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service of one folder, `inbox`, that leaves results beside their documents and no time unused."""
    (tmp_path / "inbox").mkdir()
    watched = {"path": "inbox", "done": "done", "failed": "failed", "settle": 0.2, "scan_every": 1.0}
    return Service(tmp_path, None, [{"kind": "folder", **watched}], sink={"kind": "file"})


async def test_a_dropped_file_is_moved_and_its_summary_is_beside_it(service: Service, tmp_path: Path) -> None:
    inbox, done, failed = (tmp_path / name for name in ("inbox", "done", "failed"))
    with service:
        await asyncio.to_thread(service.wait_until_ready)
        (inbox / "reports").mkdir()
        (inbox / "reports" / "march.md").write_text(TEXT.format(7))
        (inbox / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
        expected = {"reports/march.md", "reports/march.md.summary.md", "reports/march.md.summary.json"}
        await until(lambda: in_folder(done) == expected and in_folder(failed) == {"broken.pdf"})
    assert "## Summary" in (done / "reports" / "march.md.summary.md").read_text()
    assert in_folder(inbox) == set()


async def test_over_twenty_kills_every_file_is_one_thread_and_every_result_is_there(
    service: Service, tmp_path: Path
) -> None:
    inbox, done, failed = (tmp_path / name for name in ("inbox", "done", "failed"))
    chance, number, expected = random.Random(6), 0, dict[str, str]()  # noqa: S311 - not for secrets

    def drop() -> None:
        """Write a file: at once, in pieces, or under another name first."""
        nonlocal number
        number += 1
        name = f"{number % 7}/report-{number}.md"
        content = TEXT.format(number)
        expected[name] = content
        path = inbox / name
        path.parent.mkdir(exist_ok=True)
        if number % 3 == 0:
            path.with_suffix(".md.part").write_text(content)
            path.with_suffix(".md.part").rename(path)
        elif number % 3 == 1:
            with path.open("w") as file:
                for line in content.splitlines(keepends=True):
                    file.write(line)
                    file.flush()
                    time.sleep(0.02)
        else:
            path.write_text(content)

    def is_over() -> bool:
        return not in_folder(inbox) and len(in_folder(done)) == 3 * number

    for _ in range(20):
        with service:
            end = time.monotonic() + 4.0 + chance.random() * 3.0
            while time.monotonic() < end:
                if number < 200:
                    await asyncio.to_thread(drop)
                await asyncio.sleep(0.1)
            service.kill()
    with service:
        await until(is_over, 120.0)
    assert in_folder(inbox) == set()
    assert in_folder(failed) == set()
    assert {name: (done / name).read_text() for name in expected} == expected
    results = [json.loads((done / f"{name}.summary.json").read_text()) for name in expected]
    assert in_folder(done) == {f"{name}{end}" for name in expected for end in ("", ".summary.md", ".summary.json")}
    async with Pipeline.open(Settings.read(checkpoints=f"sqlite:///{tmp_path}/tidegate.db")) as pipeline:
        threads = await pipeline.threads(limit=None)
    assert sorted(record.source for record in threads) == sorted(expected)
    assert {record.status for record in threads} == {"complete"}
    assert {each["thread_id"] for each in results} == {record.thread_id for record in threads}
