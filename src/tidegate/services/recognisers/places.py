"""What the gazetteer knows of a name."""

from __future__ import annotations

import functools
from typing import Final, Literal, TypeAlias

from tidegate.services import gazetteer

Standing: TypeAlias = Literal["none", "town", "city", "area"]
"""How well known a place is: an `area` is a country, a region or a continent; a `city` has this many inhabitants."""

_CITY: Final = 100_000


@functools.lru_cache(maxsize=4096)
def standing(name: str) -> Standing:
    """Return what the name is, where it is a place's own. Blocks, the first time for a tenth of a second."""
    place = gazetteer.load().find(name)
    if place is None or gazetteer.fold(place["name"]) != gazetteer.fold(name):
        return "area" if place is not None and place["kind"] == "country" else "none"
    if place["kind"] in ("country", "continent", "region"):
        return "area"
    return "city" if place.get("population", 0) >= _CITY else "town"


def is_place(name: str) -> bool:
    """Say whether the gazetteer has the name at all, as a place's own or another. Blocks."""
    return gazetteer.load().find(name) is not None
