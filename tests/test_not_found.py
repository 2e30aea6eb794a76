"""An API that knows nothing of a document: it may be so, or its address is wrong, and both have to be seen."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.enrichment import EnrichmentServer
from tidegate.cli import main

TEXT = "We went to Rotterdam, then to Hamburg, then to Bergen."


@pytest.fixture
def server() -> Iterator[EnrichmentServer]:
    """An API on an event loop of its own."""
    loop = asyncio.new_event_loop()
    serving = threading.Thread(target=loop.run_forever)
    serving.start()
    server = asyncio.run_coroutine_threadsafe(EnrichmentServer().__aenter__(), loop).result()
    server.down(404)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    serving.join()
    loop.close()


@pytest.fixture
def tidegate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], server: EnrichmentServer
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text(TEXT)
    (tmp_path / "one.txt").write_text("We went to Rotterdam.")
    (tmp_path / "tidegate.toml").write_text(
        f'recogniser = "rules"\n[enrichment]\nadapter = "http"\nurl = "{server.url}"\ntypes = ["LOC"]\n'
    )
    monkeypatch.setenv("NO_PROXY", "*")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_wrong_address_is_seen_and_its_answers_can_be_undone(
    tidegate: Callable[..., tuple[int, str, str]], server: EnrichmentServer
) -> None:
    code, out, err = tidegate("run", "note.txt", "--thread-id", "first")
    assert code == 0
    assert out.count("(not found)") == 3
    assert "is enrichment.url right?" in out
    assert "tidegate forget --not-found" in out
    assert "WARNING" in err
    assert "is enrichment.url right?" in err
    assert "is enrichment.url right?" in tidegate("show", "first")[1]

    server.up()
    asked = len(server.requests)
    assert "(not found)" in tidegate("run", "note.txt", "--fresh")[1]  # replayed, for a day
    assert len(server.requests) == asked
    code, out, _ = tidegate("forget", "--not-found")
    assert (code, out) == (0, "forgot 3 answers 'not found'; `tidegate run DOCUMENT --fresh` asks again\n")
    assert "not found" not in tidegate("run", "note.txt", "--fresh")[1]
    assert len(server.requests) == asked + 3


def test_one_name_that_is_not_known_is_no_reason_for_doubt(tidegate: Callable[..., tuple[int, str, str]]) -> None:
    _, out, err = tidegate("run", "one.txt")
    assert "(not found)" in out
    assert "enrichment.url" not in out + err


def test_what_to_forget_has_to_be_said(tidegate: Callable[..., tuple[int, str, str]]) -> None:
    assert tidegate("forget")[0] == 2
    assert tidegate("forget", "note.txt", "--not-found")[0] == 2
