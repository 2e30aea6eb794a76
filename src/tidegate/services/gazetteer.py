"""The enrichment API that comes along: countries, regions and cities of GeoNames, as an ASGI application."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import threading
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from importlib import resources
from typing import Any, Final, TypeAlias

from tidegate.state import JSON

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

TYPES: Final = ("LOC", "ENTITY")
"""Entity types there is an answer for; an ENTITY, a name of unknown kind, gets one where it can hardly be another."""

_LARGE_CITY = 500_000
"""Inhabitants from which a city comes before a state of the same name (New York), and is known without context."""

_KNOWN_CITY = 100_000
"""Inhabitants from which a city without a rival is taken to be meant: the data set lacks smaller places of its name."""

_LONGEST_NAME = 200
_LARGEST_REQUEST = 64 * 1024
_ALTERNATIVES = 3
_SPELLINGS = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
        "&": " and ",
    }
)
_DROPPED = ".'`\u2019\u02bb\u02bc"  # apostrophes of several alphabets
_SHORT_FORMS = {"st": "saint", "ste": "sainte", "ft": "fort", "mt": "mount"}


def fold(name: str) -> str:
    """Return what two spellings of one name have in common: `St. Gallen`, `SAINT-GALLEN` and `saint gallen` are one.

    Case, accents, punctuation and a leading `the` are gone. The data set is keyed by this function: a change of it
    needs a new data set.
    """
    plain = unicodedata.normalize("NFKD", name).casefold().translate(_SPELLINGS)
    kept = "".join(c if c.isalnum() else "" if c in _DROPPED or unicodedata.combining(c) else " " for c in plain)
    words = [_SHORT_FORMS.get(word, word) for word in kept.split()]
    named = next((place for place, word in enumerate(words) if word != "the"), 0)
    return " ".join(words[named:])


class Gazetteer:
    """Places by name. Reading the data set takes a tenth of a second and about 30 MB; a look-up, microseconds."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Index a data set: a line a place, of its own names, the other names it goes by, and what is said of it."""
        self._records: list[str] = []
        self._places: dict[str, int | list[int]] = {}  # most names have one: 65,000 lists would keep the collector busy
        self._areas: dict[str, set[tuple[str, str]]] = {}
        for number, line in enumerate(lines):
            own, others, record = line.split("\t")
            self._records.append(record)
            for name in own.split("|"):
                self._add(name, number)
            for name in filter(None, others.split("|")):
                self._add(name, ~number)  # the complement marks another name
            if '"kind":"country"' in record or '"kind":"region"' in record:
                self._add_area(json.loads(record), [*own.split("|"), *others.split("|")])

    def _add(self, name: str, number: int) -> None:
        known = self._places.get(name)
        if known is None:
            self._places[name] = number
        elif isinstance(known, list):
            known.append(number)
        else:
            self._places[name] = [known, number]

    def _add_area(self, place: JSON, names: Iterable[str]) -> None:
        area = (str(place["country_code"]), str(place.get("region_code", "")))
        codes = [place["iso3"], area[0]] if place["kind"] == "country" else [area[1]]
        for name in filter(None, [*names, *map(fold, codes)]):
            self._areas.setdefault(name, set()).add(area)

    def find(self, text: str, *, certain: bool = False) -> JSON | None:
        """Return what is known of the place that `text` most likely names, None if there is none.

        `text` may say where the place lies: `Paris, Texas`. Where several places have the name, the answer says which
        was taken, why, and which others there are. With `certain`, only a country or a city of half a million is
        returned, by its own name, and only if no other place comes near it.
        """
        if len(text) > _LONGEST_NAME:
            return None
        name, *qualifiers = [part for part in map(fold, text.split(",")) if part] or [""]
        known = [areas for areas in map(self._areas.get, qualifiers) if areas]
        candidates = [place for place in self._candidates(name) if all(_lies_in(place, areas) for areas in known)]
        if not candidates:
            return None
        candidates.sort(key=_rank)
        place, *others = candidates
        confidence, why = _confidence(place, others, is_located=bool(known))
        if len(known) < len(qualifiers):
            confidence, why = "low", f"{why}; not every area named is in the data set"
        if certain and not (confidence == "high" and _is_large(place)):
            return None
        return _answer(place, others, confidence, why)

    def _candidates(self, name: str) -> list[JSON]:
        known = self._places.get(name, [])
        numbers = known if isinstance(known, list) else [known]
        return [{**json.loads(self._records[n if n >= 0 else ~n]), "own_name": n >= 0} for n in numbers]


