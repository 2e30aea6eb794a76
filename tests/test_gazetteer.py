from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from importlib import resources
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.services import gazetteer
from tidegate.services.gazetteer import Gazetteer, fold


@pytest.fixture(scope="module")
def places() -> Gazetteer:
    return gazetteer.load()


def found(places: Gazetteer, text: str, **how: Any) -> tuple[str, str, str]:
    place = places.find(text, **how)
    assert place is not None, text
    return place["name"], place.get("region") or place.get("country") or place["kind"], place["confidence"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Norwich", ("Norwich", "England", "medium")),
        ("Wolverhampton", ("Wolverhampton", "England", "high")),
        ("Swansea", ("Swansea", "Wales", "medium")),
        ("Buchanan", ("Buchanan", "Liberia", "medium")),  # smaller ones are not in the data set
        ("Smolensk", ("Smolensk", "Russia", "high")),
        ("München", ("Munich", "Germany", "medium")),
        ("Muenchen", ("Munich", "Germany", "medium")),
        ("KÖLN", ("Köln", "Germany", "high")),
        ("St. Petersburg", ("Saint Petersburg", "Russia", "high")),
        ("Petersburg", ("Saint Petersburg", "Russia", "medium")),
        ("Saint-Étienne", ("Saint-Étienne", "France", "high")),
        ("The Hague", ("The Hague", "The Netherlands", "high")),
        ("Łódź", ("Łódź", "Poland", "high")),
        ("Lodz", ("Łódź", "Poland", "high")),
        ("NYC", ("New York City", "New York", "high")),
        ("New York", ("New York City", "New York", "medium")),
        ("York", ("York", "England", "medium")),
        ("Salisbury", ("Salisbury", "England", "low")),
        ("Bombay", ("Mumbai", "India", "medium")),
        ("England", ("England", "United Kingdom", "high")),
        ("Ontario", ("Ontario", "Canada", "medium")),
        ("Europe", ("Europe", "continent", "high")),
    ],
)
def test_a_place_is_known_by_the_names_it_goes_by(places: Gazetteer, text: str, expected: tuple[str, str, str]) -> None:
    assert found(places, text) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("USA", "United States"),
        ("U.S.", "United States"),
        ("the United States of America", "United States"),
        ("UK", "United Kingdom"),
        ("Great Britain", "United Kingdom"),
        ("Netherlands", "The Netherlands"),
        ("Holland", "The Netherlands"),
        ("Cote d\u2019Ivoire", "Ivory Coast"),
        ("Czech Republic", "Czechia"),
        ("Türkiye", "Turkey"),
        ("Luxembourg", "Luxembourg"),
        ("Singapore", "Singapore"),
        ("Georgia", "Georgia"),
    ],
)
def test_a_country_comes_before_whatever_shares_its_name(places: Gazetteer, text: str, name: str) -> None:
    place = places.find(text)
    assert place is not None
    assert (place["kind"], place["name"]) == ("country", name)


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("Paris", "geonames:2988507"),
        ("Paris, Texas", "geonames:4717560"),
        ("Paris, TX, USA", "geonames:4717560"),
        ("Bangor, Wales", "geonames:2656397"),
        ("Bangor, Northern Ireland", "geonames:2656396"),
        ("Bangor, ME", "geonames:4957280"),
        ("Washington, D.C.", "geonames:4140963"),
        ("New York, New York", "geonames:5128581"),
        ("London, Ontario", "geonames:6058560"),
        ("Perth, WA, Australia", "geonames:2063523"),
        ("Munich, Germany", "geonames:2867714"),
        ("Wales, UK", "geonames:2634895"),
    ],
)
def test_where_a_place_is_said_to_lie_decides(places: Gazetteer, text: str, identity: str) -> None:
    place = places.find(text)
    assert place is not None
    assert (place["id"], place["confidence"]) == (identity, "high")


@pytest.mark.parametrize(
    "text",
    [
        "Iwan Roberts",
        "Carrow Road",
        "",
        " ",
        ",",
        ", ,",
        "the",
        "Paris, Germany",
        "Paris, Ontario, Canada",
        "x" * 201,
        "\0",
    ],
)
def test_what_is_no_known_place_is_not_found(places: Gazetteer, text: str) -> None:
    assert places.find(text) is None


def test_a_country_is_described(places: Gazetteer) -> None:
    assert places.find("United Kingdom") == {
        "id": "geonames:2635167",
        "name": "United Kingdom",
        "kind": "country",
        "country_code": "GB",
        "iso3": "GBR",
        "continent": "Europe",
        "capital": "London",
        "population": 66488991,
        "area_km2": 244820,
        "currency": {"code": "GBP", "name": "Pound"},
        "confidence": "high",
        "why": "the only place known by this name in the data set",
        "source": "GeoNames",
        "licence": "CC BY 4.0",
    }


