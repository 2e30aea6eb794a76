"""Which entities a sentence names."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from tidegate.services.summarizers.words import terms, tokens
from tidegate.state import Document, Entity, Span

_SALIENT = 20  # entities that tell what the document is about


class Mentions:
    """The mentions of a document's entities, in order."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        """Sort the mentions once, for any number of questions."""
        self._all = sorted((span.start, span.end, entity.id) for entity in entities for span in entity.mentions)

    def inside(self, span: Span) -> tuple[str, ...]:
        """Return the IDs of the entities mentioned inside a span, each once, in the order of their first mention."""
        found: dict[str, None] = {}
        for at in range(bisect_left(self._all, (span.start, 0, "")), len(self._all)):
            start, end, entity_id = self._all[at]
            if start >= span.end:
                break
            if end <= span.end:
                found[entity_id] = None
        return tuple(found)


class Names:
    """The names of a document's entities, found in sentences that are not the document's own."""

    def __init__(self, document: Document, entities: Sequence[Entity]) -> None:
        """Collect every form in which the document writes a name."""
        self._forms: dict[str, dict[tuple[str, ...], list[str]]] = {}
        for entity in entities:
            forms = {entity.text, *(document.slice(mention) for mention in entity.mentions)}
            for words in sorted({_folded(form) for form in forms} - {()}):
                self._forms.setdefault(words[0], {}).setdefault(words, []).append(entity.id)

    def found_in(self, text: str, likely: Collection[str]) -> tuple[str, ...]:
        """Return the IDs of the entities that `text` names, each once, the longest name at each place.

        Of entities that share a name, those that are `likely` are taken if there are any, else the first.
        """
        words = _folded(text)
        found: dict[str, None] = {}
        at = 0
        while at < len(words):
            forms = self._forms.get(words[at], {})
            form = max((form for form in forms if words[at : at + len(form)] == form), key=len, default=None)
            if form is None:
                at += 1
                continue
            found |= dict.fromkeys(_likeliest(forms[form], likely))
            at += len(form)
        return tuple(found)


def _likeliest(entity_ids: Sequence[str], likely: Collection[str]) -> Iterable[str]:
    return [entity_id for entity_id in entity_ids if entity_id in likely] or entity_ids[:1]


def _folded(text: str) -> tuple[str, ...]:
    return tuple(token.casefold().replace("\u2019", "'").removesuffix("'s") for token in tokens(text))


def salient_names(entities: Sequence[Entity]) -> dict[str, float]:
    """Return the terms in the names of the entities most mentioned, each with its share of these mentions."""
    counts: Counter[str] = Counter()
    named = [entity for entity in entities if entity.type not in ("DATE", "MONEY")]
    for entity in sorted(named, key=lambda entity: (-len(entity.mentions), entity.id))[:_SALIENT]:
        for term in set(terms(entity.text)):
            counts[term] += len(entity.mentions)
    return {term: count / counts.total() for term, count in counts.items()}