def _lies_in(place: JSON, areas: set[tuple[str, str]]) -> bool:
    """Say whether a place is a part of one of these areas; no area is a part of itself."""
    if place["kind"] not in {"city", "region"}:
        return False
    country, region = place["country_code"], place.get("region_code")
    return (country, "") in areas or (place["kind"] == "city" and (country, region) in areas)


def _rank(place: JSON) -> tuple[int, float]:
    if place["kind"] == "city":
        order = 2 if place["own_name"] and _is_large(place) else 4
    else:
        order = {"country": 0, "continent": 1, "region": 3}[place["kind"]]
    return order, -_weight(place)


def _weight(place: JSON) -> float:
    """Return the inhabitants; a hundredth under another name: Petersburg is in Russia, but Salisbury in England."""
    return float(place.get("population", 0)) / (1 if place["own_name"] else 100)


def _is_large(place: JSON) -> bool:
    return place["kind"] == "country" or (place["kind"] == "city" and int(place["population"]) >= _LARGE_CITY)


def _confidence(place: JSON, others: list[JSON], *, is_located: bool) -> tuple[str, str]:
    """Return `high`, `medium` or `low`, and why: how the place compares with the others of its name."""
    where = "in the area named" if is_located else "in the data set"
    is_known = is_located or place["kind"] != "city" or place["population"] >= _KNOWN_CITY
    best = "high" if place["own_name"] and is_known else "medium"
    rivals = [
        other for other in others if place["kind"] != "country" or other.get("country_code") != place["country_code"]
    ]
    if not rivals:
        return best, f"the only place {'' if place['own_name'] else 'also '}known by this name {where}"
    if place["kind"] == "region" or any(rival["kind"] == "region" for rival in rivals):
        return "medium", f"the {place['kind']} comes before {len(rivals)} more of this name {where}"
    total = sum(map(_weight, rivals)) + _weight(place)
    share = _weight(place) / total if total else 0.0
    confidence = best if share >= 0.95 else "medium" if share >= 0.5 else "low"
    return confidence, f"the most prominent of {len(rivals) + 1} places of this name {where}, by kind and population"


def _answer(place: JSON, others: list[JSON], confidence: str, why: str) -> JSON:
    listed = ("id", "name", "kind", "region", "country")
    alternatives = [{key: other[key] for key in listed if key in other} for other in others[:_ALTERNATIVES]]
    return {
        **{key: value for key, value in place.items() if key != "own_name"},
        "confidence": confidence,
        "why": why,
        **({"alternatives": alternatives} if alternatives else {}),
        "source": "GeoNames",
        "licence": "CC BY 4.0",
    }


_loading = threading.Lock()


@functools.cache
def _load() -> Gazetteer:
    packed = resources.files("tidegate.services").joinpath("data", "gazetteer.tsv.gz").read_bytes()
    return Gazetteer(gzip.decompress(packed).decode().split("\n"))


def load() -> Gazetteer:
    """Return the packaged gazetteer, read once a process. Blocks: call it off the event loop."""
    with _loading:
        return _load()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer `POST /enrich` with `{"text", "type"}`: 200 and what is known of the place, or 404.

    `"within"`, the area that the place lies in, may come with them.
    """
    if scope["type"] != "http":
        raise NotImplementedError(f"the gazetteer speaks HTTP, not {scope['type']}")
    if scope["path"] != "/enrich":
        status, answer = 404, _problem("there is POST /enrich only")
    elif scope["method"] != "POST":
        status, answer = 405, _problem("use POST")
    else:
        status, answer = await _enrich(await _body(receive))
    body = json.dumps(answer, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _enrich(body: bytes | None) -> tuple[int, JSON]:
    if body is None:
        return 413, _problem(f"send {_LARGEST_REQUEST} bytes at most")
    try:
        entity = json.loads(body)
        text, kind, within = entity["text"], entity["type"], entity.get("within", "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return 400, _problem('send {"text": ..., "type": ...}')
    if not (isinstance(text, str) and isinstance(kind, str) and isinstance(within, str)):
        return 400, _problem("text, type and within are strings")
    if kind not in TYPES:
        return 404, _problem("this type is not covered")
    places = await asyncio.to_thread(load)
    place = places.find(f"{text}, {within}") if within else None
    place = place or places.find(text, certain=kind == "ENTITY")
    return (200, place) if place is not None else (404, _problem("no such place"))


async def _body(receive: Receive) -> bytes | None:
    """Return the request's body, None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)  # the caller is gone
        body += message.get("body", b"")
        if len(body) > _LARGEST_REQUEST:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _problem(what: str) -> JSON:
    return {"problem": what}