def test_a_choice_between_places_is_laid_open(places: Gazetteer) -> None:
    place = places.find("Norwich")
    assert place is not None
    assert place["latitude"] == pytest.approx(52.6278)
    assert place["longitude"] == pytest.approx(1.2983)
    assert place["timezone"] == "Europe/London"
    assert place["why"] == "the most prominent of 2 places of this name in the data set, by kind and population"
    assert place["alternatives"] == [
        {
            "id": "geonames:4839843",
            "name": "Norwich",
            "kind": "city",
            "region": "Connecticut",
            "country": "United States",
        }
    ]
    springfield = places.find("Springfield, Sangamon County")
    assert springfield is not None
    assert springfield["confidence"] == "low"
    assert "not every area named" in springfield["why"]
    assert len(springfield["alternatives"]) == 3


@pytest.mark.parametrize(
    ("text", "is_certain"),
    [
        ("France", True),
        ("UK", True),
        ("London", True),
        ("Houston", True),
        ("Georgia", False),  # a country and a state
        ("Washington", False),
        ("Norwich", False),
        ("Reading", False),
        ("England", False),
        ("Bombay", False),  # by another name
        ("Apple", False),
    ],
)
def test_a_name_of_unknown_kind_is_taken_for_a_place_only_if_it_hardly_can_be_another(
    places: Gazetteer, text: str, is_certain: bool
) -> None:
    assert (places.find(text, certain=True) is not None) is is_certain


@given(st.text(max_size=60))
def test_any_text_may_be_asked_for(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    place = gazetteer.load().find(text)
    assert place is None or place["source"] == "GeoNames"


def test_a_long_name_takes_no_time(places: Gazetteer) -> None:
    began = time.perf_counter()
    for text in ("," * 5_000_000, "the " * 1_000_000, "\u0301" * 200, "\ufdfa" * 200, ",".join("ab" * 60)):
        places.find(text)
    assert time.perf_counter() - began < 1.0


def test_the_data_set_fits_the_code() -> None:
    packed = resources.files("tidegate.services").joinpath("data", "gazetteer.tsv.gz").read_bytes()
    assert len(packed) < 3_000_000
    kinds: dict[str, int] = {}
    for line in gzip.decompress(packed).decode().splitlines():
        own, others, record = line.split("\t")
        for key in filter(None, [*own.split("|"), *others.split("|")]):
            assert fold(key) == key, "fold was changed: make the data set anew with tests/tools/build_gazetteer.py"
        place = json.loads(record)
        assert fold(place["name"]) in own.split("|")
        assert place["id"].startswith("geonames:")
        kinds[place["kind"]] = kinds.get(place["kind"], 0) + 1
    assert (kinds["continent"], kinds["region"]) == (7, 76)
    assert kinds["country"] > 240
    assert kinds["city"] > 30_000


def test_geonames_is_given_its_due() -> None:
    notice = resources.files("tidegate.services").joinpath("data", "NOTICE").read_text(encoding="utf-8")
    for named in ("GeoNames", "Creative Commons Attribution 4.0", "https://creativecommons.org/licenses/by/4.0/"):
        assert named in notice


@pytest.fixture
def api() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gazetteer.app), base_url="http://gazetteer")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "1", "text": "Norwich", "type": "LOC"}, 200),
        ({"id": "1", "text": "Carrow Road", "type": "LOC"}, 404),
        ({"id": "1", "text": "Norwich", "type": "PERSON"}, 404),
        ({"id": "1", "text": "Norwich", "type": "ENTITY"}, 404),
        ({"id": "1", "text": "London", "type": "ENTITY"}, 200),
        ({"text": "Norwich"}, 400),
        ({"text": 7, "type": "LOC"}, 400),
        (["Norwich"], 400),
        ("Norwich", 400),
        (None, 400),
    ],
)
async def test_the_application_answers_like_an_api(api: httpx.AsyncClient, body: Any, status: int) -> None:
    async with api:
        response = await api.post("/enrich", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert ("confidence" in response.json()) is (status == 200)


async def test_the_application_refuses_what_it_cannot_read(api: httpx.AsyncClient) -> None:
    async with api:
        assert (await api.post("/enrich", content=b"{not json")).status_code == 400
        assert (await api.post("/enrich", content=b"[" * 50_000)).status_code == 400
        assert (await api.post("/enrich", content=b'"' + b"x" * 70_000 + b'"')).status_code == 413
        assert (await api.get("/enrich")).status_code == 405
        assert (await api.post("/other")).status_code == 404


async def test_the_data_set_is_read_once_and_off_the_event_loop(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gazetteer._load.cache_clear()
    threads: list[int] = []

    def load() -> Gazetteer:
        threads.append(threading.get_ident())
        return loaded()

    loaded = gazetteer.load
    monkeypatch.setattr(gazetteer, "load", load)
    async with api:
        answers = await asyncio.gather(*(api.post("/enrich", json={"text": "Paris", "type": "LOC"}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert threading.get_ident() not in threads
    assert gazetteer._load.cache_info().misses == 1


async def test_the_area_that_comes_with_a_place_decides(api: httpx.AsyncClient) -> None:
    for within, region in (("Wales", "Wales"), ("Narnia", "Northern Ireland")):
        answer = await api.post("/enrich", json={"text": "Bangor", "type": "LOC", "within": within})
        assert answer.json()["region"] == region
    assert (await api.post("/enrich", json={"text": "Bangor", "type": "LOC", "within": 3})).status_code == 400
