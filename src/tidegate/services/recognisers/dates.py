"""Dates, by rule: days, months, quarters, years and spans of them, with their ISO 8601 form."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from typing import Final

from tidegate.services.recognisers.sightings import Amount
from tidegate.services.recognisers.years import is_year, may_follow

_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_ORDINALS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1": 1, "2": 2, "3": 3, "4": 4}

_month = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    "|Nov(?:ember)?|Dec(?:ember)?|JANUARY|FEBRUARY|MARCH|APRIL|MAY|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER)"
    r"(?!\w)\.?"
)
_day = r"(?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?(?!\w)"
_year = r"(?:1[0-9]|20)[0-9][0-9]"
_last = r"(?!\w|[.,/-][0-9])"  # what a year at the end is not followed by
_gap = " {1,2}"
_comma = rf"(?:,?{_gap}|,)"
_of = rf"(?:,?{_gap}(?:of{_gap})?)"
_dash = r" ?[-\u2013\u2014] ?"
_to = rf"(?:{_dash}|{_gap}(?:to|through|until){_gap})"


def _iso(year: str, month: str | int, day: str | None = None) -> str | None:
    """Return a month or a day as ISO 8601, None if there is no such day."""
    number = month if isinstance(month, int) else _MONTHS[month[:3].lower()]
    if day is None:
        return f"{year}-{number:02}"
    digits = int(day.rstrip("stndrh"))
    return f"{year}-{number:02}-{digits:02}" if 1 <= digits <= calendar.monthrange(int(year), number)[1] else None


def _interval(start: str | None, end: str | None) -> str | None:
    return f"{start}/{end}" if start is not None and end is not None and start < end else None


def _date(m: re.Match[str]) -> str | None:
    return _iso(m["y"], m["m"], m.groupdict().get("d"))


def _days(m: re.Match[str]) -> str | None:
    return _interval(_iso(m["y"], m["m"], m["d"]), _iso(m["y"], m.groupdict().get("n", m["m"]), m["e"]))


def _months(m: re.Match[str]) -> str | None:
    return _interval(_iso(m["y"], m["m"]), _iso(m["y"], m["n"]))


def _figures(m: re.Match[str]) -> str | None:
    """Read two small numbers and a year: with points the day comes first, else only what has one reading counts."""
    first, second = int(m["a"]), int(m["b"])
    day_first = m["sep"] == "." or first > 12 or first == second
    day, month = (first, second) if day_first else (second, first)
    if not (1 <= month <= 12 and 1 <= day <= 31) or (not day_first and second <= 12):
        return None
    return _iso(m["y"], month, str(day))


def _part_of_year(m: re.Match[str]) -> str | None:
    months = 3 if m["part"].lower().startswith("q") else 6
    number = _ORDINALS[m["number"].lower()]
    return f"{m['y']}-{(number - 1) * months + 1:02}/{m['y']}-{number * months:02}" if number * months <= 12 else None


def _years(m: re.Match[str]) -> str | None:
    """Read `1990-1993`, `1997/98`, and `2003-04` only where a dash or the word season tells that it is no month."""
    start, sep = int(m["y"]), m["sep"]
    if len(m["z"]) == 4:
        end = int(m["z"])
        return f"{start}/{end}" if 1600 <= start < end and (sep != "/" or end == start + 1) else None
    end = start - start % 100 + int(m["z"])
    end += 100 if end == start - start % 100 and end < start else 0  # 1999-00
    if sep == "-" and 1 <= int(m["z"]) <= 12 and m["season"] is None:
        numbered = _NUMBERED.search(m.string, max(0, m.start() - 8), m.start())
        return None if end > start or numbered else f"{start}-{m['z']}"
    return f"{start}/{end}" if start < end <= start + (1 if sep == "/" else 50) else None


_NUMBERED: Final = re.compile(r"(?:ASU|Nos?\.|Rule|Topic|Update|Form|Note|Item) \Z")
_Reader = Callable[[re.Match[str]], str | None]
_FORMS: Final[list[tuple[re.Pattern[str], _Reader]]] = [
    (re.compile(pattern), reader)
    for pattern, reader in (  # the longer forms first
        (
            rf"(?P<d>{_day}){_of}(?P<m>{_month}){_to}(?P<e>{_day}){_of}(?P<n>{_month}){_comma}(?P<y>{_year}){_last}",
            _days,
        ),
        (
            rf"(?P<m>{_month}){_gap}(?P<d>{_day}){_to}(?P<n>{_month}){_gap}(?P<e>{_day}){_comma}(?P<y>{_year}){_last}",
            _days,
        ),
        (rf"(?P<d>{_day}){_to}(?P<e>{_day}){_of}(?P<m>{_month}){_comma}(?P<y>{_year}){_last}", _days),
        (rf"(?P<m>{_month}){_gap}(?P<d>{_day}){_to}(?P<e>{_day}){_comma}(?P<y>{_year}){_last}", _days),
        (rf"(?P<d>{_day}){_of}(?P<m>{_month}){_comma}(?P<y>{_year}){_last}", _date),
        (rf"(?P<m>{_month}){_gap}(?P<d>{_day}){_comma}(?P<y>{_year}){_last}", _date),
        (
            rf"(?P<y>{_year})(?P<sep>[-/])(?P<b>0[1-9]|1[0-2])(?P=sep)(?P<a>[0-9][0-9])(?![0-9]|[-/.][0-9])",
            lambda m: _iso(m["y"], int(m["b"]), m["a"]),
        ),
        (rf"(?P<a>[0-9]{{1,2}})(?P<sep>[-/.])(?P<b>[0-9]{{1,2}})(?P=sep)(?P<y>{_year})(?!\w|[-/.][0-9])", _figures),
        (rf"(?P<m>{_month}){_to}(?P<n>{_month}){_comma}(?P<y>{_year}){_last}", _months),
        (rf"(?P<m>{_month}){_of}(?P<y>{_year}){_last}", _date),
        (rf"(?P<part>[QH])(?P<number>[1-4]){_of}(?P<y>{_year}){_last}", _part_of_year),
        (rf"(?P<y>{_year})[ -]?(?P<part>[QH])(?P<number>[1-4])(?!\w)", _part_of_year),
        (
            rf"(?P<number>(?i:first|second|third|fourth)){_gap}(?P<part>quarter|half){_of}(?P<y>{_year}){_last}",
            _part_of_year,
        ),
        (
            rf"(?P<y>{_year}) ?(?P<sep>[-/\u2013\u2014]) ?(?P<z>{_year}|[0-9][0-9])(?!\w|[.,/-][0-9]|[\u2013\u2014])"
            r"(?P<season>(?= (?:season|campaign)))?",
            _years,
        ),
        (r"(?P<y>(?:1[0-9]|20)[0-9]0)['\u2019]?s(?!\w)", lambda m: f"{m['y']}/{m['y'][:3]}9"),
    )
]
_ANCHOR: Final = re.compile(
    rf"(?<![\w.,/#$-])(?:[0-9]{{4}}(?![0-9])|[0-9]{{1,2}}(?![0-9])(?=[./-][0-9]|(?:st|nd|rd|th)?(?:{_of}[JFMASOND]|{_to}[0-9]))"
    rf"|{_month}|[QH][1-4](?!\w)|(?i:first|second|third|fourth)(?= (?:quarter|half)))"
)
_BARE: Final = re.compile(_year)


def find_dates(text: str, start: int = 0, end: int | None = None, *, table: bool = False) -> list[Amount]:
    """Return every date in `text[start:end]` whose year stands there, in order, with offsets into `text`.

    Spans of time are ISO intervals, `start/end`, both included. A bare year counts where what stands around it makes it
    one; with `table`, also where a cell holds it alone. 03/04/2021, which has two readings, is left out.
    """
    end = len(text) if end is None else end
    found: list[Amount] = []
    position = start
    while (anchor := _ANCHOR.search(text, position, end)) is not None:
        date = _read(text, anchor.start(), end)
        if date is None and _BARE.fullmatch(anchor.group()):
            after_date = bool(found) and may_follow(text, found[-1].end, anchor.start())
            if is_year(text, anchor.start(), anchor.end(), start, end, after_date=after_date, table=table):
                date = Amount(anchor.start(), anchor.end(), {"iso": anchor.group()})
        if date is not None:
            found.append(date)
        position = date.end if date is not None else anchor.end()
    return found


def _read(text: str, start: int, end: int) -> Amount | None:
    for form, reader in _FORMS:
        match = form.match(text, start, end)
        iso = reader(match) if match is not None else None
        if match is not None and iso is not None:
            return Amount(match.start(), match.end(), {"iso": iso})
    return None
