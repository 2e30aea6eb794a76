"""What the README shows is what the program prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tools import readme

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


@pytest.mark.slow
def test_the_readme_shows_an_outage_from_beginning_to_end(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="the README's output is spaCy's; install the extra 'spacy'")
    text = readme.README.read_text()
    now = readme.written_into(text, readme.outage(tmp_path, reset_timeout=30.0))
    seconds = re.compile(r"\d+ s\b")
    assert seconds.sub("N s", now) == seconds.sub("N s", text), UPDATE
