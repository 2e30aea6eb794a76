"""Sums of money, by rule: every number with a currency beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal
from typing import NamedTuple

from tidegate.services.recognisers.currencies import CODES, DOLLARS, HUNDREDTHS, NAMES, SCALES, SYMBOLS
from tidegate.services.recognisers.sightings import Amount

_EXACT = Context(prec=80)  # digits: more than any number here has, with its scale

LONGEST_NUMBER = 40
"""Characters in the longest run of digits that is read as a number."""


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))


_symbol = f"[{re.escape(''.join(SYMBOLS))}]"
_code = f"(?:{_any(CODES)})"
_spaced = "[0-9]{1,3}(?: [0-9]{3}){1,4}(?:,[0-9]{1,2})?"  # one number only beside a currency that is written so
_RUN = re.compile(
    rf"(?<![0-9.,]){_spaced}(?= ?(?:€|₽|EUR|PLN|CZK|SEK|NOK|DKK|RUB)(?!\w))"
    rf"|(?:(?<=[€₽])|(?<=[€₽] )|(?<=(?:EUR|PLN|CZK|SEK|NOK|DKK|RUB|CHF|ZAR) )){_spaced}(?![0-9])"
    r"|(?:(?<![\w.])\.)?[0-9][0-9.,'\u2019]*"
)
_MARKED = re.compile(rf"(?:{_symbol}|[A-Z])[ (|\u2212-]{{0,5}}\Z")  # a quick look whether it is worth another
_PREFIX = re.compile(
    rf"(?P<minus>(?<![\w)])[-\u2212])?"
    rf"(?:(?<![\w$])(?P<country>{_any(DOLLARS)}) ?\$|(?<![\w$])(?P<symbol>{_symbol})|(?<!\w)(?P<code>{_code}))"
    rf" ?(?P<cell>\| ?)?(?P<negative>[-\u2212])?(?P<open>\()?\Z"
)
_SCALE = re.compile(
    r"(?:[ -]?(?P<word>thousand|million|billion|trillion)| ?(?P<short>bn|mn|mm|tn)|(?P<letter>[kmb]))(?!\w)",
    re.IGNORECASE,
)
_SUFFIX = re.compile(
    rf" ?(?:(?P<symbol>{_symbol})|(?P<code>{_code})(?!\w))(?! ?[0-9])"
    rf"|[ -](?P<name>(?i:{_any(NAMES)}))s?(?: (?P<sterling>sterling))?(?!\w)"
)
_BETWEEN = re.compile(r" ?(?P<dash>[-\u2013\u2014]) ?| (?P<word>to|and) ")
_COUNTS = {
    "half a": "0.5",
    "a": "1",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "twelve": "12",
    "fifteen": "15",
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
}
_WORDED = re.compile(
    rf"(?<!\w)(?P<count>(?i:{_any(_COUNTS)})) (?:(?P<scale>hundred|thousand|million|billion|trillion) )?"
    rf"(?P<name>(?i:{_any(NAMES)}))s?(?!\w)"
)

_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
_SPACED = re.compile(r"[0-9]{1,3}(?:['\u2019 ][0-9]{3})+(?:[.,][0-9]{1,2})?")
_POINTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,2}|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_COMMA = re.compile(r"[0-9]+,[0-9]{1,2}")
_PLAIN = re.compile(r"[0-9]*\.[0-9]+|[0-9]+")


class _Number(NamedTuple):
    """A number and what stands around it; `text[start:end]` is all of that."""

    start: int
    end: int
    value: Decimal
    scale: int
    currency: str | None
    prefixed: bool


def find_money(text: str, start: int = 0, end: int | None = None) -> list[Amount]:
    """Return every sum of money in `text[start:end]`, in order, with offsets into `text`.

    The amount is what stands there: a scale that is set elsewhere ("in thousands") is not applied. A dollar sign alone,
    and cents, are taken for US ones. A range gives both its ends, and one's currency and scale hold for the other.
    """
    end = len(text) if end is None else end
    numbers = [number for run in _RUN.finditer(text, start, end) if (number := _read(text, run, start)) is not None]
    found = [
        _amount(n.start, n.end, n.value.scaleb(n.scale, context=_EXACT), n.currency)
        for n in _share(text, numbers)
        if n.currency
    ]
    worded = [amount for match in _WORDED.finditer(text, start, end) if (amount := _worded(match)) is not None]
    return sorted(found + worded)


def _read(text: str, run: re.Match[str], floor: int) -> _Number | None:
    """Read one run of digits with what stands before and after it; None where it is no number that money can have."""
    raw = run.group().rstrip(".,'\u2019")
    first, last = run.start(), run.start() + len(raw)
    if len(raw) > LONGEST_NUMBER:
        return None
    before = _MARKED.search(text, max(floor, first - 6), first)
    before = before and _PREFIX.search(text, max(floor, first - 12), first)
    if before is None and first > floor and (text[first - 1].isalpha() or text[first - 1] == "_"):
        return None
    closed = before is not None and before["open"] is not None and text.startswith(")", last)
    if before is not None and before["open"] and not closed and not before["cell"]:
        before = None  # in "$(12 more" the bracket is no minus sign; a table may keep its own ")" in the next cell
    scale = _SCALE.match(text, last + closed, run.endpos)
    stop = scale.end() if scale else last + closed
    power = SCALES[(scale["word"] or scale["short"] or scale["letter"]).lower()] if scale else 0
    after = _SUFFIX.match(text, stop, run.endpos)
    currency, hundredth = _currency(before, after, power)
    value = _parse(raw, points_group=before is None and after is not None and after["symbol"] == "€")
    if value is None or (stop == last and after is None and text[last : last + 1].isalpha()):
        return None
    if before is not None and (before["minus"] or before["negative"] or before["open"]):
        value = value.copy_negate()
    begin = first if before is None or before["cell"] else before.start()
    named = after is not None and currency is not None and (before is None or not after["symbol"])
    return _Number(
        start=begin,
        end=after.end() if after is not None and named else stop,
        value=value.scaleb(-2) if hundredth else value,
        scale=power,
        currency=currency,
        prefixed=before is not None,
    )


def _currency(before: re.Match[str] | None, after: re.Match[str] | None, power: int) -> tuple[str | None, bool]:
    """Return the ISO code, and whether the number counts hundredths. What follows the number is the more exact."""
    if after is not None and after["code"]:
        return after["code"], False
    if before is not None:
        if before["country"]:
            return DOLLARS[before["country"]], False
        return before["code"] or SYMBOLS[before["symbol"]], before["symbol"] == "¢"
    if after is None:
        return None, False
    if after["symbol"]:
        return SYMBOLS[after["symbol"]], after["symbol"] in HUNDREDTHS
    return _named(after["name"], sterling=after["sterling"] is not None, power=power)


def _named(name: str, *, sterling: bool, power: int) -> tuple[str | None, bool]:
    name = name.lower()
    if name == "pound" and not sterling and power < 6:
        return None, False  # may as well be a weight
    return NAMES[name], name in HUNDREDTHS


def _share(text: str, numbers: list[_Number]) -> Iterator[_Number]:
    """Let the two ends of a range have the currency and the scale of either: "$5-7 million", "10 to 15 euros"."""
    pending: _Number | None = None
    for number in numbers:
        if pending is None:
            pending = number
            continue
        low, high = pending, number
        link = _BETWEEN.fullmatch(text, low.end, high.start)
        if link is not None and low.value < high.value and _is_range(text, low, link):
            if low.scale == 0:
                low = low._replace(scale=high.scale)
            if low.currency is None and not high.prefixed:
                low = low._replace(currency=high.currency)
            if high.currency is None:
                high = high._replace(currency=low.currency)
        yield low
        pending = high
    if pending is not None:
        yield pending


def _is_range(text: str, low: _Number, link: re.Match[str]) -> bool:
    if link["word"] == "and":
        return text.endswith(("between ", "Between "), 0, low.start)
    return True


def _worded(match: re.Match[str]) -> Amount | None:
    count, power = match["count"].lower(), SCALES[match["scale"]] if match["scale"] else 0
    currency, hundredth = _named(match["name"], sterling=False, power=power)
    if currency is None or (count == "a" and not power):
        return None  # "a dollar store", "a euro zone": no sum
    value = Decimal(_COUNTS[count]).scaleb(power, context=_EXACT)
    return _amount(match.start(), match.end(), value.scaleb(-2) if hundredth else value, currency)


def _parse(raw: str, *, points_group: bool) -> Decimal | None:
    """Read a number as English or continental Europe writes it; `points_group`: a point before three digits groups."""
    if _GROUPED.fullmatch(raw):
        return Decimal(raw.replace(",", ""))
    if _PLAIN.fullmatch(raw):
        grouped = points_group and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", raw)
        return Decimal(raw.replace(".", "") if grouped else raw)
    if _POINTED.fullmatch(raw):
        return Decimal(raw.replace(".", "").replace(",", "."))
    if _COMMA.fullmatch(raw):
        return Decimal(raw.replace(",", "."))
    if _SPACED.fullmatch(raw):
        return Decimal(re.sub(r"[^0-9.,]", "", raw).replace(",", "."))
    return None


def _amount(start: int, end: int, value: Decimal, currency: str) -> Amount:
    value = _EXACT.normalize(value)  # one writing for each value, since it identifies the sum
    if value.as_tuple().exponent == -1:
        value = value.quantize(Decimal("0.01"), context=_EXACT)
    return Amount(start, end, {"amount": format(value, "f"), "currency": currency})
