"""Ctrl-C or SIGTERM at any moment of an execution: the command that it prints completes it, and pays nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.enrichment import EnrichmentServer
from tidegate.resilience.faults import Schedule

TEXT = "Mr Arne Lund met Ms Berta Moe, Dr Carl Nygaard, Mrs Dina Olsen, Mr Egil Pran and Ms Frida Quist."
NAMES = ["Arne Lund", "Berta Moe", "Carl Nygaard", "Dina Olsen", "Egil Pran", "Frida Quist"]


def tidegate(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tidegate", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probing", "answered", "how"),
    [(False, 0, signal.SIGINT), (False, 3, signal.SIGTERM), (True, 0, signal.SIGINT)],
    ids=["first call", "fan-out", "probe"],
)
def test_what_ctrl_c_or_sigterm_stopped_is_completed_by_the_command_that_it_prints(
    tmp_path: Path, probing: bool, answered: int, how: signal.Signals
) -> None:
    with EnrichmentServer() as server:
        (tmp_path / "note.txt").write_text(TEXT)
        (tmp_path / "tidegate.toml").write_text(
            f'recogniser = "rules"\n[enrichment]\nadapter = "http"\nurl = "{server.url}"\ntypes = ["PERSON"]\n'
            "concurrency = 2\nbatch_size = 2\nbackoff_initial = 0.0\nreset_timeout = 0.1\n"
        )
        if probing:
            server.down(503)
            with tidegate(tmp_path, "run", "--thread-id", "t", "note.txt") as degraded:
                degraded.communicate(timeout=60)
            server.up()
            server.requests.clear()
            time.sleep(0.1)
        met = answered + (1 if probing else 2)
        server.follow(Schedule([200] * answered, then="hang"))
        with tidegate(tmp_path, "run", "--thread-id", "t", "note.txt") as interrupted:
            server.wait_for(met, timeout=60.0)
            interrupted.send_signal(how)
            _, told = interrupted.communicate(timeout=60)
        assert interrupted.returncode == 130
        assert told.endswith("go on with: tidegate resume t\n")

        server.follow(())
        with tidegate(tmp_path, "resume", "t") as resumed:
            _, told = resumed.communicate(timeout=60)
        assert resumed.returncode == 0
        assert "missing" not in told
    keys = [(request.json["text"], request.headers["idempotency-key"]) for request in server.requests]
    assert not set(keys[:answered]) & set(keys[answered:])
    assert len(keys) - len(set(keys)) == met - answered
    assert sorted(set(keys)) == sorted(dict(keys).items())
    assert sorted(dict(keys)) == NAMES
