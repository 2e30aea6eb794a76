"""What the README shows is what the program prints."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.tools import readme
from tidegate.errors import Refused

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


async def run(code: CodeType) -> None:
    running = eval(code, {})  # noqa: S307 - the README's own
    assert inspect.iscoroutine(running)
    await running


@pytest.mark.slow
def test_the_readme_shows_an_outage_from_beginning_to_end(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="the README's output is spaCy's; install the extra 'spacy'")
    text = readme.README.read_text()
    now = readme.written_into(text, readme.outage(tmp_path, reset_timeout=30.0))
    seconds = re.compile(r"\d+ s\b")
    assert seconds.sub("N s", now) == seconds.sub("N s", text), UPDATE
