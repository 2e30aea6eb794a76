"""Which characters a text may hold once it is stored: no control characters, one kind of space, NFC."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SLICE = 1 << 18
"""Characters cleaned in one go: a regex holds the interpreter's lock, and with it the event loop, for that long."""

_ASCII_BREAKS = bytes.maketrans(b"\r\x0b\x0c\x1c\x1d\x1e", b"\n\n\n\n\n\n")
_ASCII_UNSEEN = bytes([*range(9), *range(14, 28), 31, 127])
_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Control characters, soft hyphens, what turns the reading direction around, zero-width spaces, byte order marks,
# noncharacters, and the invisible tag characters that can carry text which only a model sees.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffc\ufffe\uffff\U000e0000-\U000e007f]+"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_SYMBOL_BULLETS = re.compile("[\uf0a7\uf0a8\uf0b7\uf0d8\uf076]")
_OTHER_SPACES = re.compile(r"[^\S\n ]")
_LONG_MARKS = re.compile(r"[^\w\s\x00-\u02ff]{31,}")


def slices(text: str) -> Iterator[str]:
    """Cut the text, if it is long, before an ASCII character, which depends on none before it."""
    start = 0
    while len(text) - start > _SLICE:
        end = start + _SLICE
        while end < len(text) and (text[end] == "\n" or not text[end].isascii()) and end < start + 2 * _SLICE:
            end += 1
        yield text[start:end]
        start = end
    yield text[start:]


def clean(text: str) -> str:
    """Return the text without unseen characters, its line breaks all `\\n`, in NFC; spaces stay as they are."""
    if text.isascii():
        data = text.encode("ascii").replace(b"\r\n", b"\n").translate(_ASCII_BREAKS, _ASCII_UNSEEN)
        return data.decode("ascii")
    return "".join(map(_clean, slices(text)))


def spaced(text: str) -> str:
    """Make every run of spaces one space, line by line."""
    if not text.isascii() or "\t" in text:
        text = "".join(_OTHER_SPACES.sub(" ", part) for part in slices(text))
    while "  " in text:
        text = text.replace("  ", " ")
    return text


def tidy(text: str) -> str:
    """Clean prose or table rows: runs of spaces become one space, and blank lines go, so that a block holds none."""
    lines = (line.strip() for line in spaced(clean(text)).split("\n"))
    return "\n".join(line for line in lines if line)


def tidy_code(text: str) -> str:
    """Clean program text: as `tidy`, but with its indentation."""
    lines = (line.rstrip() for line in clean(text).expandtabs(4).split("\n"))
    return "\n".join(line for line in lines if line)


def one_line(text: str) -> str:
    """Clean a title or a table cell, which is one line."""
    return " ".join(tidy(text).split("\n"))


def _clean(text: str) -> str:
    text = _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))
    text = _SYMBOL_BULLETS.sub("\u2022", _SURROGATES.sub("\ufffd", text))
    return unicodedata.normalize("NFC", _LONG_MARKS.sub(_stream_safe, text))


def _stream_safe(found: re.Match[str]) -> str:
    """Keep 30 combining marks in a row (UAX #15, Stream-Safe Text): normalising n of them takes n² steps."""
    kept: list[str] = []
    marks = 0
    for character in found[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= 30:
            kept.append(character)
    return "".join(kept)
