"""The command line, as a person and as a script meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.enrichment import EnrichmentServer
from tidegate import errors
from tidegate.cli import main
from tidegate.cli.exit_codes import EXIT_CODES, exit_code
from tidegate.cli.progress import Progress
from tidegate.cli.text import result_text
from tidegate.graph.result import Event, Result
from tidegate.store.postgres_url import read_url

SAMPLE = Path(__file__).parent / "samples" / "harbour-report.md"


@dataclass(frozen=True)
class Done:
    """What a command ended with."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tidegate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    """Run the command in an empty folder, in this process: a new one would import everything anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfdbinary.readouterr()
        return Done(int(ended.value.code or 0), printed.out.decode(), printed.err.decode())

    return run


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


def test_a_run_prints_the_result_on_stdout_and_progress_on_stderr(tidegate: Callable[..., Done]) -> None:
    done = tidegate("run", str(SAMPLE))
    assert done.returncode == 0, done.stderr
    assert "complete, revision 1" in done.stdout
    assert "Summary (extractive" in done.stdout
    assert "resume" not in done.stdout
    assert "inspect  tidegate show harbour-report-" in done.stdout
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert steps[:3] == ["ingest", "extract", "gate_enrichment"]
    assert steps[-1] == "conclude"
    assert "\x1b" not in done.stdout + done.stderr


