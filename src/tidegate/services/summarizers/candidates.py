"""The sentences that may stand in a summary, and how well each stands on its own."""
# ruff: noqa: RUF001 - quotation marks and full stops of other scripts are meant

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tidegate.services.summarizers.english import DANGLING, PERSONAL
from tidegate.services.summarizers.sentences import Passage, passages
from tidegate.services.summarizers.words import stems, tokens
from tidegate.state import Document

_FEWEST_WORDS, _MOST_WORDS = 6, 70
_BRIEF = 3  # words of a sentence that counts where there are not even _HARDLY_ANY longer ones
_HARDLY_ANY = 3
_FEWEST_OF_NOTE = 8  # words, where no full stop tells that something was said
_SHORT, _LONG = 20, 45  # words below which a sentence says little, and from which it is too much to take in at once
_ENDS = tuple(".!…。！｡।॥۔։።")
_CLOSING = "\"'”’»›)]}）」』"
_OPENING = "\"'“‘«‹([{「『"

_REFERENCES = re.compile(
    r"\W*(?:[\dIVX]+\W+)?(?:references|bibliography|works cited|literature|notes|footnotes|citations|sources|see also|"
    r"external links|further reading|table of contents|contents|index|signatures?|acknowledge?ments?)\W*\Z",
    re.IGNORECASE,
)
# What follows is matched with lower-cased text: ignoring case takes re three times as long.
_FURNITURE = re.compile(
    r"all rights reserved|©|click here|retrieved (?:on )?\d|archived from|\bisbn\b|\bdoi\b|https?://|www\.|"
    r"check ?mark|[☐☑☒]"
)
_BOILERPLATE = re.compile(
    r"\bcopyright|\bcookies?\b|\bsubscribe\b|\bsign up\b|\blog in\b|terms of (?:use|service)|privacy policy|"
    r"table of contents|pursuant to (?:section|rule|the requirements)|incorporated (?:herein )?by reference|"
    r"forward-looking|the following (?:table|chart|discussion|graph)|accompanying notes|"
    r"\b(?:shown|listed|described|set forth|see|refer to|discussed|included) (?:in )?(?:the )?[\"“(]?"
    r"(?:above|below|note|item|fig\.|figure|table|part|section|exhibit|appendix)\b|\bpage \d"
)
_INSTRUCTS = re.compile(r"(?:see|refer to|indicate|check|click|state the|note that|key ?words|index terms)\b")
_CITATION = re.compile(r"\(\d{4}[a-z]?\)|\bet al\b|\bpp?\. ?\d|\bvol\. ?\d")
_CONNECTS = re.compile(
    r"(?:first|second|third|last|in addition|for (?:example|instance)|as a result|in contrast|in other words|"
    r"on the other hand|by contrast|[a-z]+ly), |"
    r"(?:of these|at (?:this|that)|in (?:this|that|these|those|such)|to this end)\b"
)
_SETS_SCENE = re.compile(r"it (?:is|was) (?:in|on|at|during|only|not until)\b|there (?:is|are|was|were)\b")
_DEFINES = re.compile(r"\b(?:is|are|was|were) (?:an?|the|one of)\b|\brefers? to\b")
_ANNOUNCES = re.compile(
    r"\b(?:this|the|our) (?:paper|article|report|document|study|memo(?:randum)?|guide|handbook|manual|policy|letter) "
    r"(?:introduces|presents|proposes|describes|examines|explains|reports|covers|sets out|establishes|reviews|"
    r"discusses|shows|provides|summari[sz]es|is|was)\b|"
    r"\bwe (?:present|propose|introduce|describe|report)\b|\bpurpose of (?:this|the)\b"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence, its terms, and how well it stands on its own, from 0 to 1.

    `leads` tells that it opens its paragraph; `introduces` is above 1 if it is built like one that says what something,
    or the document itself, is.
    """

    passage: Passage
    terms: tuple[str, ...]
    fitness: float
    leads: bool
    introduces: float


def candidates(document: Document) -> list[Candidate]:
    """Return the sentences of the prose outside lists of references, each text once.

    Where not one tells something as a sentence (notes without full stops, a script without them, a form), all are
    returned that say something. Sentences of a few words count where there is hardly another.
    """
    sentences: list[Candidate] = []
    notes: list[Candidate] = []
    brief: list[Candidate] = []
    apart = _apart(document)
    seen: set[str] = set()
    block = -1
    for passage in passages(document):
        leads, block = passage.block != block, passage.block
        text = document.text[passage.start : passage.end]
        if passage.kind not in ("paragraph", "list_item") or passage.block in apart or text in seen:
            continue
        seen.add(text)
        words = tokens(text)
        folded = text.lower()
        reads = passage.whole and _reads_as_sentence(text, words) and not _INSTRUCTS.match(folded)
        is_brief = _BRIEF <= len(words) < _FEWEST_WORDS
        if not _says_something(folded, words, 0 if is_brief and reads else _FEWEST_WORDS):
            continue
        fitness = _fitness(text, folded, words) * (1.0 if passage.kind == "paragraph" else 0.7)
        introduces = 1.5 if _ANNOUNCES.search(folded) else 1.2 if _DEFINES.search(folded) else 1.0
        found = Candidate(passage, tuple(stems(words)), fitness, leads, introduces)
        if is_brief:
            brief.append(found)
        elif reads:
            sentences.append(found)
        elif len(words) >= _FEWEST_OF_NOTE and not text.endswith(":") and text[0] not in "([":
            notes.append(found)
    if len(sentences) < _HARDLY_ANY and brief:
        return sorted([*sentences, *brief], key=lambda each: each.passage.start)
    return sentences or notes


def _apart(document: Document) -> set[int]:
    """Return the blocks below a heading such as References, up to the next heading that is not below it."""
    apart: set[int] = set()
    level = 0
    for index, block in enumerate(document.blocks):
        if block.kind == "heading" and (not level or block.level <= level):
            heading = document.text[block.start : min(block.end, block.start + 80)]
            level = max(1, block.level) if _REFERENCES.match(heading) else 0
        if level:
            apart.add(index)
    return apart


def _says_something(folded: str, words: list[str], fewest: int) -> bool:
    if len(words) < fewest or sum(map(str.isalpha, folded)) < 0.6 * (len(folded) - folded.count(" ")):
        return False
    figures = sum(word[0].isdigit() for word in words)
    return figures <= 0.4 * len(words) and not _FURNITURE.search(folded)


def _reads_as_sentence(text: str, words: list[str]) -> bool:
    spoken = text.rstrip(_CLOSING)
    if len(words) > _MOST_WORDS or not spoken.endswith(_ENDS) or spoken.endswith("...") or text[0] in "([":
        return False
    first = text.lstrip(_OPENING)[:1]
    return first.isalnum() and not first.islower()


def _fitness(text: str, folded: str, words: list[str]) -> float:
    """Say how well a sentence can be read by itself, from 0 to 1."""
    used = [word.lower().replace("’", "'") for word in words]
    fitness = 1.0 - 1.5 * sum(word[0].isdigit() for word in words) / len(words)
    points_back = used[0] in DANGLING and not _ANNOUNCES.match(folded) and not _SETS_SCENE.match(folded)
    if points_back or _CONNECTS.match(folded):
        fitness *= 0.6
    if not PERSONAL.isdisjoint(used):
        fitness *= 0.4
    if text[0] in _OPENING or text.count('"') % 2:
        fitness *= 0.4
    if "?" in text or "!" in text or "\n" in text:
        fitness *= 0.5
    if len(words) > _LONG:
        fitness *= 0.7
    fitness *= min(1.0, math.sqrt(len(words) / _SHORT))  # a cosine favours what is short
    if "(“" in text or '("' in text:  # it defines an abbreviation: a matter of detail
        fitness *= 0.7
    if _BOILERPLATE.search(folded):  # a penalty, as the document may be about copyright
        fitness *= 0.25
    if len(_CITATION.findall(folded)) > 1:
        fitness *= 0.4
    return fitness
