"""The command line, as a person and as a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate import errors
from tidegate.cli.exit_codes import EXIT_CODES, exit_code

SAMPLE = Path(__file__).parent / "samples" / "harbour-report.md"
RULES = {"TIDEGATE_RECOGNISER": "rules"}


def tidegate(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "", "HOME": str(cwd), "LANG": "C.UTF-8", **RULES, **(env or {})}
    command = [sys.executable, "-m", "tidegate", *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, input=stdin, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tidegate.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'langgraph', 'langchain_core', 'langchain', 'httpx', 'spacy', 'rich', 'opentelemetry', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "resume" in done.stdout


def test_a_run_prints_the_result_on_stdout_and_progress_on_stderr(tmp_path: Path) -> None:
    done = tidegate("run", str(SAMPLE), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "complete, revision 1" in done.stdout
    assert "Summary (extractive" in done.stdout
    assert "resume" not in done.stdout
    assert "inspect  tidegate show harbour-report-" in done.stdout
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert steps[:3] == ["ingest", "extract", "gate_enrichment"]
    assert steps[-1] == "conclude"
    assert "\x1b" not in done.stdout + done.stderr


def test_the_same_document_again_is_the_same_thread_and_runs_nothing(tmp_path: Path) -> None:
    first = tidegate("run", str(SAMPLE), "--json", cwd=tmp_path)
    again = tidegate("run", str(SAMPLE), "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "was complete already, nothing was run" in again.stderr
    fresh = json.loads(tidegate("run", str(SAMPLE), "--json", "--fresh", cwd=tmp_path).stdout)
    assert fresh["thread_id"] != json.loads(first.stdout)["thread_id"]


def test_threads_show_history_and_the_path_can_be_looked_at(tmp_path: Path) -> None:
    thread = json.loads(tidegate("run", str(SAMPLE), "--json", "-q", cwd=tmp_path).stdout)["thread_id"]
    assert thread in tidegate("threads", cwd=tmp_path).stdout
    assert tidegate("threads", "--status", "failed", cwd=tmp_path).stdout == "no threads\n"
    assert json.loads(tidegate("threads", "--json", cwd=tmp_path).stdout)[0]["status"] == "complete"
    assert "Summary" in tidegate("show", thread, cwd=tmp_path).stdout
    history = json.loads(tidegate("show", thread, "--history", "--json", cwd=tmp_path).stdout)["history"]
    assert history[0]["next"] == []
    assert history[-1]["source"] == "input"
    assert "gate_enrichment" in tidegate("graph", cwd=tmp_path).stdout
    drawn = tidegate("graph", "--thread", thread, "--format", "svg", "-o", "graph.svg", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")
    assert "enrichment" in tidegate("circuits", cwd=tmp_path).stdout
    settings = {row["name"]: row for row in json.loads(tidegate("settings", "--json", cwd=tmp_path).stdout)}
    assert (settings["recogniser"]["value"], settings["recogniser"]["set_by"]) == ("rules", "TIDEGATE_RECOGNISER")


def test_a_document_from_standard_input(tmp_path: Path) -> None:
    done = tidegate(
        "run", "-", "--json", "-q", cwd=tmp_path, stdin="Ferries from Dover reach Calais in ninety minutes.\n"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "Ferries from Dover reach Calais in ninety minutes."


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "absent.pdf"], 10, "absent.pdf: does not exist"),
        (["run", "ftp://example.org/x"], 10, "ftp"),
        (["resume", "absent"], 6, "thread 'absent' does not exist"),
        (["show", "absent"], 6, "thread 'absent' does not exist"),
        (["threads", "--checkpoints", "mysql://x"], 2, "mysql"),
        (["threads", "--checkpoints", "sqlite:///no/such/folder/t.db"], 2, "folder"),
        (["run", "x", "--model", "nonsense"], 2, "names no provider"),
        (["run", "x", "--when-open", "panic"], 2, "panic"),
        (["graph", "--format", "svg", "-o", "no/such/folder/g.svg"], 2, "cannot write"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = tidegate(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_error_that_a_document_can_cause_has_an_exit_code_of_its_own() -> None:
    codes = [exit_code(kind("x", "y", "z")) for kind in errors.DocumentError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(range(10, 17))
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert exit_code(errors.CircuitOpen("enrichment", retry_in=1.0)) == 5
    assert exit_code(errors.MissingExtra("x", "spacy")) == 2
