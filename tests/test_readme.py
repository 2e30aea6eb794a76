"""What the README shows is what the program prints."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.tools import readme
from tidegate.errors import Permanent, Refused

UPDATE = "README.md shows something else; `python -m tests.tools.readme` writes it anew"


def test_the_readme_shows_every_setting_with_its_default() -> None:
    text = readme.README.read_text()
    assert readme.written_into(text, readme.settings()) == text, UPDATE


def test_the_readme_shows_the_graph(tmp_path: Path) -> None:
    text = readme.README.read_text()
    assert readme.written_into(text, readme.graph(tmp_path)) == text, UPDATE


def test_the_readme_shows_what_a_run_prints(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="the README's output is spaCy's; install the extra 'spacy'")
    text = readme.README.read_text()
    assert readme.written_into(text, readme.run(tmp_path)) == text, UPDATE


async def test_the_guard_that_the_readme_shows_works_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    shown = next(
        code for code in re.findall(r"```python\n(.*?)```", readme.README.read_text(), re.DOTALL) if "@crm" in code
    )
    async with EnrichmentServer() as server:
        code = compile(
            shown.replace("https://crm.example.com/customers", server.url),
            "README.md",
            "exec",
            ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        assert isinstance(code, CodeType)
        await run(code)
        assert capsys.readouterr().out.startswith("{'name': None")
        server.down(401)
        with pytest.raises(Refused):
            await run(code)
        assert [request.path for request in server.requests] == ["/enrich/4711"] * 2


async def test_the_circuits_that_the_readme_shares_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = re.search(r"<!-- code: shared circuits -->\n```python\n(.*?)```", readme.README.read_text(), re.DOTALL)
    assert shown is not None
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    exec(shown[1], one)  # noqa: S102 - the README's own
    exec(shown[1], other)  # noqa: S102
    await one["crm"].breaker.force_open()
    assert (await other["crm"].breaker.report()).forced == "open"
    await other["crm"].breaker.reset()
    with pytest.raises(Permanent):
        await one["crm"].call(_refused)
    assert (await one["crm"].breaker.report()).state == "closed"


async def _refused(attempt: int) -> None:
    raise Permanent("crm", f"attempt {attempt}")


async def run(code: CodeType) -> None:
    running = eval(code, {})  # noqa: S307 - the README's own
    assert inspect.iscoroutine(running)
    await running


@pytest.mark.slow
def test_the_readme_shows_an_outage_from_beginning_to_end(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="the README's output is spaCy's; install the extra 'spacy'")
    text = readme.README.read_text()
    now = readme.written_into(text, readme.outage(tmp_path, reset_timeout=30.0))
    assert readme.without_seconds(now) == readme.without_seconds(text), UPDATE


@pytest.mark.slow
def test_the_test_that_the_readme_shows_runs_and_fails_where_the_graph_does(tmp_path: Path) -> None:
    def shown(name: str, language: str = "python") -> str:
        text = readme.README.read_text()
        found = re.search(rf"<!-- code: {name} -->\n```{language}\n(.*?)```", text, re.DOTALL)
        assert found is not None
        return found[1]

    my_app = shown("my_app")
    (tmp_path / "test_shown.py").write_text(shown("faults"))
    (tmp_path / "pyproject.toml").write_text(shown("pytest", "toml"))

    def outcome(app: str) -> tuple[int, str]:
        (tmp_path / "my_app.py").write_text(app)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert outcome(my_app)[0] == 0
    status, printed = outcome(my_app.replace("range(20)", "range(2)"))
    assert status == 1
    assert "once more: Schedule([503, 'reset'])" in printed
