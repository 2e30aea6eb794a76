"""Who parses stderr as JSON lines finds nothing else there; who reads it is told nothing twice."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidegate.cli import main, notices


@pytest.fixture
def tidegate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")
    (tmp_path / "note.txt").write_text("We went to Rotterdam.")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    yield run
    notices.set_form(as_records=False, is_verbose=False)
    logging.basicConfig(level=before[1], handlers=before[0], force=True)


@pytest.mark.parametrize("more", [(), ("-v",)])
def test_with_json_logs_stderr_is_json_lines_alone(
    tidegate: Callable[..., tuple[int, str, str]], more: tuple[str, ...]
) -> None:
    for arguments in (
        ("threads",),  # nothing was ever kept
        ("run", "note.txt"),
        ("run", "note.txt"),  # nothing is run again
        ("backfill",),
        ("show", "nobody"),
    ):
        code, _, err = tidegate(*more, "--log-format", "json", *arguments)
        records = [json.loads(line) for line in err.splitlines()]
        assert records, arguments
        assert code == (6 if arguments[0] == "show" else 0)
    assert records[-1]["level"] == "ERROR"


def test_progress_is_told_as_records_and_each_route_once(tidegate: Callable[..., tuple[int, str, str]]) -> None:
    told = [json.loads(line)["message"] for line in tidegate("--log-format", "json", "run", "note.txt")[2].splitlines()]
    assert "enrich: 1 enriched" in told
    assert "gate_enrichment: -> enrich (circuit closed)" in told
    told = tidegate("-v", "--log-format", "json", "run", "note.txt", "--fresh")[2].splitlines()
    assert sum("circuit closed" in line for line in told) == 1
    assert sum("enrich: 1 enriched" in line for line in told) == 1


def test_a_log_to_read_tells_each_route_once_too(tidegate: Callable[..., tuple[int, str, str]]) -> None:
    err = tidegate("-v", "run", "note.txt")[2]
    assert err.count("circuit closed") == 1
    assert "1 enriched" in err


def test_quiet_is_quiet_in_json_too(tidegate: Callable[..., tuple[int, str, str]]) -> None:
    assert tidegate("--log-format", "json", "run", "-q", "note.txt")[2] == ""
