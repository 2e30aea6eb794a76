"""A dropped file becomes a summary, and is moved, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.doors import until
from tests.e2e.folder_service import serve, settings_of
from tidegate import Pipeline

TEXT = "# Harbour report {0}\n\nOn 3 March 2026 the port of Hamburg received {0} ships. {0} of them came from Bergen.\n"


def in_folder(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_a_dropped_file_is_moved_and_its_summary_is_beside_it(tmp_path: Path) -> None:
    inbox, done, failed = (tmp_path / name for name in ("inbox", "done", "failed"))
    inbox.mkdir()
    service = asyncio.create_task(serve(settings_of(str(tmp_path / "store.db"), str(inbox), str(done), str(failed))))
    try:
        (inbox / "reports").mkdir()
        (inbox / "reports" / "march.md").write_text(TEXT.format(7))
        (inbox / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
        expected = {"reports/march.md", "reports/march.md.summary.md", "reports/march.md.summary.json"}
        await until(lambda: in_folder(done) == expected and in_folder(failed) == {"broken.pdf"})
    finally:
        service.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await service
    assert "## Summary" in (done / "reports" / "march.md.summary.md").read_text()
    assert in_folder(inbox) == set()


@pytest.mark.slow
async def test_over_twenty_kills_every_file_is_one_thread_and_every_result_is_there(tmp_path: Path) -> None:
    inbox, done, failed, store = (tmp_path / name for name in ("inbox", "done", "failed", "store.db"))
    inbox.mkdir()
    command = [sys.executable, "-m", "tests.e2e.folder_service", *map(str, (store, inbox, done, failed))]
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

    for kill in range(21):
        with subprocess.Popen(command) as process:
            end = time.monotonic() + (4.0 + chance.random() * 3.0 if kill < 20 else 60.0)
            while time.monotonic() < end:
                if number < 200 and kill < 20:
                    await asyncio.to_thread(drop)
                await asyncio.sleep(0.1)
                if kill == 20 and not in_folder(inbox) and len(in_folder(done)) == 3 * number:
                    break
            process.kill()
    assert in_folder(inbox) == set()
    assert in_folder(failed) == set()
    assert {name: (done / name).read_text() for name in expected} == expected
    results = [json.loads((done / f"{name}.summary.json").read_text()) for name in expected]
    assert in_folder(done) == {f"{name}{end}" for name in expected for end in ("", ".summary.md", ".summary.json")}
    async with Pipeline.open(settings_of(str(store), str(inbox), str(done), str(failed))) as pipeline:
        threads = await pipeline.threads(limit=None)
    assert sorted(record.source for record in threads) == sorted(expected)
    assert {record.status for record in threads} == {"complete"}
    assert {each["thread_id"] for each in results} == {record.thread_id for record in threads}
