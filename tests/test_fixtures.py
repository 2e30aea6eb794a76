"""The pytest fixtures of the fault kit, used as their users do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import email.utils
import time

import httpx
from tidegate.resilience.faults import During, RetryAfter, Schedule

pytest_plugins = ["tidegate.testing.fixtures"]


def ask(server):
    return httpx.get(server.url, trust_env=False)


def test_an_outage_ends_in_real_time(faulty_server):
    began = time.monotonic()
    server = faulty_server(Schedule(outages=[During(0.0, 0.2)]))
    while ask(server).status_code == 503:
        assert time.monotonic() - began < 10.0
        time.sleep(0.01)
    assert time.monotonic() - began >= 0.2


def test_a_pause_as_a_date_is_in_the_future(faulty_server):
    answer = ask(faulty_server([RetryAfter(60.0, as_date=True)]))
    until = email.utils.parsedate_to_datetime(answer.headers["Retry-After"]).timestamp()
    assert 50.0 < until - time.time() < 62.0


def test_a_clock_that_is_moved_by_hand_can_be_given(faulty_server, manual_clock):
    server = faulty_server(Schedule(outages=[During(0.0, 3600.0)]), clock=manual_clock)
    assert ask(server).status_code == 503
    manual_clock.advance(3600.0)
    assert ask(server).status_code == 200
"""


@pytest.mark.slow
def test_they_work_in_a_suite_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "3 passed" in ended.stdout, ended.stdout + ended.stderr
