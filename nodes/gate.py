"""What all gates share: which way round a service is decided from its circuit and from what is still missing.

A gate is a node of its own, because a conditional edge that reads the breaker runs once for every branch before it,
can send one execution down two paths, and cannot record what it decided (LangGraph 1.2.22).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import interrupt

from tidegate.resilience.breaker import CircuitReport
from tidegate.settings import Policy
from tidegate.state import EXECUTION, WHEN_OPEN, Route, State
from tidegate.telemetry import events

Gate = Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]


class Circuit(Protocol):
    """A breaker, as far as a gate needs it."""

    @property
    def name(self) -> str:
        """The service that it protects."""
        ...

    async def report(self) -> CircuitReport:
        """Say whether a call would be let through now."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a gate allows: its policy, its rounds in one execution, and the visits to one item in all."""

    when_open: Policy
    max_rounds: int
    max_visits: int


@dataclass(frozen=True, slots=True)
class Execution:
    """Where a gate stands in this execution: the rounds it allowed so far, and whether this is its first decision."""

    id: str
    rounds: int
    first: bool
    when_open: Policy

    @classmethod
    def of(cls, state: State, config: RunnableConfig, gate: str, limits: Limits) -> Execution:
        """Read what this gate decided before."""
        configurable = config.get("configurable", {})
        id_ = str(configurable.get(EXECUTION, ""))
        stored = (state.get("routes") or {}).get(gate)
        earlier = None if stored is None else Route.load(stored)
        first = earlier is None or earlier.execution != id_
        rounds = 0 if earlier is None or first else earlier.rounds
        return cls(id_, rounds, first, cast("Policy", configurable.get(WHEN_OPEN) or limits.when_open))

    def route(self, to: str, reason: str, report: CircuitReport | None = None, **details: Any) -> dict[str, Any]:
        """Return the decision for `routes`, and tell of it."""
        shut = report is not None and not report.admits and not report.forced  # by hand, and for as long as it takes
        events.routed(to, reason)
        route = Route(
            to=to,
            reason=reason,
            retry_in=round(report.retry_in, 3) if report is not None and shut else None,
            execution=self.id,
            **{"rounds": self.rounds, **details},
        )
        return route.dump()


def await_circuit(gate: str, circuits: Sequence[Circuit], when_open: Policy) -> Gate:
    """Return the step that waits for a circuit: under policy `wait` it interrupts the thread while that is open.

    `circuits` are those that its gate may wait for; any one of them that lets a call through will do. The interrupt's
    value is `{"circuit": name, "retry_in": seconds}`, of the one that may be the first. Resuming needs no value:
    `ainvoke(None, config)`. Once a call would be let through, or under another policy, the step lets the thread go on
    to its gate.
    """

    async def await_circuit(state: State, config: RunnableConfig) -> dict[str, Any]:
        stored = (state.get("routes") or {}).get(gate)
        awaited = () if stored is None else Route.load(stored).circuits
        reports = [await circuit.report() for circuit in circuits if circuit.name in awaited or not awaited]
        policy = config.get("configurable", {}).get(WHEN_OPEN) or when_open
        if policy == "wait" and reports and not any(report.admits for report in reports):
            first = min(reports, key=lambda report: report.retry_in)
            interrupt({"circuit": first.name, "retry_in": round(first.retry_in, 3)})
        return {}

    return await_circuit
