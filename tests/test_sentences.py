from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import document_of
from tidegate.services.summarizers.sentences import passages, sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        "It rained. | It poured! | Did it stop? | It did.",
        "Mr. Smith met Dr. Jones of St. Petersburg. | They talked.",
        "He lives in the U.S. and likes it. | She left the U.S. | The flight was long.",
        "The U.S. Bank of J. P. Morgan Inc. Holdings paid. | In 1901 it grew.",
        "Galaxy Gaming, Inc. is a company. | It was sold to Acme Corp. | The price was low.",
        "He was elected to the Norwich City F.C. Hall of Fame in 2002. | He wept.",
        "Pi is 3.14 and £1.3m is money. | So is 5.",
        "At 7 p.m. on Jan. 5 they met, i.e. too late, e.g. for tea, cf. Fig. 2 and No. 7. | Then they left.",
        "He said no. | Then he left.",
        "See Item 1. Business for more. | It is long.",
        "1. The first rule. | 2. The second rule.",
        '"Heavens! what a virulent attack!" replied the prince. | He sat down.',
        '"I left. You stayed. Why?" | She asked it twice.',
        "“I left. You stayed.” | She said it twice.",
        "The book (All I Want ... See p. 3. It is good.) sold well. | He was glad.",
        "His book, All I Want for Christmas ..., came out. | It sold.",
        "He waited... and waited. | Then it came… | Nothing happened.",
        "He grew up in Barmouth.[2] | He lost a tooth.[3][4] | He moved. [5] | He played.[note] | He left.",
        "彼は東京に住んでいる。 | 彼女は京都に住んでいる。",
        "वह गया। | वह आया।",
        "Er kam am Montag. | Der Zug war spät.",
        "First line | Second line",
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str) -> None:
    expected = text.split(" | ")
    joined = text.replace("First line | Second", "First line\nSecond").replace("。 | ", "。").replace(" | ", " ")
    marks = ("[2]", "[3][4]", " [5]", "[note]")
    for mark in marks:
        expected = [sentence.removesuffix(mark) for sentence in expected]
    assert split(joined) == expected


def test_a_line_that_begins_small_goes_on_with_the_sentence() -> None:
    assert split("He was 18,\nplaying for Watford.\nHe left.") == ["He was 18,\nplaying for Watford.", "He left."]


@given(st.text(alphabet="aA .!?…\"'()[]1\n。’”\u2028é漢", max_size=80))
def test_whatever_the_text_sentences_are_in_order_and_lose_no_word(text: str) -> None:
    spans = list(sentences(text))
    assert all(start < end for start, end in spans)
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    covered = {at for start, end in spans for at in range(start, end)}
    lost = "".join(char for at, char in enumerate(text) if at not in covered)
    assert not any(char.isalpha() for char in lost) or "[" in text


def test_passages_are_sentences_of_prose_and_lines_of_all_else() -> None:
    document = document_of(
        ("heading", "Report. Part two."),
        "It rained. It poured.",
        ("table", "City | Rain\nYork. | 3 mm"),
        ("list_item", "Take a coat. Run."),
    )
    found = [(document.text[p.start : p.end], p.block, p.kind) for p in passages(document)]
    assert found == [
        ("Report. Part two.", 0, "heading"),
        ("It rained.", 1, "paragraph"),
        ("It poured.", 1, "paragraph"),
        ("City | Rain", 2, "table"),
        ("York. | 3 mm", 2, "table"),
        ("Take a coat.", 3, "list_item"),
        ("Run.", 3, "list_item"),
    ]


def test_no_passage_is_longer_than_a_prompt_can_take() -> None:
    document = document_of("word " * 10_000 + "end.", ("table", "x" * 5_000))
    found = passages(document)
    assert max(passage.end - passage.start for passage in found) <= 1_000
    assert not any(passage.whole for passage in found)
    joined = "".join(document.text[passage.start : passage.end] for passage in found)
    assert joined.replace(" ", "") == document.text.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize(
    "piece", [".", "a. ", 'a."', "(a. ", '"A. ', "A.[1", "\n ", " \n", ". \n", "[1] ", "。", "Mr. ", "... ", " ", "\n"]
)
def test_the_time_it_takes_grows_with_the_text_and_not_faster(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece)) + "x"
        began = time.process_time()
        for _ in sentences(text):
            pass
        return time.process_time() - began

    assert seconds(40_000) < 20 * max(seconds(5_000), 0.002)
