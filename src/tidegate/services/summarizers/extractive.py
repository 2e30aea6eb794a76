"""A summary of the document's own sentences, for when no chat model writes one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tidegate.services.summarizers.candidates import candidates
from tidegate.services.summarizers.naming import Mentions, salient_names
from tidegate.services.summarizers.ranking import choose
from tidegate.services.summarizers.words import terms
from tidegate.state import Document, Enrichment, Entity, Sentence, Span, Summary, hash_of

_VERSION = 2  # raised whenever the same document would give another summary


class ExtractiveSummarizer:
    """Chooses sentences by TF-IDF centroid, lead bias and maximal marginal relevance.

    Sentences are whole and verbatim, in document order, and their evidence is where they stand. The same document
    gives the same summary. A document without prose, such as one of tables alone, gives a summary without sentences.
    """

    name = f"extractive/{_VERSION}"
    model = None

    def __init__(self, max_sentences: int) -> None:
        """Choose at most `max_sentences`."""
        self._max_sentences = max_sentences

    def inputs(self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]) -> str:
        """Hash all that goes into the summary, which what enrichment found does not."""
        names = sorted((entity.id, len(entity.mentions)) for entity in entities)
        return hash_of(self.name, self._max_sentences, document.id, document.converter, names)

    async def summarize(
        self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]
    ) -> Summary:
        """Summarize in a thread; has no failure. A megabyte of text takes about a second."""
        return await asyncio.to_thread(self._summarize, document, entities, enrichments)

    def _summarize(
        self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]
    ) -> Summary:
        chosen = choose(candidates(document), terms(document.title), salient_names(entities), self._max_sentences)
        spans = [Span(start=candidate.passage.start, end=candidate.passage.end) for candidate in chosen]
        mentions = Mentions(entities)
        return Summary(
            sentences=tuple(
                Sentence(text=document.slice(span), evidence=(span,), entities=mentions.inside(span)) for span in spans
            ),
            method="extractive",
            inputs=self.inputs(document, entities, enrichments),
        )
