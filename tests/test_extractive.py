from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import document_of, entity_in
from tidegate.services.converters import convert
from tidegate.services.summarizers.extractive import ExtractiveSummarizer
from tidegate.state import Document, Enrichment, Entity, Summary

LIGHTHOUSE = document_of(
    ("heading", "The lighthouse at Skerry Point"),
    "This page on the lighthouse at Skerry Point and its keepers was made for the harbour board, all rights reserved.",
    "The lighthouse at Skerry Point is a granite tower that has guided ships past the northern reef since 1874. It "
    "stands forty metres high. Why was it built? The harbour board ordered it after two steamers had been lost on the "
    "reef in a single winter.",
    ("caption", "The lighthouse at Skerry Point in the winter of 1902, seen from the harbour board's own steamer."),
    ("table", "Year | Lighthouse keeper at Skerry Point and what the harbour board paid to the keeper that year."),
    ("code", "lighthouse.turn_on(reef=True)  # The lighthouse at Skerry Point guides ships past the northern reef."),
    ("heading", "Keepers"),
    "Three keepers lived in the tower with their families until the lamp was made automatic in 1988. They grew "
    "potatoes behind the wall. I remember you asking me about the potatoes and the keepers of the tower and the lamp.",
    ("list_item", "The harbour board paid the keepers of the lighthouse a pension after the lamp was made automatic."),
    ("heading", "References"),
    "Halvorsen, A. wrote the history of the lighthouse at Skerry Point for the harbour board, which ordered the tower.",
    title="The lighthouse at Skerry Point",
)


async def summary_of(document: Document, entities: list[Entity] | None = None, most: int = 6) -> Summary:
    return await ExtractiveSummarizer(most).summarize(document, entities or [], {})


async def test_it_says_first_what_the_document_is_about() -> None:
    summary = await summary_of(LIGHTHOUSE)
    assert summary.sentences[0].text.startswith("The lighthouse at Skerry Point is a granite tower")
    assert (summary.method, summary.model, summary.usage) == ("extractive", None, None)


async def test_every_sentence_is_the_documents_own_and_says_where_it_stands() -> None:
    summary = await summary_of(LIGHTHOUSE)
    starts = []
    for sentence in summary.sentences:
        [span] = sentence.evidence
        assert LIGHTHOUSE.slice(span) == sentence.text
        assert sentence.supported
        starts.append(span.start)
    assert starts == sorted(starts)


async def test_only_prose_that_can_stand_alone_is_taken() -> None:
    said = " ".join(sentence.text for sentence in (await summary_of(LIGHTHOUSE, most=50)).sentences)
    assert "Three keepers lived" in said
    assert "pension" in said
    for left_out in ("Keepers\n", "1902", "Year |", "turn_on", "Why was", "all rights", "Halvorsen"):
        assert left_out not in said


async def test_no_more_sentences_than_were_asked_for() -> None:
    assert len((await summary_of(LIGHTHOUSE, most=2)).sentences) == 2


async def test_each_sentence_names_the_entities_that_it_mentions() -> None:
    point = entity_in(LIGHTHOUSE, "Skerry Point", "LOC")
    board = entity_in(LIGHTHOUSE, "harbour board", "ORG")
    summary = await summary_of(LIGHTHOUSE, [board, point])
    for sentence in summary.sentences:
        assert (point.id in sentence.entities) == ("Skerry Point" in sentence.text)
        assert (board.id in sentence.entities) == ("harbour board" in sentence.text)


async def test_a_name_that_goes_on_beyond_the_sentence_is_not_mentioned_in_it() -> None:
    document = document_of("The board of the harbour met in the new hall of St. Jude. Then it adjourned for the year.")
    saint = entity_in(document, "St. Jude. Then", "LOC")
    assert saint.mentions
    assert not any(sentence.entities for sentence in (await summary_of(document, [saint])).sentences)