def test_a_document_without_names_is_said_to_have_none(tidegate: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing here")
    assert "  extract              no entities\n" in tidegate("run", "note.txt").stderr


def test_help_says_what_to_give(tidegate: Callable[..., Done]) -> None:
    for command, *named in (
        ("run", "DOCUMENT", "--thread-id THREAD"),
        ("import", "FILE"),
        ("prune", "--keep-last NUMBER"),
    ):
        told = tidegate(command, "--help").stdout
        assert all(name in told for name in named), told


def test_the_same_document_again_is_the_same_thread_and_runs_nothing(tidegate: Callable[..., Done]) -> None:
    first = tidegate("run", str(SAMPLE), "--json")
    again = tidegate("run", str(SAMPLE), "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "was complete already, nothing was run" in again.stderr
    fresh = json.loads(tidegate("run", str(SAMPLE), "--json", "--fresh").stdout)
    assert fresh["thread_id"] != json.loads(first.stdout)["thread_id"]


def test_threads_show_history_and_the_path_can_be_looked_at(tidegate: Callable[..., Done], tmp_path: Path) -> None:
    thread = json.loads(tidegate("run", str(SAMPLE), "--json", "-q").stdout)["thread_id"]
    assert thread in tidegate("threads").stdout
    assert tidegate("threads", "--status", "failed").stdout == "no threads\n"
    assert json.loads(tidegate("threads", "--json").stdout)[0]["status"] == "complete"
    assert "Summary" in tidegate("show", thread).stdout
    history = json.loads(tidegate("show", thread, "--history", "--json").stdout)["history"]
    assert history[0]["next"] == []
    assert history[-1]["source"] == "input"
    assert "gate_enrichment" in tidegate("graph").stdout
    drawn = tidegate("graph", "--thread", thread, "--format", "svg", "-o", "graph.svg")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")
    assert "enrichment" in tidegate("circuits").stdout
    settings = {row["name"]: row for row in json.loads(tidegate("settings", "--json").stdout)}
    assert (settings["recogniser"]["value"], settings["recogniser"]["set_by"]) == ("rules", "TIDEGATE_RECOGNISER")


def test_a_circuit_is_held_open_let_go_and_held_closed(tidegate: Callable[..., Done]) -> None:
    assert tidegate("run", str(SAMPLE), "-q").returncode == 0
    lines = tidegate("circuits", "--force-open", "enrichment").stdout.splitlines()
    assert lines[0].split("  ")[0] == "CIRCUIT"
    assert re.fullmatch(r"enrichment  open \(forced\)  0 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +- +-", lines[1])
    degraded = tidegate("run", str(SAMPLE), "--fresh", "-q")
    assert "degraded" in degraded.stdout
    thread = re.search(r"^thread +(\S+)", degraded.stdout, re.MULTILINE)
    assert thread is not None
    held = "enrichment is held open until `tidegate circuits --reset enrichment`"
    assert held in degraded.stdout
    assert held in tidegate("resume", thread[1]).stderr
    assert held in tidegate("show", thread[1]).stdout
    assert held in tidegate("backfill").stderr
    waiting = tidegate("run", str(SAMPLE), "--fresh", "--when-open", "wait")
    assert waiting.returncode == 4
    assert held in waiting.stdout
    assert "held open until `tidegate circuits --reset enrichment`" in tidegate("doctor").stdout
    assert "-> await_enrichment (circuit held open)\n" in waiting.stderr
    assert "again in" not in waiting.stdout + waiting.stderr + tidegate("doctor").stdout
    reports = json.loads(tidegate("circuits", "--reset", "enrichment", "--json").stdout)
    assert [(each["name"], each["state"], each["forced"]) for each in reports] == [("enrichment", "closed", None)]
    assert "complete" in tidegate("resume", thread[1]).stdout
    closed = tidegate("circuits", "--force-close", "enrichment", "--force-open", "model").stdout
    assert re.search(r"^enrichment +closed \(forced\)", closed, re.MULTILINE)
    assert re.search(r"^model +open \(forced\)", closed, re.MULTILINE)


def test_a_circuit_is_shown_with_the_words_for_its_last_failure(
    tidegate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with EnrichmentServer([401]) as server:
        section = f'adapter = "http"\nurl = "{server.url}"\ntypes = ["PERSON"]\nconcurrency = 1\nbatch_size = 1\n'
        (tmp_path / "tidegate.toml").write_text(f"[enrichment]\n{section}")
        degraded = tidegate("run", str(SAMPLE), "-q")
    assert "WARNING tidegate: circuit enrichment: closed to open after refused" in degraded.stderr
    shown = tidegate("circuits").stdout.splitlines()
    assert re.fullmatch(r"enrichment +open .+ s +refused: answered 401 Unauthorized; check the credentials", shown[1])
    [report] = json.loads(tidegate("circuits", "--json").stdout)
    assert report["problem"].startswith("answered 401")


def test_a_circuit_that_cannot_be_held_is_said_to_be_so(tidegate: Callable[..., Done]) -> None:
    nowhere = tidegate("circuits", "--reset", "enrichment")
    assert nowhere.returncode == 2
    assert "circuits in memory are each process's own; --checkpoints names those that are kept" in nowhere.stderr
    assert tidegate("run", str(SAMPLE), "-q").returncode == 0
    unknown = tidegate("circuits", "--force-open", "enrichmnet")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no circuit 'enrichmnet'; name one of enrichment, model" in unknown.stderr
    both = tidegate("circuits", "--force-open", "enrichment", "--force-close", "enrichment")
    assert (both.returncode, both.stdout) == (2, "")
    assert "a circuit can be held one way at a time" in both.stderr


def test_looking_where_no_thread_was_ever_kept_says_so_and_makes_no_file(
    tidegate: Callable[..., Done], tmp_path: Path
) -> None:
    for command in ("threads", "circuits"):
        done = tidegate(command)
        assert (done.returncode, "tidegate.db does not exist yet" in done.stderr) == (0, True)
    assert tidegate("show", "t").returncode == exit_code(errors.ThreadNotFound("t", ""))
    assert tidegate("graph").stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_looking_into_a_database_where_no_thread_was_ever_kept_says_so_and_makes_no_table(
    tidegate: Callable[..., Done], postgres_url: str
) -> None:
    import psycopg

    where, url = ("--checkpoints", postgres_url), read_url(postgres_url)
    for command in ("threads", "doctor", "check-threads", "circuits"):
        done = tidegate(command, *where)
        assert (done.returncode, f"schema {url.schema}, does not exist yet" in done.stderr) == (0, True), done
    for command in ("show", "history", "delete", "resume"):
        assert tidegate(command, "t", *where).returncode == exit_code(errors.ThreadNotFound("t", ""))
    with psycopg.connect(url.conninfo) as connection:
        made = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (url.schema,)).fetchone()
    assert made is None
    assert tidegate("run", "-q", "--thread-id", "t", str(SAMPLE), *where).returncode == 0
    assert "complete" in tidegate("threads", *where).stdout
    away = tidegate("threads", "--checkpoints", "postgresql://127.0.0.1:9/none")
    assert (away.returncode, "check that the server runs" in away.stderr) == (2, True)


def test_a_document_from_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "run", "-", "--json", "-q"],
        cwd=tmp_path,
        env={"TIDEGATE_RECOGNISER": "rules"},
        input="Ferries from Dover reach Calais in ninety minutes.\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["text"] == "Ferries from Dover reach Calais in ninety minutes."


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "absent.pdf"], 10, "absent.pdf: does not exist"),
        (["run", "ftp://example.org/x"], 10, "ftp"),
        (["resume", "absent"], 6, "thread 'absent' does not exist"),
        (["show", "absent"], 6, "thread 'absent' does not exist"),
        (["resume", ""], 2, "cannot be a thread ID"),
        (["resume", "a\x1b[31m"], 2, "cannot be a thread ID"),
        (["resume", "a" * 201], 2, "cannot be a thread ID"),
        (["resume", "\udcff"], 2, "cannot be a thread ID"),
        (["threads", "--checkpoints", "mysql://x"], 2, "mysql"),
        (["threads", "--checkpoints", "sqlite:///no/such/folder/t.db"], 2, "folder"),
        (["run", "x", "--model", "nonsense"], 2, "names no provider"),
        (["run", "x", "--when-open", "panic"], 2, "panic"),
        (["graph", "--format", "svg", "-o", "no/such/folder/g.svg"], 2, "cannot write"),
        (["prune", "--keep-last", "0"], 2, "give at least 1, not 0"),
        (["prune", "--older-than", "nan"], 2, "give at least 0, not nan"),
        (["threads", "--limit", "0"], 2, "give at least 1, not 0"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_code(
    tidegate: Callable[..., Done], arguments: list[str], code: int, said: str
) -> None:
    done = tidegate(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:sesame@host:5432/db?schema=x", "'postgresql://me:PASSWORD@host:5432/db?schema=x'"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://host/db?password=sesame&schema=x", "'postgresql://host/db?password=PASSWORD&schema=x'"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_the_commands_to_go_on_with_show_no_password(url: str, shown: str) -> None:
    result = Result(thread_id="t", status="degraded", source="x", retry_in=1.0)
    text = result_text(result, {"checkpoints": url})
    assert f"tidegate resume t --checkpoints {shown}" in text
    assert f"tidegate show t --checkpoints {shown}" in text


@pytest.mark.parametrize("table", ["threads", "checkpoints"])
def test_a_schema_that_lost_a_table_is_told_in_one_line(
    table: str, tidegate: Callable[..., Done], postgres_url: str
) -> None:
    import psycopg

    command = ("--checkpoints", postgres_url)
    assert tidegate("run", "-q", "--thread-id", "t", str(SAMPLE), *command).returncode == 0
    url = read_url(postgres_url)
    with psycopg.connect(url.conninfo, autocommit=True) as connection:
        connection.execute(f"DROP TABLE {url.schema}.{table}".encode())
    done = tidegate("threads" if table == "threads" else "show", *(() if table == "threads" else ("t",)), *command)
    assert done.returncode == 19
    (line,) = done.stderr.splitlines()
    assert f'the server refuses (relation "{table}" does not exist); check that the schema {url.schema} is' in line


def test_every_error_that_a_document_can_cause_has_an_exit_code_of_its_own() -> None:
    codes = [exit_code(kind("x", "y", "z")) for kind in errors.DocumentError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(range(10, 17))
    assert (
        len(set(EXIT_CODES.values())) == len(EXIT_CODES) - 4
    )  # usage, no such thing, damage, a store that cannot be used
    assert exit_code(errors.CircuitOpen("enrichment", retry_in=1.0)) == 5
    assert exit_code(errors.MissingExtra("x", "spacy")) == 2


def test_the_text_that_offsets_count_in_can_be_had(tidegate: Callable[..., Done]) -> None:
    result = json.loads(tidegate("run", "--json", str(SAMPLE)).stdout)
    text = tidegate("show", "--text", result["thread_id"]).stdout
    entity = next(entity for entity in result["entities"] if entity["text"] == "Hamburg")
    assert {text[mention["start"] : mention["end"]] for mention in entity["mentions"]} == {"Hamburg"}


def test_policy_fail_ends_with_the_command_to_go_on(tidegate: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text(
        '[enrichment]\nadapter = "http"\nurl = "http://127.0.0.1:9/"\nbackoff_initial = 0\nwhen_open = "fail"\n'
    )
    done = tidegate("run", "-q", "--thread-id", "t", str(SAMPLE))
    assert done.returncode == 5
    assert done.stderr.endswith("; go on with: tidegate resume t\n")
    shown = tidegate("show", "t").stdout
    assert "unfinished (circuit open" in shown
    assert "may be tried again in" in shown


def test_progress_says_what_failed_and_what_a_resumed_step_brought(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(shown=True) as progress:
        for event in (
            Event(kind="thread", text="t"),
            Event(kind="started", step="enrich"),
            Event(kind="started", step="enrich"),
            Event(kind="finished", step="enrich", detail={"enriched": 2}),
            Event(kind="started", step="summarize"),
            Event(kind="finished", step="summarize", detail={"failed": "transient: answered 503"}),
        ):
            progress.show(event)
    assert capsys.readouterr().err.split("\n") == [
        "  enrich               2 enriched",
        "  summarize            failed: transient: answered 503",
        "",
    ]
    assert progress.thread_id == "t"


def test_ctrl_c_ends_with_the_command_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text('[enrichment]\nadapter = "http"\nurl = "http://10.255.255.1/"\n')
    command = [sys.executable, "-m", "tidegate", "run", "--thread-id", "t", str(SAMPLE)]
    environ = {**os.environ, "TIDEGATE_RECOGNISER": "rules"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "gate_enrichment" in line:
                process.send_signal(signal.SIGINT)
                break
        assert process.stderr.read().endswith("tidegate: interrupted; go on with: tidegate resume t\n")
    assert process.returncode == 130
