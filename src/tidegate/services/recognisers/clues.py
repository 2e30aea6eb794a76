"""What the words of a name, and those beside it, say it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.given_names import GIVEN_NAMES
from tidegate.services.recognisers.names import plain, words
from tidegate.services.recognisers.places import is_place, standing

Kind: TypeAlias = Literal["PERSON", "ORG", "LOC", "OTHER"]
Clue: TypeAlias = tuple[Kind, float]
"""A kind and a weight. PROOF and more outweighs whatever a model says; a model that is certain weighs 4 to 5."""

PROOF: Final = 6.0
FIRM: Final = 4.5
LIKELY: Final = 3.0
FAINT: Final = 1.0

_COURTESY_BEFORE: Final = re.compile(r"(?<!\w)(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Messrs)\.? \Z")
_SPEAKS: Final = (
    r"(?:said|says|replied|asked|told|answered|wrote|added|explained|recalled|joked|cried|whispered|shouted)(?!\w)"
)
_SPEAKER_BEFORE: Final = re.compile(rf"(?<!\w){_SPEAKS} \Z")
_SPEAKER_AFTER: Final = re.compile(rf" {_SPEAKS}")
_BORN_AFTER: Final = re.compile(r" (?:\((?:born|b\.|n\u00e9e|aged?)(?!\w)|was born(?!\w))")
_KIN_BEFORE: Final = re.compile(
    r"(?<!\w)(?i:husband|wife|sons?|daughters?|brothers?|sisters?|(?:grand)?(?:father|mother)|uncle|aunt),? \Z"
)
_JOB_BEFORE: Final = re.compile(rf"(?<![\w'\u2019])(?:{'|'.join(sorted(lexicon.JOBS))}) \Z")
_WHO_AFTER: Final = re.compile(r",? (?:who|whose|whom)(?!\w)|, (?:age )?\d{2},")
_OFFICE_AFTER: Final = re.compile(
    r", (?:(?:the|its|his|her|their|an?) )?(?:[a-z-]+ ){0,2}(?:head|director|manager|president"
    r"|chair(?:man|woman|person)?|secretary|spokes(?:man|woman|person)|mayor|minister|professor|editor|founder"
    r"|captain|coach) (?:of|for|at) "
)
_LISTED_BEFORE: Final = re.compile(r"([^\W\d_]\w+),? (?:and|or) \Z")
_IN_BEFORE: Final = re.compile(r"(?<!\w)(?i:in|near|throughout) \Z")
_NEAR_BEFORE: Final = re.compile(
    r"(?<!\w)(?i:in|near|to|from|at|between|across|as far as|into|left|off|outside|reached|through|towards?|via"
    r"|visited) \Z"
)
_LIVES_BEFORE: Final = re.compile(
    r"(?<!\w)(?:(?:born|raised|grew up|live|lives|lived|living|resides?|resided|based|headquartered|located|died|moved"
    r"|emigrated|travelled|traveled|arrived|offices?) (?:in|at|near|to)|[Pp]lace of birth:?) \Z"
)
_EXPLAINED_BEFORE: Final = re.compile(r"(\w[\w.'\u2019-]*)(?: of \d{4})?,? \((?:the )?[\"\u201c\u2018']?(?:the )?\Z")
_EXPLAINED_AFTER: Final = re.compile(r",?[\"\u201d\u2019']?\)")
_DETERMINED_BEFORE: Final = re.compile(r"(?<!\w)(?i:this|these|any|such|our|your|each|every|an?) \Z")
_NOUN_AFTER: Final = re.compile(
    r"[.,;:)]|\Z| (?:is|are|was|were|has|have|had|shall|should|must|may|will|can|and|or|to|of|for|in|as|by|that)(?!\w)"
)
_PART_BEFORE: Final = re.compile(r"(?<!\w)(?:in|near|to|from|at|of) ([^\W\d_]\w+), \Z")
_INITIAL: Final = re.compile(
    r"[^\W\d_]\w+(?: [^\W\d_]\.)+ [^\W\d_][\w'\u2019-]+|(?:[^\W\d_]\. ?){1,3} ?[^\W\d_][\w'\u2019-]{2,}"
)
_AREA_AFTER: Final = re.compile(r", ((?:[^\W\d_]\.){2}|[^\W\d_]\w+(?: [A-Z]\w+)?)")


def own(name: str, common: frozenset[str]) -> Iterator[Clue]:
    """Yield what the name says by itself; `common` are the words that the document also writes small."""
    parts = words(name)
    if len(parts) == 1:
        yield from _single(parts[0])
    else:
        yield from _several(name, parts, common)
    known = standing(name)
    if known != "none":
        yield "LOC", {"area": FIRM, "city": LIKELY, "town": FAINT}[known]


def _single(word: str) -> Iterator[Clue]:
    if word in lexicon.PEOPLES:
        yield "OTHER", PROOF + 4
    if word in GIVEN_NAMES:
        yield "PERSON", FIRM - 0.2


def _several(name: str, parts: tuple[str, ...], common: frozenset[str]) -> Iterator[Clue]:
    first, last = parts[0], parts[-1]
    link = next((index for index, part in enumerate(parts) if index and part in ("of", "for")), len(parts))
    head = parts[link - 1]  # Bank of America, Nevada State Bank
    rest = [part for part in parts if part != head and part not in lexicon.FUNCTION]
    telling = any(part not in lexicon.NEVER_ALONE and not is_common(part, common) for part in rest)
    if last in lexicon.CORPORATE and any(part not in lexicon.CORPORATE | lexicon.ORGANISATIONS for part in parts):
        yield "ORG", PROOF + 2
    elif _is_club(name, parts):
        yield "ORG", PROOF
    elif last in lexicon.OTHER or _is_thing(parts, head):
        yield "OTHER", PROOF if last in lexicon.OTHER else FIRM
    elif head in lexicon.ORGANISATIONS or (first in lexicon.ORGANISATIONS and link < len(parts)):
        yield "ORG", FIRM + 1 if telling or link < len(parts) or head not in lexicon.GENERIC_HEADS else FAINT
    elif "&" in name or first in lexicon.CLUB_INITIALS or not lexicon.SCHOOLS.isdisjoint(parts):
        yield "ORG", FIRM
    elif head in lexicon.PLACES or (first in lexicon.PLACE_OPENERS and len(parts) < 5):
        yield "LOC", FIRM if telling else FAINT
    elif _is_person(name, parts):
        yield "PERSON", FIRM


def _is_club(name: str, parts: tuple[str, ...]) -> bool:
    """Say whether it is a club's name: Cambridge United, Norwich City; Kansas City is a place."""
    first, last = parts[0], parts[-1]
    town = last in lexicon.CLUB_TOWNS and standing(first) in ("city", "town")
    return (town or last in lexicon.CLUBS) and len(parts) < 4 and not is_place(name)