@pytest.mark.parametrize(
    "aside",
    [
        "I remember the granite tower at Skerry Point and you asking me about the reef and the ships that it guides.",
        '"The granite tower at Skerry Point guides the ships past the reef, and the keepers past the winter," he said.',
        "The granite tower at Skerry Point guides the ships past the northern reef, and the keepers past the winter!",
        "However, the granite tower at Skerry Point has guided ships past the reef, and the keepers past the winter.",
        "Ships were guided past the reef in 1874, 1875, 1876, 1877 and 1878 by the granite tower at Skerry Point then.",
    ],
)
async def test_a_sentence_that_cannot_stand_alone_gives_way_to_one_that_can(aside: str) -> None:
    begins = "The granite tower at Skerry Point has guided ships past the northern reef for a century and a half."
    plain = "Keepers of the granite tower at Skerry Point lived beside the northern reef with their families in winter."
    document = document_of(begins, aside, plain, title="Skerry Point")
    assert [sentence.text for sentence in (await summary_of(document, most=2)).sentences] == [begins, plain]


async def test_what_the_document_names_most_counts() -> None:
    begins = "The river valley is a quiet district in which little has been built over several decades."
    plain = "Weather in the northern hills was mild and dry for much longer than forecasters predicted beforehand."
    named = "The merchant Ottoline Brandt later bought an abandoned mill beside some marshes and repaired windows."
    document = document_of(f"{begins} {plain} {named}")
    brandt = entity_in(document, "Ottoline Brandt", "PERSON")
    assert [sentence.text for sentence in (await summary_of(document, most=2)).sentences] == [begins, plain]
    assert [sentence.text for sentence in (await summary_of(document, [brandt], most=2)).sentences] == [begins, named]


async def test_notes_without_a_full_stop_are_better_than_nothing() -> None:
    document = document_of(
        ("list_item", "agreed to move the launch of the northern service to the second week of May"),
        ("list_item", "ok"),
    )
    [sentence] = (await summary_of(document)).sentences
    assert sentence.text.startswith("agreed to move")


async def test_a_document_without_prose_has_a_summary_without_sentences() -> None:
    assert (await summary_of(document_of(("table", "a | b\nc | d"), ("heading", "Only a heading.")))).sentences == ()


@pytest.mark.parametrize(
    "text",
    [
        "Der Leuchtturm steht seit 1874 auf dem nördlichen Riff vor der Küste. Er wurde nach einem Schiffbruch gebaut.",
        "灯台は一八七四年から北の岩礁に立っている石造りの塔である。港湾局は二隻の汽船が失われた後に建設を命じた。",
        "الفنارة برج من الجرانيت يرشد السفن بعيدا عن الشعاب المرجانية الشمالية منذ عام 1874.",
        "ประภาคารเป็นหอคอยหินแกรนิตที่นำทางเรือผ่านแนวปะการังทางเหนือ",
    ],
)
async def test_other_languages_are_summarized_too(text: str) -> None:
    document = document_of(text)
    summary = await summary_of(document, most=1)
    assert len(summary.sentences) == 1
    assert summary.sentences[0].text in text


def test_its_inputs_are_all_that_changes_it() -> None:
    summarizer = ExtractiveSummarizer(6)
    point = entity_in(LIGHTHOUSE, "Skerry Point", "LOC")
    found = {point.id: Enrichment(status="enriched", source="test", data={"country": "Norway"})}
    before = summarizer.inputs(LIGHTHOUSE, [point], {})
    assert summarizer.inputs(LIGHTHOUSE, [point], found) == before
    assert summarizer.inputs(LIGHTHOUSE, [], {}) != before
    assert summarizer.inputs(document_of("Other."), [point], {}) != before
    assert ExtractiveSummarizer(5).inputs(LIGHTHOUSE, [point], {}) != before


