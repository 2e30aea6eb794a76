"""Short names that a text gives a meaning to: `Nevada State Bank ("NSB")`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.ballots import Name
from tidegate.services.recognisers.clues import is_common
from tidegate.services.recognisers.names import words

_Owner = TypeVar("_Owner")

_ALIAS: Final = re.compile(
    r",? \((?:[^()\n]{0,30}[ ,])?(?:the )?(?P<quote>[\"\u201c\u2018'])?(?:the )?"
    r"(?P<alias>[^\W\d_][\w&.-]*(?: [A-Z][\w&-]*){0,2}?),?[\"\u201d\u2019']?(?:\)| or [\"\u201c\u2018'])"
)


def find_aliases(owners: Iterable[tuple[Name, _Owner]], text: str, common: frozenset[str]) -> dict[str, _Owner]:
    """Return the short names that stand in brackets behind a name, and whose they are.

    In quotes any name counts, without them the first letters of the name only. What is given to two things is left out.
    """
    longest: dict[int, tuple[int, Name, _Owner]] = {}
    for name, owner in owners:
        for start, end in name.spans:
            if end not in longest or start < longest[end][0]:
                longest[end] = start, name, owner
    found: dict[str, _Owner] = {}
    twice: set[str] = set()
    for end, (_, name, owner) in sorted(longest.items(), key=lambda item: item[0]):
        match = _ALIAS.match(text, end, end + 100)
        if match is None or not _is_alias(match["alias"], name.text, quoted=match["quote"] is not None, common=common):
            continue
        if found.setdefault(match["alias"], owner) is not owner:
            twice.add(match["alias"])
    return {alias: owner for alias, owner in found.items() if alias not in twice}


def _is_alias(alias: str, name: str, *, quoted: bool, common: frozenset[str]) -> bool:
    parts = words(alias)
    if not parts or not alias[0].isupper() or parts[-1] in lexicon.OTHER | lexicon.FUNCTION:
        return False
    if all(part in lexicon.NEVER_ALONE or is_common(part, common) for part in parts):
        return False
    return quoted or (alias.isupper() and _are_initials(parts[0], words(name)))


def _are_initials(letters: str, parts: tuple[str, ...]) -> bool:
    """Say whether the letters are first letters of the words in order, those of small words left out or not."""
    initials = iter(part[0] for part in parts if part)
    return len(letters) > 1 and all(letter in initials for letter in letters)
