"""Reading a model's answer: sentences with the numbers that they cite."""
# ruff: noqa: RUF001 - full stops and brackets of other scripts are meant

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from tidegate.services.summarizers.prompt import one_line
from tidegate.services.summarizers.words import tokens

_FEWEST_WORDS = 3
_LONGEST = 1_000  # characters of one sentence
_LONGEST_ANSWER = 50_000  # characters
_MOST_CITED = 10  # numbers that one sentence may cite: a sentence that rests on everything rests on nothing

_CITED = re.compile(
    r"[\[【]\s*(?:passages?\s+|sentences?\s+)?(E?\d{1,6}(?:\s?[-\u2013,;]\s?E?\d{1,6})*)\s*[\]】]", re.IGNORECASE
)
_RANGE = re.compile(r"(E?)(\d{1,6})(?:\s?[-\u2013]\s?E?(\d{1,6}))?", re.IGNORECASE)
_BULLET = re.compile(r"\s*(?:[-*•\u2013>]\s+|\(?\d{1,2}[.)]\s+)?")
_STOPS = tuple(".!?…。！？।؟۔።")
_STOP = re.compile(r"\s?([.!?…。！？।؟۔።])")


@dataclass(frozen=True, slots=True)
class Cited:
    """A sentence with the numbers of the passages and the facts that it cites, in order; only such as exist."""

    text: str
    passages: tuple[int, ...]
    facts: tuple[int, ...]


def read(answer: str, most: int, passages: Container[int], facts: Container[int]) -> list[Cited] | None:
    """Return the first `most` sentences of an answer, None if it is unusable: if not one of them cites what exists.

    Bullets, Markdown, introductions and what the model says it thinks are forgiven. A sentence without a number that
    exists stays, with nothing cited.
    """
    if len(answer) > _LONGEST_ANSWER:
        return None
    found: list[Cited] = []
    for line in _spoken(answer):
        for said, numbers in _sentences(line):
            text = one_line(said)
            words = len(tokens(text))
            if words < _FEWEST_WORDS or len(text) > _LONGEST or (not numbers and text.endswith(":")):
                continue
            of_passages = [number for kind, number in numbers if not kind and number in passages]
            of_facts = [number for kind, number in numbers if kind and number in facts]
            found.append(Cited(text, _bounded(of_passages), _bounded(of_facts)))
    found = found[:most]
    return found if any(cited.passages or cited.facts for cited in found) else None


def _spoken(answer: str) -> Iterator[str]:
    """Yield the lines without Markdown; what stands in `<think>` is left out."""
    _, closed, said = answer.rpartition("</think>")
    if not closed:
        said = said.partition("<think>")[0]
    for line in said.splitlines():
        plain = line.replace("\\[", "[").replace("\\]", "]").replace("**", "").replace("`", "").strip()
        if plain and not plain.startswith("#"):
            yield _BULLET.sub("", plain, count=1)


def _sentences(line: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Yield the sentences of one line, each ending where numbers follow a full stop, or a full stop follows numbers."""
    text, numbers, begin = "", list[tuple[str, int]](), 0
    for match in _CITED.finditer(line):
        between = line[begin : match.start()]
        if numbers and text.endswith(_STOPS) and between.strip(" ,;"):
            yield text, numbers
            text, numbers = "", []
        text = _joined(text, between)
        numbers.extend(_numbers(match[1]))
        begin = match.end()
        if stop := _STOP.match(line, begin):
            text, begin = text + stop[1], stop.end()
    rest = line[begin:]
    if numbers and text.endswith(_STOPS) and rest.strip(" ,;"):
        yield text, numbers
        text, numbers = "", []
    text = _joined(text, rest)
    if text:
        yield text, numbers


def _joined(text: str, more: str) -> str:
    more = more.strip() if text else more.lstrip(" .,;").rstrip()
    if not more or not text:
        return text or more
    return f"{text}{more}" if more[0] in ".,;:!?" else f"{text} {more}"


def _numbers(listed: str) -> Iterator[tuple[str, int]]:
    for match in _RANGE.finditer(listed):
        first, last = int(match[2]), int(match[3] or match[2])
        for number in range(first, min(last, first + _MOST_CITED) + 1):
            yield match[1].upper(), number


def _bounded(numbers: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers))[:_MOST_CITED]
