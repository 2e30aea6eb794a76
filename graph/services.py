"""What the steps are handed."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.nodes.enrich import Enricher
from tidegate.nodes.extract import Recogniser
from tidegate.nodes.gate import Circuit
from tidegate.nodes.ingest import Convert, Documents
from tidegate.nodes.summarize import Summarizer
from tidegate.store.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the steps are handed. `enricher` and `model` are None where none is configured."""

    documents: Documents
    convert: Convert
    recogniser: Recogniser
    enricher: Enricher | None
    enrichment_circuit: Circuit
    model: Summarizer | None
    model_circuit: Circuit
    extractive: Summarizer
    clock: Clock
