"""Which characters a text may hold once it is stored: no control characters, one kind of space, NFC."""

from __future__ import annotations

import re
import unicodedata

_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Control characters, soft hyphens, what turns the reading direction around, zero-width spaces, byte order marks,
# noncharacters, and the invisible tag characters that can carry text which only a model sees.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffc\ufffe\uffff\U000e0000-\U000e007f]+"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_SYMBOL_BULLETS = re.compile("[\uf0a7\uf0a8\uf0b7\uf0d8\uf076]")
_SPACES = re.compile(r"[^\S\n]+")
_LONG_MARKS = re.compile(r"[^\w\s\x00-\u02ff]{31,}")


def clean(text: str) -> str:
    """Return the text without unseen characters, its line breaks all `\\n`, in NFC; spaces stay as they are."""
    if text.isascii():
        return _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))
    text = _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))
    text = _SYMBOL_BULLETS.sub("\u2022", _SURROGATES.sub("\ufffd", text))
    return unicodedata.normalize("NFC", _LONG_MARKS.sub(_stream_safe, text))


def tidy(text: str) -> str:
    """Clean prose or table rows: runs of spaces become one space, and blank lines go, so that a block holds none."""
    lines = (line.strip() for line in _SPACES.sub(" ", clean(text)).split("\n"))
    return "\n".join(line for line in lines if line)


def tidy_code(text: str) -> str:
    """Clean program text: as `tidy`, but with its indentation."""
    lines = (line.rstrip() for line in clean(text).expandtabs(4).split("\n"))
    return "\n".join(line for line in lines if line)


def one_line(text: str) -> str:
    """Clean a title or a table cell, which is one line."""
    return " ".join(tidy(text).split("\n"))


def _stream_safe(found: re.Match[str]) -> str:
    """Keep 30 combining marks in a row (UAX #15, Stream-Safe Text): normalising n of them takes n² steps."""
    kept: list[str] = []
    marks = 0
    for character in found[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= 30:
            kept.append(character)
    return "".join(kept)
