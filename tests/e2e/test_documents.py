"""Documents of the world outside, through the whole pipeline; documents that cannot be worked on, to their errors."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tidegate import Pipeline, Result, Settings, errors
from tidegate.cli.exit_codes import exit_code

SAMPLES = Path(__file__).parents[1] / "samples"

FACTS = {
    "norwich-city.txt": {("PERSON", "Iwan Wyn Roberts"), ("ORG", "Norwich City F.C."), ("LOC", "Bangor")},
    "book-war-and-peace-1p.txt": {("PERSON", "Anna Pavlovna Scherer"), ("LOC", "Genoa"), ("LOC", "St. Petersburg")},
    "example-10k-1p.html": {("ORG", "Galaxy Gaming, Inc."), ("MONEY", "$70,923,698"), ("DATE", "March 28, 2022")},
    "handbook-1p.docx": {("LOC", "United States"), ("ORG", "Department of Justice")},
    "DA-1p.pdf": {("LOC", "Cumberland")},
    "fake-memo.pdf": {("DATE", "May 5, 2023"), ("DATE", "January 23, 2023")},
    "layout-parser-paper-fast.pdf": {("ORG", "Brown University"), ("ORG", "Harvard University")},
}
HOSTILE = {
    "empty.txt": errors.EmptyDocument,
    "malformed.pptx": errors.UnsupportedDocument,
    "password.pdf": errors.EncryptedDocument,
    "random.bin": errors.UnsupportedDocument,
}


def check(result: Result) -> None:
    """Hold a result to what is promised of every one."""
    assert result.status == "complete"
    assert result.summary is not None
    assert result.document is not None
    text = result.document.text
    assert result.summary.sentences
    for sentence in result.summary.sentences:
        assert [text[span.start : span.end] for span in sentence.evidence] == [sentence.text]
        inside = [b.kind for b in result.document.blocks if b.start <= sentence.evidence[0].start < b.end]
        assert set(inside) <= {"paragraph", "list_item"}
    taken: list[tuple[int, int]] = []
    for entity in result.entities:
        assert entity.mentions
        for mention in entity.mentions:
            said = text[mention.start : mention.end]
            assert said == said.strip() != ""
            assert _names(said, entity.text), (said, entity.text)
        taken += [(m.start, m.end) for m in entity.mentions]
    taken.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(taken))
    assert set(result.enrichments) == {entity.id for entity in result.entities}


def _names(said: str, name: str) -> bool:
    """Say whether what stands in the text can be a form of the name: a word in common, or letters of it in order."""
    words, of_name = (re.findall(r"\w+", each.casefold()) for each in (said, name))
    letters = iter("".join(of_name))
    return bool(set(words) & set(of_name)) or all(letter in letters for letter in "".join(words))  # SEC, TMAX


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(checkpoints="memory:")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "1p" in name else [pytest.mark.slow]) for name in FACTS]
)
async def test_a_real_document_gives_a_summary_and_what_it_names(
    documents: Path, settings: Settings, name: str
) -> None:
    async with Pipeline.open(settings) as pipeline:
        result = await pipeline.run(documents / name)
    check(result)
    assert {(entity.type, entity.text) for entity in result.entities} >= FACTS[name]


@pytest.mark.slow
async def test_a_large_annual_report(documents: Path, settings: Settings) -> None:
    async with Pipeline.open(settings) as pipeline:
        result = await pipeline.run(documents / "example-10k.html")
    check(result)
    assert ("ORG", "Galaxy Gaming, Inc.") in {(entity.type, entity.text) for entity in result.entities}
    assert "gaming" in result.text
    assert result.title == "UNITED STATES – SECURITIES AND EXCHANGE COMMISSION – Washington, D.C. 20549 – FORM 10-K"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_ends_in_its_own_error_and_nothing_is_stored_as_finished(
    documents: Path, settings: Settings, name: str
) -> None:
    async with Pipeline.open(settings) as pipeline:
        with pytest.raises(HOSTILE[name], match=name):
            await pipeline.run(documents / "hostile" / name, thread_id="t")
        stored = [(record.status, record.revision) for record in await pipeline.threads()]
        assert stored == ([] if name == "empty.txt" else [("failed", 0)])
    assert exit_code(HOSTILE[name]("x", "y", "z")) in range(11, 17)


async def test_a_pdf_of_invalid_structure_is_read_all_the_same(documents: Path, settings: Settings) -> None:
    async with Pipeline.open(settings) as pipeline:
        result = await pipeline.run(documents / "hostile" / "invalid-structure.pdf")
    check(result)
    assert result.title.startswith("GAO-23-106826")


@pytest.mark.parametrize("name", ["cp1252.html", "utf-16.txt"])
async def test_an_odd_encoding_is_read(documents: Path, settings: Settings, name: str) -> None:
    async with Pipeline.open(settings) as pipeline:
        result = await pipeline.run(documents / "hostile" / name)
    assert result.document is not None
    assert "\N{REPLACEMENT CHARACTER}" not in result.document.text
    assert {"cp1252.html": "Die schöne Frau", "utf-16.txt": "Doylestown, PA"}[name] in result.document.text


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir() if path.is_file()))
async def test_a_sample_of_our_own_in_every_format(settings: Settings, sample: str) -> None:
    async with Pipeline.open(settings) as pipeline:
        check(await pipeline.run(SAMPLES / sample))
