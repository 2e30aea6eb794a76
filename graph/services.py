"""What the steps are handed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.nodes.enrich import Enricher
from tidegate.nodes.extract import Recogniser
from tidegate.nodes.gate import Circuit
from tidegate.nodes.ingest import Convert, Documents
from tidegate.nodes.summarize import Summarizer
from tidegate.nodes.summary_gate import Writer
from tidegate.resilience.breaker import CircuitReport
from tidegate.store.clock import Clock
from tidegate.store.registry import Service


class AnyCircuit:
    """The circuits of services of which any one will do, as one: it admits a call if one of them does."""

    def __init__(self, circuits: Sequence[Circuit]) -> None:
        """Take them in the order in which they are asked."""
        self._circuits = circuits

    @property
    def name(self) -> str:
        """The first one's name."""
        return self._circuits[0].name

    async def report(self) -> CircuitReport:
        """Return the report of the first that admits a call, else of the one that may be the first to do so."""
        reports = [await circuit.report() for circuit in self._circuits]
        best = next((report for report in reports if report.admits), min(reports, key=lambda report: report.retry_in))
        # Another number whenever that one changes, or another takes its place.
        return replace(best, generation=best.generation * len(reports) + reports.index(best))


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the steps are handed. `recogniser` is local, and stands in for `model_recogniser` where there is one.

    That and `enricher` are None where none is configured. `writers` are the models that summarize, in the order in
    which they are asked; none where none is configured.
    """

    documents: Documents
    convert: Convert
    recogniser: Recogniser
    model_recogniser: Recogniser | None
    recogniser_circuit: Circuit
    enricher: Enricher | None
    enrichment_circuit: Circuit
    writers: tuple[Writer, ...]
    model_circuit: Circuit
    extractive: Summarizer
    clock: Clock

    @property
    def model_circuits(self) -> tuple[Circuit, ...]:
        """Those of the `writers`; the first one's is there before there is a model."""
        return tuple(writer.circuit for writer in self.writers) or (self.model_circuit,)

    def summary_circuit(self, names: Collection[str]) -> Circuit:
        """Return those of the models that are named as one circuit, those of all where none of them is."""
        named = [circuit for circuit in self.model_circuits if circuit.name in names]
        return AnyCircuit(named or self.model_circuits)

    @property
    def circuits(self) -> Mapping[Service, Circuit]:
        """The circuit behind each thing that a thread may lack."""
        return {
            "extraction": self.recogniser_circuit,
            "enrichment": self.enrichment_circuit,
            "summary": self.summary_circuit(()),
        }