def _is_thing(parts: tuple[str, ...], head: str) -> bool:
    """Say whether it is a thing or an office: Storm Ciara, Act of Union, Managing Director, Regulation S-T."""
    numbered = len(parts) == 2 and len(parts[1]) <= 3 and parts[0] in lexicon.OTHER
    office = parts[-1].rpartition("-")[2] in lexicon.ROLES
    return numbered or office or head in lexicon.OTHER or parts[0] in lexicon.OTHER_OPENERS


def _is_person(name: str, parts: tuple[str, ...]) -> bool:
    """Say whether it is a name that people have: Prince Vasili, Anna Scherer, Mark A. Lipparelli."""
    if len(parts[-1]) == 1 or "of" in parts or "and" in parts or standing(name) != "none":
        return False
    ranked = parts[0] in lexicon.RANKS and parts[1] not in lexicon.NEVER_ALONE
    given = parts[0] in GIVEN_NAMES and len(parts) <= 4 and lexicon.NEVER_ALONE.isdisjoint(parts[1:])
    return ranked or given or _INITIAL.fullmatch(name) is not None


def _is_no_name(word: str, *, acronym: bool) -> bool:
    """Say whether what ends in this word is no name, nor its acronym: Indian Gaming Act, deep learning (DL)."""
    return plain(word) in lexicon.OTHER or (acronym and word.islower())


def is_common(word: str, common: frozenset[str]) -> bool:
    """Say whether the document also writes the word small, or each part of it: `Tribal-State`."""
    return all(
        part in common or (part.endswith("s") and part[:-1] in common) or part + "s" in common
        for part in word.split("-")
    )


def beside(text: str, start: int, end: int) -> Iterator[Clue]:
    """Yield what stands beside the name `text[start:end]`."""
    before, after = text[max(0, start - 32) : start], text[end : end + 40]
    if _COURTESY_BEFORE.search(before):
        yield "PERSON", PROOF + 2
    explained = _EXPLAINED_BEFORE.search(before) if _EXPLAINED_AFTER.match(after) else None
    if explained is not None and _is_no_name(explained[1], acronym=text[start:end].isupper()):
        yield "OTHER", PROOF
    if _DETERMINED_BEFORE.search(before) and _NOUN_AFTER.match(after):
        yield "OTHER", FIRM
    if after[:1] in ("\u2122", "\u00ae"):
        yield "OTHER", PROOF  # a trade mark
    if _BORN_AFTER.match(after) or _KIN_BEFORE.search(before) or _JOB_BEFORE.search(before):
        yield "PERSON", FIRM
    if " " in text[start:end] and _OFFICE_AFTER.match(text, end):
        yield "PERSON", PROOF
    if _SPEAKER_BEFORE.search(before) or _SPEAKER_AFTER.match(after) or _WHO_AFTER.match(after):
        yield "PERSON", FAINT
    if _LIVES_BEFORE.search(before):
        yield "LOC", FIRM
    known = standing(text[start:end]) != "none"
    area = _AREA_AFTER.match(after)
    if area is not None and (known or _NEAR_BEFORE.search(before)) and standing(area[1]) == "area":
        yield "LOC", PROOF
    elif _IN_BEFORE.search(before):
        yield "LOC", FIRM if known else FAINT / 2
    elif _NEAR_BEFORE.search(before):
        yield "LOC", LIKELY + 1 if known else FAINT / 2
    listed = _LISTED_BEFORE.search(before)
    if known and listed is not None and standing(listed[1]) in ("city", "area"):
        yield "LOC", FIRM  # Bergen and Aberdeen
    within = _PART_BEFORE.search(before)
    if within is not None and standing(within[1]) != "none":
        yield "LOC", FIRM
