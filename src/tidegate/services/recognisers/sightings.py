"""What a recogniser has seen in one place of the text, before places are put together to entities."""

from __future__ import annotations

from typing import NamedTuple

from tidegate.state import EntityType


class Amount(NamedTuple):
    """A date or a sum of money where it stands, and its value: equal for every way to write the same thing."""

    start: int
    end: int
    value: dict[str, str]


class Sighting(NamedTuple):
    """A name where it stands, and what it was taken for; None where the kind of thing is known to be none of ours."""

    start: int
    end: int
    type: EntityType | None
