"""spaCy's names, corrected: what the model gets wrong is put right, and what it cannot see is added."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_recognisers import BIOGRAPHY, NAMESAKES, a_document, named
from tidegate.errors import MissingExtra, SettingsError
from tidegate.services.recognisers import SpacyRecogniser, spacy_model, with_spacy
from tidegate.services.recognisers.spacy_model import find_model
from tidegate.state import Document


@pytest.fixture(scope="module")
def recogniser() -> SpacyRecogniser:
    try:
        return SpacyRecogniser(find_model())
    except MissingExtra as missing:
        pytest.skip(str(missing))


async def read(recogniser: SpacyRecogniser, *blocks: Any) -> dict[str, tuple[str, list[str]]]:
    document = a_document(*blocks)
    return named(document, await recogniser.recognise(document))


async def test_a_biography_gives_its_people_places_dates_and_sums(recogniser: SpacyRecogniser) -> None:
    found = await read(recogniser, BIOGRAPHY)
    assert found["Iwan Wyn Roberts"] == ("PERSON", ["Iwan Wyn Roberts", "Roberts", "Iwan Roberts"])
    assert found["Norwich City F.C."] == ("ORG", ["Norwich City F.C.", "Norwich City"])
    assert found["Bangor"][0] == "LOC"
    assert found["26 June 1968"][0] == "DATE"
    assert found["£1.3m"][0] == "MONEY"


async def test_the_model_sees_names_that_no_rule_shows(recogniser: SpacyRecogniser) -> None:
    found = await read(
        recogniser,
        "You asked about Novosiltsev's dispatch. The army marched through Zembla. Then Toyota sued Samsung.",
        "Only the Buonapartes rule, and they say that Buonaparte is ready.",
    )
    assert found["Novosiltsev"][0] == "PERSON"
    assert found["Zembla"][0] == "LOC"
    assert found["Buonaparte"][0] == "PERSON"
    assert found["Toyota"][0] == "ORG"


async def test_what_the_model_takes_for_names_is_left_where_the_words_are_none(recogniser: SpacyRecogniser) -> None:
    found = await read(
        recogniser,
        "Under the Credit Agreement the Company shall pay the Lenders. See Section 4, Note 7 and Table 2.",
        "On Monday the President met the Board at Christmas. The company, its lenders and its board were well.",
        "Foster 2015, p. 12. Rollin 1988, p. 30.",
        "The Welsh and the Dutch like COVID-19 less. Visit https://www.Example.com/John/Smith now.",
    )
    assert found == {}


async def test_a_name_has_one_type_in_a_document(recogniser: SpacyRecogniser) -> None:
    found = await read(
        recogniser,
        "Galaxy Widgets, Inc. was sold. Galaxy Widgets grew. We like Galaxy Widgets. Then Galaxy Widgets shrank.",
    )
    assert found["Galaxy Widgets, Inc."][0] == "ORG"
    assert len(found["Galaxy Widgets, Inc."][1]) == 4


async def test_an_entity_is_never_of_unknown_kind(recogniser: SpacyRecogniser) -> None:
    document = a_document(BIOGRAPHY, NAMESAKES, "At last the Zorblatt Gleam arrived.")
    assert "ENTITY" not in {entity.type for entity in await recogniser.recognise(document)}


async def test_documents_are_read_one_after_the_other_with_the_same_result(recogniser: SpacyRecogniser) -> None:
    documents = [a_document(BIOGRAPHY), a_document(NAMESAKES), a_document(BIOGRAPHY)]
    together = await asyncio.gather(*map(recogniser.recognise, documents))
    apart = [await recogniser.recognise(document) for document in documents]
    assert together == apart
    assert together[0] == together[2]


async def test_a_long_block_without_a_sentence_is_no_problem(recogniser: SpacyRecogniser) -> None:
    found = await read(recogniser, "Aa " * 5_000 + "x" * 20_000 + " Mr. Harold Zenk " + "9" * 20_000)
    assert found["Harold Zenk"] == ("PERSON", ["Harold Zenk"])


async def test_cancelling_stops_the_thread(recogniser: SpacyRecogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    await recogniser.recognise(a_document("Loads the model."))
    batches = 0
    first, go_on = threading.Event(), threading.Event()
    unpatched = with_spacy._sightings

    def counted(*args: Any) -> Iterator[Any]:
        nonlocal batches
        batches += 1
        first.set()
        go_on.wait(5)
        return unpatched(*args)

    monkeypatch.setattr(with_spacy, "_BATCH", 1)
    monkeypatch.setattr(with_spacy, "_sightings", counted)
    task = asyncio.create_task(recogniser.recognise(a_document(*["In Norwich it rained."] * 50)))
    await asyncio.to_thread(first.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await recogniser.recognise(a_document("Next."))  # waits until the thread is free
    assert batches <= 3


async def test_a_spacy_that_does_not_work_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"spaCy cannot load en_core_web_sm 3\.8\.0 .*set recogniser to 'rules'"):
        await SpacyRecogniser(tmp_path / "missing").recognise(a_document("In Norwich."))


def test_a_spacy_that_does_not_fit_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = pytest.importorskip("spacy.about")
    monkeypatch.setattr(about, "__version__", "4.0.1")
    with pytest.raises(SettingsError, match=r"spaCy 4\.0\.1 does not fit"):
        spacy_model.load_model(tmp_path)


async def convert(documents: Path, name: str) -> Document:
    from tidegate.services.converters import convert

    return await convert((documents / name).read_bytes(), source=name, media_type=None, max_expanded_bytes=200 << 20)


async def test_the_article_names_the_player_his_club_and_his_birthplace(
    recogniser: SpacyRecogniser, documents: Path
) -> None:
    document = await convert(documents, "norwich-city.txt")
    by_surface = surfaces(document, await recogniser.recognise(document))
    assert by_surface["Iwan Roberts"] == by_surface["Roberts"] == ("PERSON", "Iwan Wyn Roberts")
    assert by_surface["Norwich City"][0] == "ORG"
    assert by_surface["Bangor"][0] == "LOC"
    assert by_surface["Wales"][0] == "LOC"
    assert by_surface["26 June 1968"] == ("DATE", "26 June 1968")
    assert by_surface["£1.3m"][0] == "MONEY"


async def test_the_novel_names_its_people_and_places(recogniser: SpacyRecogniser, documents: Path) -> None:
    document = await convert(documents, "book-war-and-peace-1p.txt")
    by_surface = surfaces(document, await recogniser.recognise(document))
    assert by_surface["Anna Pavlovna"] == ("PERSON", "Anna Pavlovna Scherer")
    assert by_surface["Prince Vasili Kuragin"][0] == "PERSON"
    assert by_surface["St. Petersburg"][0] == "LOC"
    assert by_surface["July, 1805"][0] == "DATE"


@pytest.mark.slow
async def test_the_annual_report_names_its_companies_officers_and_sums(
    recogniser: SpacyRecogniser, documents: Path
) -> None:
    document = await convert(documents, "example-10k.html")
    by_surface = surfaces(document, await recogniser.recognise(document))
    assert by_surface["Galaxy Gaming"] == ("ORG", "Galaxy Gaming, Inc.")
    assert by_surface["Triangulum"] == ("ORG", "Triangulum Partners, LLC")
    assert by_surface["NSB"] == by_surface["Nevada State Bank"]
    assert by_surface["Lipparelli"] == ("PERSON", "Mark A. Lipparelli")
    assert by_surface["Las Vegas"][0] == "LOC"
    assert by_surface["$39.1 million"][0] == "MONEY"
    assert not {"Company", "Board", "President", "Credit Agreement", "Item", "Note"} & set(by_surface)


def surfaces(document: Document, entities: list[Any]) -> dict[str, tuple[str, str]]:
    return {document.slice(span): (entity.type, entity.text) for entity in entities for span in entity.mentions}
