"""What a chat model's summary is made from, and checked against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tidegate.services.summarizers.candidates import candidates
from tidegate.services.summarizers.citations import Cited
from tidegate.services.summarizers.facts import Fact, facts
from tidegate.services.summarizers.naming import Mentions, Names, salient_names
from tidegate.services.summarizers.prompt import Line, mark_of
from tidegate.services.summarizers.ranking import most_relevant
from tidegate.services.summarizers.sentences import passages
from tidegate.services.summarizers.support import is_supported
from tidegate.services.summarizers.words import terms
from tidegate.state import Document, Enrichment, Entity, Sentence, Span

_BEFORE = 2  # passages before a cited one, in its block, that tell whom it speaks of


class Source:
    """A document's passages, numbered from 1, and what is known of its entities, numbered from 1 as well.

    Building it takes a second or two for megabytes of text.
    """

    def __init__(self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]) -> None:
        """Find the passages, the facts and the names."""
        self.document = document
        self.facts: list[Fact] = facts(entities, enrichments)
        self._passages = passages(document)
        self._entities = entities
        self._full_names = {entity.id: entity.text for entity in entities}
        self._mentions = Mentions(entities)
        self._names = Names(document, entities)
        self._headings = list(_headings(document))
        self.mark = mark_of(document.id, [document.text, document.title, *(fact.text for fact in self.facts)])

    @property
    def known(self) -> range:
        """The numbers of the facts that can be cited: those of entities of which something is known."""
        return range(1, 1 + sum(bool(fact.known) for fact in self.facts))

    def lines(self) -> list[Line]:
        """Return all passages as lines of a prompt."""
        text = self.document.text
        return [Line((str(number),), text[found.start : found.end]) for number, found in enumerate(self._passages, 1)]

    def most_relevant(self) -> Iterator[int]:
        """Yield the numbers of the sentences, the most relevant first."""
        numbers = {(passage.start, passage.end): number for number, passage in enumerate(self._passages, 1)}
        ranked = most_relevant(candidates(self.document), terms(self.document.title), salient_names(self._entities))
        return (numbers[candidate.passage.start, candidate.passage.end] for candidate in ranked)

    def supports(self, cited: Cited) -> bool:
        """Say whether what a sentence cites carries it; what cites nothing is not carried."""
        if not (cited.passages or cited.facts):
            return False
        evidence = [self.document.slice(self._span(number)) for number in cited.passages]
        evidence += [self.facts[number - 1].text for number in cited.facts]
        return is_supported(cited.text, evidence, self._context(cited.passages))

    def sentence(self, cited: Cited) -> Sentence:
        """Return a sentence of the summary: its evidence in the document's order, and the entities it names."""
        spans = [self._span(number) for number in sorted(cited.passages)]
        of_facts = [self.facts[number - 1].entity_id for number in cited.facts]
        likely = {entity_id for span in spans for entity_id in self._mentions.inside(span)} | set(of_facts)
        named = dict.fromkeys([*self._names.found_in(cited.text, likely), *of_facts])
        return Sentence(text=cited.text, evidence=tuple(spans), entities=tuple(named), supported=self.supports(cited))

    def _span(self, number: int) -> Span:
        passage = self._passages[number - 1]
        return Span(start=passage.start, end=passage.end)

    def _context(self, numbers: Sequence[int]) -> Iterator[str]:
        yield self.document.title
        for number in numbers:
            passage = self._passages[number - 1]
            yield self._headings[passage.block]
            yield from (self._full_names[entity_id] for entity_id in self._mentions.inside(self._span(number)))
            for before in self._passages[max(0, number - 1 - _BEFORE) : number - 1]:
                if before.block == passage.block:
                    yield self.document.text[before.start : before.end]


def _headings(document: Document) -> Iterator[str]:
    """Yield for each block the heading that it stands under, an empty string if there is none."""
    heading = ""
    for block in document.blocks:
        if block.kind == "heading":
            heading = document.slice(block)
        yield heading
