"""Step 5: what was found and what is missing -> outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from tidegate.state import EXECUTION, Missing, ModelFailure, Outcome, State, enrichments_of, hash_of


def conclude_step(max_visits: int) -> Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]:
    """Return the step, which alone writes `outcome` and `revision`.

    `degraded` means that an entity was deferred or failed, or that a fallback took the place of something configured.
    The revision grows by one when what is published differs from the revision before: a second look that found nothing
    new publishes nothing. It has no failure mode.
    """

    async def conclude(state: State, config: RunnableConfig) -> dict[str, Any]:
        missing = [
            Missing(
                what="enrichment",
                id=key,
                why=record.error or record.status,
                since=record.since or "",
                retryable=record.retryable and record.visits < max_visits,
                attempts=record.attempts,
                retry_at=record.retry_at,
            )
            for key, record in enrichments_of(state).items()
            if record.status in ("failed", "deferred")
        ]
        if (stored := state.get("extraction_failure")) is not None:
            missing.insert(0, lacking("extraction", "recogniser", ModelFailure.load(stored)))
        if (stored := state.get("summary_failure")) is not None:
            missing.append(lacking("summary", "model", ModelFailure.load(stored)))
        digest = hash_of(
            state.get("summary"),
            {key: record.data for key, record in enrichments_of(state).items()},
            [[item.what, item.id] for item in missing],
        )
        outcome = Outcome(status="degraded" if missing else "complete", missing=tuple(missing), digest=digest)
        earlier = state.get("outcome")
        published = earlier is not None and Outcome.load(earlier).digest == digest
        update = {"outcome": outcome.dump(), "revision": state.get("revision", 0) + (0 if published else 1)}
        if not config.get("configurable", {}).get(EXECUTION):
            update["routes"] = Overwrite({})  # on a graph server: what comes next has rounds of its own
        return update

    def lacking(what: Literal["extraction", "summary"], circuit: str, failure: ModelFailure) -> Missing:
        return Missing(
            what=what,
            id=circuit,
            why=failure.error,
            since=failure.since,
            retryable=failure.retryable and failure.visits < max_visits,
            attempts=failure.attempts,
            retry_at=failure.retry_at,
        )

    return conclude
