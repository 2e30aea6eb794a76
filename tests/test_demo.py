"""What `tidegate demo` shows, and of what; tests/e2e/test_demo.py watches it from beginning to end."""

from __future__ import annotations

import io
import itertools
import sys

import pytest
from rich.console import Console

from tidegate.cli.outage.documents import DOCUMENTS
from tidegate.cli.outage.screen import Board, Row, Screen
from tidegate.services.converters import convert
from tidegate.services.recognisers import RulesRecogniser


def drawn(board: Board, *, now: float = 0.0) -> list[str]:
    console = Console(file=io.StringIO(), width=80, _environ={})
    console.print(board.drawn(now))
    assert isinstance(console.file, io.StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_the_table_says_how_service_circuit_and_documents_are() -> None:
    rows = [Row("one", "degraded", names=4, found=3, revision=1), Row("two", "enrich", names=5), Row("three")]
    lines = drawn(Board(rows, service="down", circuit="open", probe_at=14.0, requests=12), now=11.2)
    assert lines[0] == "service: down   circuit: open, probe in 3 s   12 requests"
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells == [["one", "3 of 4", "degraded, revision 1"], ["two", "0 of 5", "enrich"], ["three", "", ""]]


def test_the_table_counts_down_while_the_circuit_is_open_alone() -> None:
    assert drawn(Board([], circuit="open", probe_at=1.0), now=9.0)[0].endswith(
        "circuit: open, probe in 0 s   0 requests"
    )
    assert "circuit: half-open   0" in drawn(Board([], circuit="half_open", probe_at=14.0), now=9.0)[0]


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_there_is_no_table_where_none_is_wanted(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv(variable, "1")
    with Screen() as screen:
        screen.show(Board([Row("one")]))
        screen.say("what happened")
    assert capsys.readouterr().out == "what happened\n"


def test_a_standard_output_that_is_closed_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with Screen() as screen:
        screen.show(Board([Row("one")]))
        screen.say("what happened")


async def test_each_name_stands_in_one_document_and_the_third_has_four() -> None:
    found = {}
    for name, text in DOCUMENTS.items():
        document = await convert(text.encode(), source=name, media_type="text/plain")
        found[name] = [entity.text for entity in await RulesRecogniser().recognise(document)]
    names = list(itertools.chain.from_iterable(found.values()))
    assert [len(of) for of in found.values()] == [2, 3, 4, 5, 3, 3]
    assert all(sum(name in text for text in DOCUMENTS.values()) == 1 for name in names)
