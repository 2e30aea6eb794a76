"""A document's entities: typed, every mention exact, names brought together where there is no doubt."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.services.recognisers import RulesRecogniser
from tidegate.services.recognisers.passages import LONGEST, passages
from tidegate.services.recognisers.recognition import find_entities
from tidegate.services.recognisers.with_rules import RULES
from tidegate.state import Block, BlockKind, Document, Entity, entity_id


def a_document(*blocks: str | tuple[BlockKind, str]) -> Document:
    """A document of these blocks; a bare string is a paragraph."""
    text = ""
    found: list[Block] = []
    for block in blocks:
        kind: BlockKind
        kind, content = ("paragraph", block) if isinstance(block, str) else block
        text += "\n\n" if text else ""
        found.append(Block(start=len(text), end=len(text) + len(content), kind=kind))
        text += content
    return Document(
        id=hashlib.sha256(text.encode()).hexdigest(),
        source="sample",
        media_type="text/plain",
        title="",
        text=text,
        blocks=tuple(found),
        converter="test/1",
    )


def named(document: Document, entities: list[Entity]) -> dict[str, tuple[str, list[str]]]:
    """By the name: the type, and the mentions as they stand in the text."""
    return {entity.text: (entity.type, [document.slice(span) for span in entity.mentions]) for entity in entities}


def read(*blocks: str | tuple[BlockKind, str]) -> dict[str, tuple[str, list[str]]]:
    document = a_document(*blocks)
    return named(document, find_entities(document))


def types(*blocks: str | tuple[BlockKind, str]) -> dict[str, str]:
    return {text: kind for text, (kind, _) in read(*blocks).items()}


BIOGRAPHY = (
    "Iwan Wyn Roberts (born 26 June 1968) is a Welsh former footballer who played for Norwich City F.C. and for Wales. "
    "He was born in Bangor, Gwynedd. Roberts joined Watford in 1986. Mr. Nigel Worthington, who managed Norwich City, "
    "sold him for £1.3m. Iwan Roberts retired in 2005."
)


def test_a_biography_gives_its_people_places_dates_and_sums() -> None:
    found = read(BIOGRAPHY)
    assert found["Iwan Wyn Roberts"] == ("PERSON", ["Iwan Wyn Roberts", "Roberts", "Iwan Roberts"])
    assert found["Norwich City F.C."] == ("ORG", ["Norwich City F.C.", "Norwich City"])
    assert found["Nigel Worthington"] == ("PERSON", ["Nigel Worthington"])
    assert found["Bangor"] == ("LOC", ["Bangor"])
    assert found["Gwynedd"] == ("LOC", ["Gwynedd"])
    assert found["Wales"] == ("LOC", ["Wales"])
    assert found["26 June 1968"] == ("DATE", ["26 June 1968"])
    assert found["£1.3m"] == ("MONEY", ["£1.3m"])
    assert not {"Welsh", "He", "Mr", "Mr."} & set(found)


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("We met Mr. Harold Zenk there.", "Harold Zenk", "PERSON"),
        ("We met Dr Zenk there.", "Zenk", "PERSON"),
        ("French President Emmanuel Macron spoke.", "Emmanuel Macron", "PERSON"),
        ("It was Ursula von der Leyen who spoke.", "Ursula von der Leyen", "PERSON"),
        ("He greeted Prince Vasili Kuragin warmly.", "Prince Vasili Kuragin", "PERSON"),
        ("She saw Irene Joliot-Curie.", "Irene Joliot-Curie", "PERSON"),
        ("Then Theresa May resigned.", "Theresa May", "PERSON"),
        ("A study by John A. Zubrin appeared.", "John A. Zubrin", "PERSON"),
        ("Her husband, Zorbek, left.", "Zorbek", "PERSON"),
        ("They saw nurse Zahira Gulzan there.", "Zahira Gulzan", "PERSON"),
        ("The pilot saw René de Vries there.", "René de Vries", "PERSON"),
        ("The firm Acme Widgets, Inc. grew.", "Acme Widgets, Inc.", "ORG"),
        ("They joined O'Neil Partners LLC.", "O'Neil Partners LLC", "ORG"),
        ("A grant of the University of Oxford helped.", "University of Oxford", "ORG"),
        ("They called Johnson & Johnson.", "Johnson & Johnson", "ORG"),
        ("It was filed with the Securities and Exchange Commission.", "Securities and Exchange Commission", "ORG"),
        ("Shares of Siemens AG rose.", "Siemens AG", "ORG"),
        ("He signed for Leicester City.", "Leicester City", "ORG"),
        ("They sailed on Lake Geneva.", "Lake Geneva", "LOC"),
        ("An office in Kansas City opened.", "Kansas City", "LOC"),
        ("They drove to St. Petersburg.", "St. Petersburg", "LOC"),
        ("She lives in Zorbury, Nevada, now.", "Zorbury", "LOC"),
        ("Then the Isle of Man voted.", "Isle of Man", "LOC"),
        ("At last the Zorblatt Gleam arrived.", "Zorblatt Gleam", "ENTITY"),
    ],
)
def test_a_name_is_typed_by_its_words_and_those_beside_it(text: str, name: str, kind: str) -> None:
    assert types(text).get(name) == kind


@pytest.mark.parametrize(
    "text",
    [
        "He agrees to the Credit Agreement and to the Purchase Agreement.",
        "See Section 4 and Table 2, Note 7 and Exhibit A.",
        "On Monday, in May, at Christmas, the Chairman and the Company met the Board.",
        "The company said that the Company, its board, and the Board had met.",
        "The Indian Gaming Regulatory Act (“IGRA”) applies. IGRA applies.",
        "The new Triton™ is here. We like Triton, and they like Triton.",
        "They spoke English to the French and the Dutch.",
        "I'd go. It's late. Don't wait. That's all.",
        "Reading is fun. Mobile phones are not. Mark your calendar. Orange juice is.",
        "Write to anna.smith@Example.com or see https://www.Example.com/Anna/Smith for more.",
        "\u2022 Costs of revenue \u2022 Selling \u2022 General",
    ],
)
def test_what_is_no_name_is_left(text: str) -> None:
    assert read(text) == {}


def test_headings_tables_and_captions_bring_no_names_but_have_those_of_the_prose() -> None:
    found = read(
        ("heading", "ANNUAL REPORT OF ACME WIDGETS, INC."),
        ("heading", "Quality Management Review"),
        "Acme Widgets, Inc. was founded by Harold Zenk.",
        ("table", "Chief Happiness | Zenk | $5\nPaul Newcomer | Acme Widgets | 2020"),
        ("caption", "Harold Zenk in 1999"),
    )
    assert found["Acme Widgets, Inc."] == ("ORG", ["ACME WIDGETS, INC.", "Acme Widgets, Inc.", "Acme Widgets"])
    assert found["Harold Zenk"] == ("PERSON", ["Harold Zenk", "Zenk", "Harold Zenk"])
    assert found["$5"][0] == "MONEY"
    assert found["1999"][0] == "DATE"
    assert set(found) == {"Acme Widgets, Inc.", "Harold Zenk", "$5", "1999", "2020"}


def test_code_has_no_entities() -> None:
    assert read(("code", 'pay "$1" "$2"  # Mr. Harold Zenk, 26 June 1968')) == {}


def test_two_people_of_one_surname_leave_it_by_itself() -> None:
    found = read("Harold Roberts met Iwan Roberts. Then Roberts left, and so did Mr. Roberts.")
    assert found["Roberts"] == ("PERSON", ["Roberts", "Roberts"])
    assert found["Harold Roberts"] == ("PERSON", ["Harold Roberts"])
    assert found["Iwan Roberts"] == ("PERSON", ["Iwan Roberts"])


def test_initials_and_short_forms_of_a_given_name_are_one_person() -> None:
    found = read("William A. Zender came. Bill Zender spoke. W. Zender left. Mr. Zender returned.")
    assert found["William A. Zender"][1] == ["William A. Zender", "Bill Zender", "W. Zender", "Zender"]


def test_an_initial_that_fits_two_people_joins_neither() -> None:
    found = read("John A. Zender came with John B. Zender. Then John Zender left.")
    assert set(found) >= {"John A. Zender", "John B. Zender", "John Zender"}


def test_a_first_word_that_may_be_a_place_is_not_short_for_a_newspaper() -> None:
    found = read(
        "The Otago Daily Times said so. We love Otago, and they love Otago. Zenlo Robotics grew. So Zenlo won."
    )
    assert found["Otago Daily Times"][1] == ["Otago Daily Times"]
    assert found["Otago"][1] == ["Otago", "Otago"]


def test_a_company_is_one_with_and_without_its_legal_form() -> None:
    found = read("Acme Corp. sued. Acme Corporation was right. Then Acme won, since ACME CORP. never loses.")
    assert [kind for kind, _ in found.values()] == ["ORG"]
    assert found["Acme Corporation"][1] == ["Acme Corp.", "Acme Corporation", "Acme", "ACME CORP."]


def test_an_acronym_that_the_text_explains_joins_its_owner() -> None:
    found = read("The Zorin State Bank (“ZSB”) lent it. Later ZSB paid. The World Zinc Council (WZC) met. WZC voted.")
    assert found["Zorin State Bank"][1] == ["Zorin State Bank", "ZSB", "ZSB"]
    assert found["World Zinc Council"][1] == ["World Zinc Council", "WZC", "WZC"]


def test_an_acronym_given_to_two_owners_joins_neither() -> None:
    found = read(
        "The Zorin State Bank (“ZSB”) lent it. The Zorin Savings Bank (“ZSB”) too. Later ZSB paid. So ZSB did."
    )
    assert found["Zorin State Bank"][1] == ["Zorin State Bank"]
    assert found["Zorin Savings Bank"][1] == ["Zorin Savings Bank"]


def test_names_of_the_united_states_are_one_place() -> None:
    found = read(
        "In the United States it rained. In the U.S. it snowed. The USA and the UK are far from the United Kingdom."
    )
    assert found["United States"] == ("LOC", ["United States", "U.S.", "USA"])
    assert found["United Kingdom"] == ("LOC", ["UK", "United Kingdom"])


def test_the_same_day_or_sum_is_one_entity_however_it_is_written() -> None:
    found = read("On 26 June 1968 (June 26, 1968, 1968-06-26) they paid $5 million, that is USD 5,000,000.")
    assert found["June 26, 1968"] == ("DATE", ["26 June 1968", "June 26, 1968", "1968-06-26"])
    assert found["USD 5,000,000"] == ("MONEY", ["$5 million", "USD 5,000,000"])


def test_the_same_words_with_two_meanings_are_two_entities() -> None:
    document = a_document("A fee of $5 for a range of $5-7 million.")
    sums = [entity for entity in find_entities(document) if entity.type == "MONEY"]
    assert [(entity.text, entity.value) for entity in sums] == [
        ("$5", {"amount": "5", "currency": "USD"}),
        ("$5", {"amount": "5000000", "currency": "USD"}),
        ("7 million", {"amount": "7000000", "currency": "USD"}),
    ]
    assert len({entity.id for entity in sums}) == 3


def test_prose_is_cut_into_short_passages_without_a_loss() -> None:
    document = a_document(
        "A sentence goes here. " * 400, "x" * 99 + " " + "word " * 2_000, ("heading", "Not this."), "End."
    )
    pieces = list(passages(document))
    prose = [block for block in document.blocks if block.kind == "paragraph"]
    assert "".join(piece.text for piece in pieces) == "".join(document.slice(block) for block in prose)
    assert all(document.text.startswith(piece.text, piece.start) for piece in pieces)
    assert max(len(piece.text) for piece in pieces) <= LONGEST
    assert all(piece.text.endswith((" ", ".")) for piece in pieces[:-2] if piece.text.startswith("A"))


def test_the_longest_name_wins() -> None:
    found = read("The University of Nevada is in Nevada. Norwich City F.C. is from Norwich, which is in Norfolk.")
    assert found["Nevada"][1] == ["Nevada"]
    assert found["Norwich"][1] == ["Norwich"]


def test_a_sum_is_not_taken_apart_by_a_name() -> None:
    found = read("In the US they paid US$5 million.")
    assert found["US"][1] == ["US"]
    assert found["US$5 million"][1] == ["US$5 million"]


def test_a_single_word_is_not_found_inside_a_phrase_that_is_no_entity() -> None:
    assert read("Mr. Zenk came. They signed the Zenk Agreement.")["Zenk"][1] == ["Zenk"]


def test_a_name_is_not_found_inside_another_word_or_name() -> None:
    found = read(
        "Mr. Zenk came to Norwich. Norwich-based O'Zenk met Zenk-Smith at Norwich's fair, and the Zenk Fund left."
    )
    assert found["Zenk"][1] == ["Zenk"]
    assert found["Norwich"][1] == ["Norwich", "Norwich", "Norwich"]


def test_a_word_that_is_also_written_small_is_no_name_by_itself() -> None:
    found = read("Harold Bell rang. The bell was loud. Bell towers are old. The mark was high. Mark it.")
    assert found["Harold Bell"] == ("PERSON", ["Harold Bell"])
    assert not {"Bell", "Mark"} & set(found)


def test_an_id_is_that_of_the_name_and_stays() -> None:
    document = a_document(BIOGRAPHY)
    first, second = find_entities(document), find_entities(document)
    assert first == second
    roberts = next(entity for entity in first if entity.type == "PERSON")
    assert roberts.id == entity_id(document.id, "PERSON", "Iwan Wyn Roberts")
    assert len({entity.id for entity in first}) == len(first)


def test_entities_come_in_the_order_of_their_first_mentions() -> None:
    starts = [entity.mentions[0].start for entity in find_entities(a_document(BIOGRAPHY))]
    assert starts == sorted(starts)


async def test_the_rules_recogniser_works_off_the_event_loop_and_says_its_version() -> None:
    document = a_document(*[BIOGRAPHY] * 50)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    task = asyncio.create_task(tick())
    assert await RulesRecogniser().recognise(document) == find_entities(document)
    task.cancel()
    assert ticks > 1
    assert RulesRecogniser.name == RULES


def test_the_result_does_not_hang_on_the_order_of_sets() -> None:
    document = a_document(BIOGRAPHY, NAMESAKES)
    script = (
        "import sys; from tidegate.state import Document;"
        "from tidegate.services.recognisers.recognition import find_entities;"
        "print([e.model_dump() for e in find_entities(Document.model_validate_json(sys.stdin.read()))])"
    )
    for seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", script],
            input=document.model_dump_json(),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        )
        assert answer.stdout.strip() == str([entity.model_dump() for entity in find_entities(document)])


NAMESAKES = (
    "Anna Zubrin met Harold Zubrin and Peter Zubrin of Zubrin Widgets, Inc. and Zubrin Gadgets, Inc. (“ZG”). "
    "Zubrin left. Zubrin Widgets grew. ZG shrank. Anna and Harold stayed in Zubrin, Texas, in the U.S. and in the "
    "United States."
)

_PARTS = st.sampled_from(
    "Mr. Harold Zenk|Zenk|Acme Corp.|Acme|the|The|of|and|in|Bangor|Wales|, |. |\n|(|)|“|”|’s|'|-|–|Bank|City|United"
    "|University|John|A.|B.|Roberts|Iwan|said|$5|million|2004|June|26|May|U.S.|https://a.b/Zenk|[12]|&|é|\U0001f600|ZG|inc".split(
        "|"
    )
)
_BLOCKS = st.tuples(
    st.sampled_from(["paragraph", "heading", "table", "list_item", "caption"]),
    st.lists(_PARTS, min_size=1, max_size=30).map(" ".join),
).filter(lambda block: bool(block[1].strip()))


@settings(deadline=None)
@given(st.lists(_BLOCKS, min_size=1, max_size=5))
def test_every_mention_is_exact_apart_from_others_and_inside_one_block(blocks: list[tuple[BlockKind, str]]) -> None:
    document = a_document(*blocks)
    entities = find_entities(document)
    mentions = sorted((span.start, span.end) for entity in entities for span in entity.mentions)
    for start, end in mentions:
        surface = document.text[start:end]
        assert surface
        assert surface == surface.strip()
        assert "\n" not in surface
        assert any(block.start <= start and end <= block.end for block in document.blocks)
    assert all(left[1] <= right[0] for left, right in pairwise(mentions))
    assert len({entity.id for entity in entities}) == len(entities)
    for entity in entities:
        assert entity.mentions
        assert (entity.value is not None) == (entity.type in ("DATE", "MONEY"))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.sampled_from(["Harold Zenk", "Acme Widgets, Inc.", "Bangor", "26 June 1968", "$5 million"]),
        min_size=1,
        max_size=12,
    ),
    st.lists(
        st.sampled_from(["it rained; ", "we saw that ", "then ", "\n", "they spoke. They met "]),
        min_size=12,
        max_size=12,
    ),
)
def test_every_planted_name_is_found_where_it_was_planted(names: list[str], fillers: list[str]) -> None:
    text = "We met Mr. Harold Zenk of Acme Widgets, Inc. in Bangor, Wales, on 26 June 1968 for $5 million.\n"
    planted: dict[str, list[int]] = {}
    for name in ("Harold Zenk", "Acme Widgets, Inc.", "Bangor", "26 June 1968", "$5 million"):
        planted[name] = [text.index(name)]
    for filler, name in zip(fillers, names, strict=False):
        text += filler
        planted[name].append(len(text))
        text += name + " and "
    document = a_document(text + "more.")
    found = {entity.text: [span.start for span in entity.mentions] for entity in find_entities(document)}
    assert {name: found[name] for name in planted} == planted


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "Aa " * 10_000,
        "$1, " * 7_500,
        "9" * 30_000,
        "1 " * 15_000,
        "Aa (" * 7_500,
        "the Aa and " * 3_000,
        "Mr. " * 7_500,
        "Aa\n" * 10_000,
        "in 2000 " * 4_000,
        "Bank of " * 4_000,
        "x@" * 15_000,
        'Aa Inc. ("' * 3_000,
    ],
    ids=lambda text: text[:10].strip(),
)
def test_time_grows_with_the_text_and_not_faster(text: str) -> None:
    def seconds(sample: str) -> float:
        started = time.process_time()
        find_entities(a_document(sample.strip()))
        return time.process_time() - started

    find_entities(a_document("In Norwich."))  # reads the gazetteer
    small, large = seconds(text[: len(text) // 5]), seconds(text)
    assert large < 15 * small + 0.5


@pytest.mark.slow
def test_five_thousand_names_are_found_in_one_pass() -> None:
    syllables = ["ba", "ko", "ri", "ne", "lu", "mo", "sa", "ti", "ve", "zu"]
    names = [
        f"Harold {a}{b}{c}".title() + f"{d}son"
        for a in syllables
        for b in syllables
        for c in syllables
        for d in syllables[:5]
    ]
    started = time.process_time()
    entities = find_entities(a_document(*(f"They met {name} there." for name in names)))
    assert len([entity for entity in entities if entity.type == "PERSON"]) == len(set(names)) == 5_000
    assert time.process_time() - started < 20


def test_an_office_makes_a_person_and_a_list_of_places_a_place() -> None:
    found = types(
        "Write to Kari Lunde, head of customer service. The night ferry between Aberdeen and Bergen leaves earlier, so "
        "that passengers from Edinburgh or Inverness can board."
    )
    assert found.pop("Kari Lunde") == "PERSON"
    assert found == dict.fromkeys(("Aberdeen", "Bergen", "Edinburgh", "Inverness"), "LOC")


def test_a_place_knows_the_area_that_the_document_says_it_lies_in() -> None:
    document = a_document(
        "He left Bangor. He was born in Bangor, Wales, and works in Paris, Marseille and Paris, Texas."
    )
    within = {entity.text: entity.within for entity in find_entities(document)}
    assert within == {"Bangor": "Wales", "Wales": None, "Paris": "Texas", "Marseille": None, "Texas": None}
