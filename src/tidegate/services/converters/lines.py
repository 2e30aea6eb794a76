"""What a line of text is by its look: a heading, the start of a list item, the end of a sentence, a row of figures."""

from __future__ import annotations

import re
from collections.abc import Iterable

SOFT_HYPHEN = "\ue0cd"
"""A private character that stands for a hyphen which is there since the line broke."""

_REFERENCES = re.compile(r"(?:\[\w{1,4}\]|[\"'”’»)\]]|\s)+$")
_CONTINUES = re.compile(r"(?:[\"'“‘(]?[a-zß-öø-ÿ]|\[\w{1,4}\]|[(,;:.!?)\]%])")
_MARKER = re.compile(
    r"(?P<bullet>[•◦▪▸►●○■□‣⁃·*+–—-])\s+(?=\S)|\(?(?P<count>\d{1,3}|[a-z]|[ivx]{1,5})[.)]\s+(?=\S)"
    r"|\d{1,2}(?:\.\d{1,2}){1,3}[:)]\s+(?=\S)"
)
_NUMBERED_TITLE = re.compile(
    r"(?:(?:chapter|part|section|item|note|article|appendix|annex|schedule)\s+)?"
    r"(?:\d{1,3}(?:\.\d{1,3}){0,4}[a-z]?|[ivxlc]{1,6}|[a-z])[.:)]?\s+",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"https?:|www\.|\S@\S|\.(?:com|org|net|html?)\b|\b[A-Z]{2} \d{5}\b")
_DATE = re.compile(
    r"(?:\w+,?\s+)?(?:\d{1,2}(?:st|nd|rd|th)?\s+)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+[\d,\s]+$"
    r"|[\W\d]+$",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"[a-zß-ÿ]{3}[)\]\"”]?[.?!] +[A-Z\d]|:\s+\W?\d")
_CAPTION = re.compile(
    r"(?:fig(?:ure|\.)?|table|exhibit|chart|map|plate|photo)\s*\d+[.:–-]?\s|(?:sources?|photo|caption)\s*:",
    re.IGNORECASE,
)
_SMALL_WORDS = frozenset(
    "a an and as at by de der des di du for from in into la le of on or over per the to under via vs with und y".split()
)
_JOINING_WORDS = frozenset(
    "a an and are as at but by for from had has have he her his if in into is its nor of on or our she that the their"
    " they this to was we were where which while who with your".split()
)
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv")
_HYPHENS = ("-", "‐", SOFT_HYPHEN)
_LAST_WORD = re.compile(r"(\w+(?:-\w+)*)[-‐\ue0cd]$")
_FIRST_WORD = re.compile(r"\w+")
_FIGURE = re.compile(r"\d")


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends here, footnote marks and closing quotes aside."""
    tail = _REFERENCES.sub("", text[-80:]) or text[-1:]
    return tail.endswith((".", "!", "?", "…", ":", ";")) or text.endswith((".", "!", "?"))


def continues(text: str) -> bool:
    """Whether this must go on from the line before: small first letter, a footnote mark, punctuation."""
    return bool(_CONTINUES.match(text))


def breaks_off(text: str) -> bool:
    """Whether the last word is one that no heading, row or sentence ends with (`by the`, `and`)."""
    return text.rpartition(" ")[2] in _JOINING_WORDS


def marker(text: str) -> re.Match[str] | None:
    """Match what a list item begins with: a bullet, `1.`, `(a)`, `iv)`, `2.3:`."""
    return _MARKER.match(text)


def unmarked(text: str) -> str:
    """Drop the bullet that a list item begins with; a number stays, since the text may refer to it."""
    found = _MARKER.match(text)
    return text[found.end() :] if found and found["bullet"] else text


def ordinals(found: re.Match[str]) -> set[int]:
    """Return the places in a list that a marker can stand for: `i)` is the first in Roman, the ninth in letters."""
    count = found["count"]
    if not count:
        return set()
    if count.isdigit():
        return {int(count)}
    places = {ord(count) - ord("a") + 1} if len(count) == 1 else set[int]()
    return places | ({_ROMAN.index(count) + 1} if count in _ROMAN else set())


def is_caption(text: str) -> bool:
    """Whether this is the line under a figure or a table."""
    return len(text) <= 400 and bool(_CAPTION.match(text))


def is_heading(text: str) -> bool:
    """Whether this line, standing alone, reads like a heading.

    Short, no sentence, and its words capitalised as in a title; a few words in small letters pass after a capital
    (`Early life`). Dates, addresses and lines of figures are none.
    """
    if not 2 <= len(text) <= 120 or "\n" in text or _DATE.match(text):
        return False
    if _ADDRESS.search(text) or _SENTENCES.search(text):
        return False
    title = _NUMBERED_TITLE.sub("", text, count=1).lstrip("–—-: ") if text[-1:] != "." else text
    if title[-1:] in ".,;:!…" or (not title[:1].isupper() and title[:1] not in "\"“‘'"):
        return False
    words: list[str] = re.findall(r"[^\W\d_][\w'’.&-]*", title)
    if not words or len(words) > 14:
        return False
    weighty = [word for word in words if word.casefold() not in _SMALL_WORDS]
    capitalised = sum(word[0].isupper() for word in weighty)
    return capitalised >= 0.7 * len(weighty) or (len(words) <= 4 and len(title) <= 40)


def is_row(text: str) -> bool:
    """Whether this line could be a row of a table or an infobox: it has figures or cells, and is no sentence."""
    return bool(" | " in text or (_FIGURE.search(text) and len(text) <= 90)) and not ends_sentence(text)


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, for `unwrap`; of a very long one, those of its first two million characters."""
    return frozenset(re.findall(r"\w+(?:-\w+)*", text[:2_000_000].casefold()))


def unwrap(lines: Iterable[str], words: frozenset[str] = frozenset()) -> str:
    """Join the lines of one paragraph.

    A hyphen at the end of a line stays, unless the word occurs without it among the document's `words`. A line that
    ends in `SOFT_HYPHEN` was hyphenated by a typesetter; there the hyphen goes, unless a compound is likelier.
    """
    parts: list[str] = []
    for line in lines:
        if parts:
            parts[-1], gap = seam(parts[-1], line, words)
            parts.append(gap)
        parts.append(line)
    return "".join(parts)


def seam(first: str, second: str, words: frozenset[str]) -> tuple[str, str]:
    """Return the first line as it shall end, and what to put between."""
    if not first.endswith(_HYPHENS):
        return first, "" if first.endswith(("—", "/")) else " "
    left, right = _LAST_WORD.search(first[-60:]), _FIRST_WORD.match(second)
    if not left or not right:
        return first, " "
    before, after = left[1].casefold(), right[0].casefold()
    if (before + after) in words or (before + after).removesuffix("s") in words:
        return first[:-1], ""
    compound = (
        "-" in before or f"{before}-{after}" in words or (len(before) >= 4 and len(after) >= 5 and before in words)
    )
    return (first[:-1] if first.endswith(SOFT_HYPHEN) and not compound else first), ""
