"""Words for counting and comparing: stems, stop words, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from tidegate.services.summarizers.english import NUMERALS, STOP_WORDS

_TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+(?:[.,]\d+)*")
# Scripts written without spaces: Thai to Khmer, then Chinese, Japanese and what they share. Their runs become pairs.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def tokens(text: str) -> list[str]:
    """Return words and numbers as they are written; of a script without spaces, overlapping pairs of characters."""
    found: list[str] = _TOKEN.findall(text)
    if text.isascii() or not _UNSPACED.search(text):
        return found
    return [part for token in found for part in _parts(token)]


def terms(text: str) -> list[str]:
    """Return the stems of the words that carry meaning, in order; numbers are left out."""
    return stems(tokens(text))


def stems(words: Iterable[str]) -> list[str]:
    """Return the stems of those of the words that carry meaning."""
    return [stem(word) for word in words if not word[0].isdigit() and is_content(word)]


def _parts(token: str) -> Iterator[str]:
    if _UNSPACED.search(token):
        yield from (token[at : at + 2] for at in range(max(1, len(token) - 1)))
    else:
        yield token


def is_content(token: str) -> bool:
    """Say whether a word carries meaning, rather than holding others together."""
    return len(token) > 1 and token.casefold().replace("\u2019", "'") not in STOP_WORDS


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Fold a word so that its commonest English forms meet: `signed`, `signs`, `signing`."""
    word = word.casefold().replace("\u2019", "'").removesuffix("'s").replace("'", "")
    if not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def number(token: str) -> Decimal | None:
    """Return the value of a number in digits or, up to ninety, in one English word; None for any other token."""
    if not token[0].isdigit():
        return Decimal(NUMERALS[token.casefold()]) if token.casefold() in NUMERALS else None
    try:
        return Decimal(token.replace(",", ""))
    except InvalidOperation:  # digits of a date such as 1.2.2003, or of a script that Decimal does not read
        return None
