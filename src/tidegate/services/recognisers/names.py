"""How a name is written: its words, where it begins and ends, and how two writings compare."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Final

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.given_names import GIVEN_NAMES

LONGEST: Final = 80
"""Characters in a name at most."""
MOST_WORDS: Final = 9

_SHORTENED: Final = (
    "(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Ft|Jr|Sr|Gen|Col|Capt|Lt|Sgt|Maj|Rev|Hon|Sen|Rep|Gov|Inc|Corp|Co|Ltd|Bros|Esq|No)"
)
_SUFFIXED: Final = (
    "(?:area|backed|based|born|era|led|like|listed|only|owned|related|run|speaking|style|trained|wide)(?!\\w)"
)
WORD: Final = re.compile(
    rf"""(?:[^\W\d_]\.)+(?:[^\W\d_](?!\w))?              # initials: U.S., J.R.R., F.C
    |{_SHORTENED}\.(?!\w)
    |\w+(?:(?:[-\u2010\u2011](?!{_SUFFIXED})|['\u2019](?!s(?!\w)))\w+|&[A-Z]\w*)*  # Jean-Luc, O'Neil, AT&T
    |&""",
    re.VERBOSE,
)
_POSSESSIVE: Final = re.compile(r"['\u2019](?:s|S)?\Z")
_BREAK: Final = re.compile(
    r"[\n\t|;:!?\"\u201c\u201d()\[\]{}<>/\\*\u2022=+#~\u2026\u00ae\u2122\u2013\u2014]| {2,}| - |,(?! \w)"
)
_MARK: Final = re.compile("[.,] ")
_ENDS_SHORTENED: Final = re.compile(rf"(?<!\w)(?:(?:[^\W\d_]\.)+|{_SHORTENED}\.)\Z")
_CONTRACTED: Final = re.compile(r"\w+n['\u2019]t|(?:i|you|he|she|it|we|they|that|there|who|what|let)['\u2019]\w+")
_LINK: Final = re.compile(
    " (?:(?P<of>of|for|at) (?:the )?|(?P<and>and) (?:the )?"
    "|(?:the|an?|by|or|as|is|was|are|were|that|which|who|to|from|with) )"
)
_OWNS: Final = re.compile(r"['\u2019]s? ")
_PLAIN_MARKS: Final = str.maketrans({"\u2019": "'", "\u2010": "-", "\u2011": "-"})
_HOLDERS: Final = (
    lexicon.ROLES
    | lexicon.RANKS
    | lexicon.GENERIC_HEADS - {"court", "office", "center", "centre", "conference", "group", "senate"}
)
_LOOKALIKES: Final = frozenset({"it", "us", "who"})
"""Small words that in capitals are none."""
_INITIALS: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?")


def plain(word: str) -> str:
    """Return a word as the word lists have it: `Inc.` is `inc`, `U.S.` is `us`, `Ren\u00e9` is `rene`."""
    bare = word.replace(".", "").casefold()
    if bare.isascii():
        return bare
    return "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c))


def words(name: str) -> tuple[str, ...]:
    """Return the plain words of a name, for comparing: `Acme Corp.` and `ACME Corp` have the same."""
    text = unicodedata.normalize("NFKC", name).translate(_PLAIN_MARKS)
    text = _OWNS.sub(" ", text)
    return tuple("and" if word == "&" else plain(word) for word in WORD.findall(text))


def is_capitalised(word: str) -> bool:
    """Say whether a word begins as a name does; `iPhone` counts."""
    return word[:1].isupper() or (len(word) > 2 and word[0].islower() and word[1].isupper())


def tidy(text: str, start: int, end: int, *, person: bool = False) -> list[tuple[int, int]]:
    """Return where the names in `text[start:end]` begin and end, without what is no part of them; mostly there is one.

    Taken off: articles, courtesy titles, labels and dates at the ends, possessives, punctuation, and the office of a
    `person`. A name does not reach over a line break, a bracket or the end of a sentence: the first part with a name in
    it counts. Names that an `and` or an `of` joins are returned each.
    """
    for first, last in _without(text, start, end, _breaks(text, start, end)):
        cuts = [cut for link in _LINK.finditer(text, first, last) for cut in _unlinked(text, link, first, last)]
        if person:
            cuts += [match.span() for match in _OWNS.finditer(text, first, last)]
        found = [_trim(text, *part, person=person) for part in _without(text, first, last, cuts)]
        names = [span for span in found if span is not None]
        if names:
            return names[:1] if person else names
    return []


def _without(text: str, start: int, end: int, cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    edges = [(start, start), *sorted(cuts), (end, end)]
    return [(left[1], right[0]) for left, right in itertools.pairwise(edges) if left[1] < right[0]]


def _breaks(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Return what no name reaches over: brackets, line breaks, the end of a sentence, most commas."""
    cuts = [match.span() for match in _BREAK.finditer(text, start, end)]
    for mark in _MARK.finditer(text, start, end):
        before = _ENDS_SHORTENED.search(text, max(start, mark.start() - 20), mark.start() + 1)
        after = WORD.match(text, mark.end(), end)
        joined = mark.group()[0] == "." and before is not None
        suffix = mark.group()[0] == "," and after and plain(after.group()) in lexicon.CORPORATE | lexicon.GENERATIONS
        if not joined and not suffix:
            cuts.append(mark.span())
    return cuts


def _unlinked(text: str, link: re.Match[str], start: int, end: int) -> list[tuple[int, int]]:
    """Return the link as a cut, unless it holds a name together: `Bank of America`, `the Food and Drug Office`."""
    before = [plain(word) for word in WORD.findall(text, max(start, link.start() - 40), link.start())]
    after = [plain(word) for word in WORD.findall(text, link.end(), min(end, link.end() + 2 * LONGEST))]
    head = before[-1] if before else ""
    if link["of"] == "of":
        whole = bool(after) and after[-1] in lexicon.CORPORATE and head not in lexicon.ORGANISATIONS
        holds = not whole and head not in _HOLDERS  # "Shares of Siemens AG", "Board of Zinc, Inc."
    elif link["of"]:
        holds = head in lexicon.ORGANISATIONS - _HOLDERS
    else:
        article = "the" in before or "of" in before or text.endswith(("the ", "The "), 0, start)
        holds = link["and"] is not None and article
    return [] if holds else [link.span()]


def _trim(text: str, start: int, end: int, *, person: bool) -> tuple[int, int] | None:
    found = [match.span() for match in WORD.finditer(text, start, end)]
    found = [(a, b - len(p.group()) if (p := _POSSESSIVE.search(text, a, b)) else b) for a, b in found]
    while found and _drops_first(text, found, person=person):
        found.pop(0)
    while found and _drops_last(text, found):
        found.pop()
    if not found:
        return None
    first, last = found[0][0], found[-1][1]
    name = text[first:last]
    if person and len(found) > 1 and re.fullmatch(r"[^\W\d_]\.?", text[slice(*found[-1])]):
        return None  # "Barry J.": the rest of the name is elsewhere
    whole = len(found) <= MOST_WORDS and len(name) <= LONGEST and any(is_capitalised(text[a:b]) for a, b in found)
    return (first, last) if whole and is_name(name) else None


def _drops_first(text: str, found: list[tuple[int, int]], *, person: bool) -> bool:
    word = text[slice(*found[0])]
    bare = plain(word)
    if bare in lexicon.COURTESY:
        return True
    if person and len(found) > 1 and bare in GIVEN_NAMES:
        return False
    if bare in lexicon.FUNCTION or bare in lexicon.CALENDAR or bare in lexicon.LABELS or _CONTRACTED.fullmatch(bare):
        return not (word.isupper() and bare in _LOOKALIKES)
    if person and bare in lexicon.ROLES | lexicon.RANKS | lexicon.PEOPLES and bare not in lexicon.NOBILITY:
        return True
    return word == "&" or word.isdigit() or not (is_capitalised(word) or bare in lexicon.PARTICLES)


def _drops_last(text: str, found: list[tuple[int, int]]) -> bool:
    word = text[slice(*found[-1])]
    bare = plain(word)
    if bare in lexicon.CALENDAR and len(found) > 1 and plain(text[slice(*found[0])]) in GIVEN_NAMES:
        return not is_capitalised(word)  # Theresa May
    if bare in lexicon.FUNCTION or bare in lexicon.LABELS or bare in lexicon.COURTESY:
        return not (word.isupper() and bare in _LOOKALIKES)
    return word == "&" or not is_capitalised(word)


def is_name(name: str) -> bool:
    """Say whether a tidied phrase can be a name: it has no digits or signs, and is no heading set in capitals."""
    if not any(len(word) > 1 for word in words(name) if word != "and"):
        return False
    if name.isupper() and sum(map(str.isalpha, name)) > 6 and not _INITIALS.fullmatch(name):
        return False
    return all(unicodedata.category(character)[0] in "LMZP" and character not in "@_%" for character in name)
