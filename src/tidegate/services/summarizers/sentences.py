"""Where sentences begin and end."""
# ruff: noqa: RUF001 - quotation marks and full stops of other scripts are meant

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.services.summarizers.english import ABBREVIATIONS, BEFORE_NUMBER, NUMBERED, STARTERS, TITLES
from tidegate.state import Block, BlockKind, Document

_LONGEST = 1_000  # characters; a longer run without an end is cut at white space, so that no passage is unbounded
_INDENT = 8  # characters of white space that a line may begin with
_ASIDE = 400  # characters within which a bracket or quotation holds its sentences together

# A run of stops begins where no stop precedes it: the pattern is tried once a run, so the scan stays linear.
_STOP = re.compile(
    r"""(?<![.!?…])(?P<stop>[.!?…]++|[।॥؟۔։።]++|(?P<wide>[。！？｡]++))
        (?P<close>["'”’»›)\]}）」』]*+)
        (?P<marks>(?:[ \n]?\[[^\[\]\s]{1,6}\]|[*†‡/¹²³⁴-⁹])*+)  # of references: end.[12] Next
        (?P<gap>\s++|\Z|(?(wide)|(?!)))
      | (?P<break>\n)
    """,
    re.VERBOSE,
)
_OPENING = "\"'“‘«‹([{¿¡（「『—–-*•"  # may stand before the first letter of a sentence
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\Z")
_ORDINAL = re.compile(r"(?:\d{1,3}|[ivxlc]{1,6})\Z", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence of prose, or a line of anything else: `document.text[start:end]`.

    `block` is the index of its block; `whole` is False for a part of a run that was too long to be one passage.
    """

    start: int
    end: int
    block: int
    kind: BlockKind
    whole: bool = True


def passages(document: Document) -> list[Passage]:
    """Return all passages of a document, in order."""
    found: list[Passage] = []
    for index, block in enumerate(document.blocks):
        for start, end in _parts(document.text, block):
            pieces = list(_pieces(document.text, start, end))
            found.extend(Passage(*piece, index, block.kind, whole=len(pieces) == 1) for piece in pieces)
    return found


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield where the sentences of `text[start:end]`, which is one paragraph, begin and end.

    White space and the marks of references after a sentence belong to none.
    """
    end = len(text) if end is None else end
    begin = start
    for match in _STOP.finditer(text, start, end):
        if match.start() < begin:
            continue
        if match["break"] is not None:
            if _goes_on(text, match.end(), end):
                continue
            stop, after = match.start(), match.end()
        else:
            stop, after = match.end("close"), match.end()
            if after < end and not _is_end(text, begin, match, end):
                continue
        if (span := _trimmed(text, begin, stop)) is not None:
            yield span
        begin = after
    if (span := _trimmed(text, begin, end)) is not None:
        yield span


def _parts(text: str, block: Block) -> Iterator[tuple[int, int]]:
    if block.kind in ("paragraph", "list_item"):
        yield from sentences(text, block.start, block.end)
        return
    begin = block.start
    while begin < block.end:
        stop = text.find("\n", begin, block.end)
        stop = block.end if stop < 0 else stop
        if (span := _trimmed(text, begin, stop)) is not None:
            yield span
        begin = stop + 1


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > _LONGEST:
        space = text.rfind(" ", start + 1, start + _LONGEST)
        stop = space if space > 0 else start + _LONGEST
        if (span := _trimmed(text, start, stop)) is not None:
            yield span
        start = stop
    if (span := _trimmed(text, start, end)) is not None:
        yield span


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _goes_on(text: str, at: int, end: int) -> bool:
    """Say whether the text after a line break continues the sentence before it."""
    last = min(at + _INDENT, end)
    while at < last and text[at] in " \t":
        at += 1
    return at < end and (text[at].islower() or text[at] in ",;:)]%&")


def _is_end(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    following = _first_letter(text, match.end(), end)
    if following < end and text[following].islower():
        return False
    if match["stop"] == "." and not _full_stop(text, begin, match.start(), following, end):
        return False
    return not _is_aside(text, begin, match.end("close"))


def _is_aside(text: str, begin: int, stop: int) -> bool:
    """Say whether a bracket or a quotation that began in this sentence is still open."""
    if stop - begin > _ASIDE:
        return False
    opened = text.count("(", begin, stop) + text.count("“", begin, stop)
    closed = text.count(")", begin, stop) + text.count("”", begin, stop)
    return opened > closed or text.count('"', begin, stop) % 2 == 1


def _full_stop(text: str, begin: int, at: int, following: int, end: int) -> bool:
    """Say whether the full stop at `at` ends a sentence, rather than an abbreviation, an initial or a number."""
    word, before = _last_words(text, begin, at)
    folded = word.casefold()
    if folded in TITLES or (_ORDINAL.match(word) and at - len(word) == begin):
        return False
    if folded in BEFORE_NUMBER and word not in ("P", "C"):  # J. P. Morgan is no page
        return following >= end or not text[following].isdigit()
    if folded in ABBREVIATIONS or _INITIALS.match(word) or (word.isdigit() and before.casefold() in NUMBERED):
        next_word = _WORD.match(text, following, end)
        return next_word is not None and next_word[0].casefold() in STARTERS
    return True


def _last_words(text: str, begin: int, at: int) -> tuple[str, str]:
    """Return the word that ends at `at` and the one before it; a word longer than 40 characters is no abbreviation."""
    words = text[max(begin, at - 40) : at].split()
    word = words[-1].lstrip(_OPENING) if words else ""
    return word, words[-2] if len(words) > 1 else ""


def _first_letter(text: str, at: int, end: int) -> int:
    last = min(at + 6, end)
    while at < last and (text[at] in _OPENING or text[at].isspace()):
        at += 1
    return at
