"""A process is killed in the middle of each step; another resumes the thread by its ID."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "harbour-report.md"
STEPS = ("ingest", "extract", "gate_enrichment", "enrich", "gate_summary", "summarize", "conclude")
IN_EACH_STEP = [f"{step}:enter:1" for step in STEPS]
AFTER_EACH_STEP = [f"{step}:exit:1" for step in STEPS]
IN_THE_FAN_OUT = ["enrich:enter:3", "enrich:exit:2", "gate_enrichment:enter:2", "gate_enrichment:exit:2"]


def crash(folder: Path, url: str, moments: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.e2e.crash", url, str(SAMPLE), "never", *moments]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(folder: Path, url: str, moments: list[str]) -> None:
    undisturbed, *crashes = crash(folder, url, moments)
    expected = undisturbed["killed"]["result"]
    assert (expected["status"], expected["revision"]) == ("complete", 1)
    order = list(dict.fromkeys(undisturbed["killed"]["steps"]))
    for case in crashes:
        moment, killed, resumed = case["moment"], case["killed"], case["resumed"]
        assert killed["killed"], moment
        assert without_thread(resumed["result"]) == without_thread(expected), moment
        step = moment.partition(":")[0]
        finished = set(order[: order.index(step)]) - {"enrich"} if moment.endswith(":1") else {"ingest", "extract"}
        again = finished & set(resumed["steps"]) - ({"gate_enrichment"} if step == "enrich" else set())
        assert not again, f"{moment}: {again} ran again, though finished"


def without_thread(result: dict[str, Any]) -> dict[str, Any]:
    return result | {"thread_id": None}


def test_a_thread_killed_in_any_step_is_resumed_to_the_same_result(tmp_path: Path) -> None:
    check(tmp_path, "sqlite:///tidegate.db", [*IN_EACH_STEP, *IN_THE_FAN_OUT])


@pytest.mark.slow
def test_a_thread_in_postgresql_killed_in_any_step_is_resumed_to_the_same_result(
    tmp_path: Path, postgres_url: str
) -> None:
    check(tmp_path, postgres_url, [*IN_EACH_STEP, *IN_THE_FAN_OUT, *AFTER_EACH_STEP])


@pytest.mark.slow
def test_a_thread_in_json_files_killed_in_any_step_is_resumed_to_the_same_result(tmp_path: Path) -> None:
    check(tmp_path, "file:///threads", [*IN_EACH_STEP, *IN_THE_FAN_OUT])


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite:///tidegate.db", "file:///threads"])
def test_a_thread_killed_after_any_step_and_before_its_checkpoint_is_resumed_too(tmp_path: Path, url: str) -> None:
    check(tmp_path, url, AFTER_EACH_STEP)