async def test_a_summary_carries_its_inputs() -> None:
    assert (await summary_of(LIGHTHOUSE)).inputs == ExtractiveSummarizer(6).inputs(LIGHTHOUSE, [], {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["paragraph", "list_item", "heading", "table", "caption", "code"]),
            st.text(min_size=1, max_size=200).filter(str.strip),
        ),
        min_size=1,
        max_size=8,
    )
)
async def test_whatever_the_document_its_sentences_are_verbatim(blocks: list[tuple[str, str]]) -> None:
    document = document_of(*blocks)  # type: ignore[arg-type]
    summary = await summary_of(document)
    for sentence in summary.sentences:
        [span] = sentence.evidence
        assert document.slice(span) == sentence.text
        assert any(
            block.kind in ("paragraph", "list_item") and block.start <= span.start and span.end <= block.end
            for block in document.blocks
        )


def a_long_document(size: int) -> Document:
    chance = random.Random(7)  # noqa: S311
    words = ["".join(chance.choices("abcdefghijklmnoprstu", k=chance.randint(3, 9))) for _ in range(5_000)]
    blocks, length = [], 0
    while length < size:
        sentences = [" ".join(chance.choices(words, k=chance.randint(8, 30))).capitalize() + "." for _ in range(5)]
        blocks.append(" ".join(sentences))
        length += len(blocks[-1])
    return document_of(*blocks)


@pytest.mark.slow
async def test_megabytes_take_seconds_and_little_memory() -> None:
    document = a_long_document(2_400_000)
    began = time.process_time()
    await summary_of(document)
    assert time.process_time() - began < 10.0  # 2.5 s on the slowest machine it was tried on


async def test_memory_grows_with_the_text_and_not_faster() -> None:
    async def peak(size: int) -> int:
        document = a_long_document(size)
        tracemalloc.start()
        try:
            await summary_of(document)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert await peak(120_000) < 14 * await peak(12_000)


def test_another_process_gives_the_same_summary() -> None:
    program = (
        "import asyncio, json, sys; from tidegate.state import Document; "
        "from tidegate.services.summarizers.extractive import ExtractiveSummarizer; "
        "document = Document.load(json.load(sys.stdin)); "
        "print(asyncio.run(ExtractiveSummarizer(6).summarize(document, [], {})).model_dump_json())"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        input=LIGHTHOUSE.model_dump_json(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert Summary.load(json.loads(said.stdout)) == asyncio.run(summary_of(LIGHTHOUSE))


@pytest.mark.parametrize(
    ("name", "first", "also"),
    [
        ("norwich-city.txt", "Iwan Wyn Roberts (born 26 June 1968) is a Welsh former professional", "Norwich"),
        ("example-10k.html", "We are an established global gaming company", "Enhanced Table Systems"),
        ("layout-parser-paper-fast.pdf", "", "This paper introduces LayoutParser"),
        ("book-war-and-peace-1p.txt", "It was in July, 1805, and the speaker was", "Prince Vasili Kuragin"),
        (
            "handbook-1p.docx",
            "The United States Trustee appoints and supervises standing trustees",
            "The Handbook, issued as part of",
        ),
        ("fake-memo.pdf", "There were 20,000 bottles of water", "3 trucks"),
    ],
)
async def test_a_real_documents_summary_reads_like_one(documents: Path, name: str, first: str, also: str) -> None:
    document = await convert((documents / name).read_bytes(), source=name)
    sentences = (await summary_of(document)).sentences
    assert sentences[0].text.startswith(first)
    assert also in " ".join(sentence.text for sentence in sentences)
    assert len(sentences) == (2 if name == "fake-memo.pdf" else 6)


@pytest.mark.parametrize(
    "text",
    ["Berlin is a city. Paris is another one.", "The ferry leaves at nine. It returns at noon every day of the week."],
)
async def test_a_note_of_short_sentences_is_summarized_by_them(text: str) -> None:
    summary = await summary_of(document_of(text))
    assert " ".join(sentence.text for sentence in summary.sentences) == text
