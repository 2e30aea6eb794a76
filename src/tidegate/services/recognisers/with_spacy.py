"""Entities by spaCy's small English model, corrected and completed by rules."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidegate.services.recognisers.names import tidy
from tidegate.services.recognisers.passages import Passage
from tidegate.services.recognisers.recognition import find_entities
from tidegate.services.recognisers.sightings import Sighting
from tidegate.services.recognisers.spacy_model import MODEL, VERSION, load_model
from tidegate.services.recognisers.with_rules import RULES
from tidegate.state import Document, Entity, EntityType

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_TYPES: Final[dict[str, EntityType | None]] = {
    "PERSON": "PERSON",
    "ORG": "ORG",
    "GPE": "LOC",
    "LOC": "LOC",
    "FAC": "LOC",
    "EVENT": None,
    "LANGUAGE": None,
    "LAW": None,
    "NORP": None,
    "PRODUCT": None,
    "WORK_OF_ART": None,
}
"""What spaCy's labels are to us. Dates and sums are left to the rules, which are right where the model is not."""

_BATCH: Final = 64
"""Passages that are worked on together; what spaCy keeps of them is given back after each batch."""


class _Stopped(Exception):
    """Nobody waits for the result any more."""


class SpacyRecogniser:
    """Finds names by a model that has read much, and corrects by rules what that one is known to get wrong.

    The model is loaded at the first document, in about four seconds. One thread uses it: it is not safe to share.
    """

    name = f"spacy/{MODEL}-{VERSION}+{RULES}"

    def __init__(self, folder: Path) -> None:
        """Use the model in this folder, which `spacy_model.find_model` has checked."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate spaCy")

    @functools.cached_property
    def _model(self) -> Language:
        return load_model(self._folder)

    async def recognise(self, document: Document) -> list[Entity]:
        """Return the entities in the order of their first mentions. When cancelled, it stops working within a second.

        Raises:
            SettingsError: spaCy does not work here.
        """
        stopped = threading.Event()
        look = functools.partial(self._look, stopped=stopped)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, find_entities, document, look)
        except asyncio.CancelledError:
            stopped.set()
            raise

    def _look(self, prose: Sequence[Passage], *, stopped: threading.Event) -> Iterator[Iterable[Sighting]]:
        for first in range(0, len(prose), _BATCH):
            if stopped.is_set():
                raise _Stopped
            batch = prose[first : first + _BATCH]
            with self._model.memory_zone():
                read = zip(batch, self._model.pipe(passage.text for passage in batch), strict=True)
                seen = [list(_sightings(passage, _found(doc))) for passage, doc in read]
            yield from seen


def _found(doc: Doc) -> Iterator[tuple[int, int, str]]:
    return ((entity.start_char, entity.end_char, entity.label_) for entity in doc.ents)


def _sightings(passage: Passage, found: Iterable[tuple[int, int, str]]) -> Iterator[Sighting]:
    for start, end, label in found:
        if label in _TYPES:
            for span in tidy(passage.text, start, end, person=label == "PERSON"):
                yield Sighting(*span, _TYPES[label])
