"""Which of the models that could do a step's work is asked now, and what is kept of those that did not do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from langchain_core.runnables import RunnableConfig

from tidegate.errors import CircuitOpen, RateLimited, ServiceError
from tidegate.nodes.gate import Circuit, Execution, Limits
from tidegate.resilience.breaker import CircuitReport
from tidegate.state import EXECUTION, ModelFailure
from tidegate.store.clock import Clock, time_left, timestamp

_EARLIER: Final = "earlier"
"""The ID of any execution on a graph server but the current one, which has none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could do the work; `inputs` is a hash of all that it would be given."""

    circuit: Circuit
    inputs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to do: ask the model behind the circuit `asked`, wait for one of those `awaited`, else do without any.

    `failures` are those of the models so far, by circuit; where none can be asked, each has one. `report` is of the
    circuit that may be the first to let a call through.
    """

    reason: str
    failures: Mapping[str, ModelFailure]
    asked: str | None = None
    awaited: tuple[str, ...] = ()
    report: CircuitReport | None = field(default=None)


async def choose(
    candidates: Sequence[Candidate],
    failures: Mapping[str, ModelFailure],
    execution: Execution,
    limits: Limits,
    clock: Clock,
) -> Choice:
    """Choose the first whose circuit lets a call through and that did not fail at this work already.

    One that failed is asked again in a later execution, if what it failed with may pass, `max_visits` times in all, and
    not before a pause is over that it asked for. A call that an open circuit cut short is no failure of its own.
    Executions on a graph server have no ID: there, what failed before the gate's first decision is of an earlier one.

    Raises:
        CircuitOpen: none can be asked, a circuit is open, and the policy is `fail`.
        RateLimited: none can be asked, one asked for a pause, and the policy is `fail`.
    """
    known = {
        candidate.circuit.name: failure
        for candidate in candidates
        if (failure := failures.get(candidate.circuit.name)) is not None and failure.inputs == candidate.inputs
    }
    if not execution.id and execution.first:
        known = {name: failure.model_copy(update={"execution": _EARLIER}) for name, failure in known.items()}
    reasons: dict[str, str] = {}
    shut: dict[str, CircuitReport] = {}
    pauses: list[float] = []
    for candidate in candidates:
        name, failure = candidate.circuit.name, known.get(candidate.circuit.name)
        report = await candidate.circuit.report()
        reasons[name] = f"circuit {report.state.replace('_', '-')}"
        if not report.admits:
            if failure is None or failure.retryable:
                shut[name] = report
            continue
        pause = 0.0 if failure is None else time_left(failure.retry_at, failure.paused_at, clock.now())
        if failure is None or (pause <= 0.0 and not _given_up(failure, execution, limits)):
            reasons[name] += "" if report.state == "closed" else ": one probe"
            return Choice(reason=told(reasons, models=len(candidates)), failures=known, asked=name)
        reasons[name] = "the model failed"
        if pause > 0.0 and failure.retryable and failure.visits < limits.max_visits:
            pauses.append(pause)
    reason = told(reasons, models=len(candidates))
    soonest = min(shut.values(), key=lambda report: report.retry_in, default=None)
    if execution.when_open == "fail":
        if soonest is not None:
            raise CircuitOpen(soonest.name, retry_in=soonest.retry_in, reason=soonest.reason or "")
        if pauses:
            problem = "a pause was asked for; resume the thread after it"
            raise RateLimited(candidates[0].circuit.name, problem, retry_after=min(pauses))
    if execution.when_open == "wait" and soonest is not None:
        return Choice(reason=reason, failures=known, awaited=tuple(shut), report=soonest)
    for candidate in candidates:
        name = candidate.circuit.name
        if name not in known:
            known[name] = ModelFailure(
                error=reasons[name],
                retryable=True,
                deferred=True,
                attempts=0,
                visits=0,
                since=timestamp(clock),
                execution=execution.id,
                inputs=candidate.inputs,
            )
    return Choice(reason=reason, failures=_in_order(candidates, known), report=soonest)


def failure_after(
    error: ServiceError, earlier: ModelFailure | None, inputs: str, config: RunnableConfig, clock: Clock
) -> ModelFailure:
    """Return what is kept of a model that failed, on top of its earlier failure at the same `inputs`."""
    if earlier is not None and earlier.inputs != inputs:
        earlier = None
    return ModelFailure(
        error=error.why,
        retryable=error.retryable,
        deferred=isinstance(error, CircuitOpen),
        attempts=(earlier.attempts if earlier else 0) + error.attempts,
        visits=(earlier.visits if earlier else 0) + error.counts_as_visit,
        since=earlier.since if earlier else timestamp(clock),
        execution=str(config.get("configurable", {}).get(EXECUTION, "")),
        inputs=inputs,
        retry_at=None if error.retry_after is None else clock.now() + error.retry_after,
        paused_at=None if error.retry_after is None else clock.now(),
    )


def _given_up(failure: ModelFailure, execution: Execution, limits: Limits) -> bool:
    """Say whether a model that failed is not to be asked again in this execution."""
    if not failure.retryable or failure.visits >= limits.max_visits:
        return True
    if failure.execution != execution.id:
        return False
    return not failure.deferred or execution.rounds >= limits.max_rounds


def told(texts: Mapping[str, str], *, models: int) -> str:
    """Return what is to be said of models, by circuit, as one text; where there are several, each is named."""
    return "; ".join(f"{name}: {text}" if models > 1 else text for name, text in texts.items())


def _in_order(candidates: Iterable[Candidate], known: Mapping[str, ModelFailure]) -> dict[str, ModelFailure]:
    return {candidate.circuit.name: known[candidate.circuit.name] for candidate in candidates}
