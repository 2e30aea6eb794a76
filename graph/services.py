"""What the steps are handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.nodes.enrich import Enricher
from tidegate.nodes.extract import Recogniser
from tidegate.nodes.gate import Circuit
from tidegate.nodes.ingest import Convert, Documents
from tidegate.nodes.summarize import Summarizer
from tidegate.store.clock import Clock
from tidegate.store.registry import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the steps are handed. `recogniser` is local, and stands in for `model_recogniser` where there is one.

    That, `enricher` and `model` are None where none is configured.
    """

    documents: Documents
    convert: Convert
    recogniser: Recogniser
    model_recogniser: Recogniser | None
    recogniser_circuit: Circuit
    enricher: Enricher | None
    enrichment_circuit: Circuit
    model: Summarizer | None
    model_circuit: Circuit
    extractive: Summarizer
    clock: Clock

    @property
    def circuits(self) -> Mapping[Service, Circuit]:
        """The circuit behind each thing that a thread may lack."""
        return {
            "extraction": self.recogniser_circuit,
            "enrichment": self.enrichment_circuit,
            "summary": self.model_circuit,
        }
