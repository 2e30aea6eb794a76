"""Whether four digits are a year: only what stands around them can tell."""

from __future__ import annotations

import re
from typing import Final

_NEAR: Final = 24
"""Characters to either side that are looked at."""

_STRONG: Final = re.compile(
    r"(?<!\w)(?i:in|since|until|till|during|throughout|circa|early|late|mid|year|years|fiscal|FY|ended|ending|AD|born"
    r"|died|spring of|summer of|autumn of|fall of|winter of|spring|summer|autumn|winter|copyright|©)[ -]{1,2}\Z"
)
_WEAK: Final = re.compile(r"(?<!\w)(?i:of|from|by|before|after|around|between|to) {1,2}\Z")
_OPENED: Final = re.compile(r"[(;] ?\Z|[(;,] ?(?:c\.|ca\.|b\.|d\.) ?\Z")
_CLOSED: Final = re.compile(r" ?[);]")
_CITED: Final = re.compile(r"(?:\w|\.|\)), \Z")
_NAMED: Final = re.compile(
    r" (?:season|campaign|elections?|census|(?:fiscal|tax) year|World Cup|Olympics?|edition)(?!\w)"
)
_COUNTED: Final = re.compile(
    r"[ -]?(?:%|\u00b0|(?:per|percent|people|men|women|children|km|kg|m|cm|mm|ft|lb|mph|hp|kW|MW|[a-z]+ of)(?!\w)"
    r"|(?!(?:as|has|is|was|this|his|its|does|plus|across|towards|versus|perhaps|besides|unless)(?!\w))[a-z]{2,}s(?!\w))"
)
_FOLLOWS: Final = re.compile(
    r",? (?:and|or|to|through|versus|vs\.?|compared (?:to|with)|\u2013|-|&) |, |[/\u2013\u2014-]"
)


def may_follow(text: str, end: int, start: int) -> bool:
    """Say whether a year at `start`, after a date that ends at `end`, is one more date: `June 30, 2021 and 2020`."""
    return start - end <= _NEAR and _FOLLOWS.fullmatch(text, end, start) is not None


def is_year(text: str, start: int, end: int, floor: int, ceiling: int, *, after_date: bool, table: bool) -> bool:
    """Say whether `text[start:end]`, four digits, is a year, judging by `text[floor:ceiling]`.

    `after_date`: they go on a list of dates. `table`: cells are separated by ` | `, rows by line breaks.
    """
    year = int(text[start:end])
    if re.match(r"\w|[.,/:-][0-9]|['\u2019]s?\w", text[end : min(ceiling, end + 4)]):
        return False
    if table and _is_cell(text, start, end, floor, ceiling):
        return 1800 <= year < 2100
    left, right = text[max(floor, start - _NEAR) : start], text[end : min(ceiling, end + _NEAR)]
    if _COUNTED.match(right):
        return False
    if _STRONG.search(left):
        return True
    if not 1700 <= year < 2100:
        return False
    if after_date or _WEAK.search(left) or _NAMED.match(right):
        return True
    return bool(_CLOSED.match(right)) and bool(_OPENED.search(left) or _CITED.search(left))


def _is_cell(text: str, start: int, end: int, floor: int, ceiling: int) -> bool:
    """Say whether a cell of a table holds nothing else, and the row no figures that are not years as well."""
    first = max(text.rfind("\n", floor, start) + 1, floor)
    last = text.find("\n", end, ceiling)
    row = text[first : last if last >= 0 else ceiling]
    if len(row) > 500:
        return False
    cells = [cell.strip() for cell in row.split("|")]
    figures = [cell for cell in cells if re.fullmatch(r"[0-9,.]+", cell)]
    alone = start == first or text.endswith("| ", first, start)
    return (
        alone
        and text[start:end] in cells
        and all(re.fullmatch(r"(?:1[89]|20)[0-9][0-9]", figure) for figure in figures)
    )
