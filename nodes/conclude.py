"""Step 5: what was found and what is missing -> outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from tidegate.nodes.model_choice import told
from tidegate.state import (
    EXECUTION,
    Missing,
    ModelFailure,
    Outcome,
    State,
    enrichments_of,
    hash_of,
    summary_failures_of,
)


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
            missing.insert(0, lacking("extraction", {"recogniser": ModelFailure.load(stored)}))
        if failures := summary_failures_of(state):
            missing.append(lacking("summary", failures))
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

    def lacking(what: Literal["extraction", "summary"], failures: Mapping[str, ModelFailure]) -> Missing:
        """Say what several models did not do: it can be had if one of them may do it yet."""
        again = [each for each in failures.values() if each.retryable and each.visits < max_visits]
        pauses = [each.retry_at for each in again or failures.values()]
        return Missing(
            what=what,
            id=next(iter(failures)),
            why=told({name: each.error for name, each in failures.items()}, models=len(failures)),
            since=min(each.since for each in failures.values()),
            retryable=bool(again),
            attempts=sum(each.attempts for each in failures.values()),
            retry_at=None if None in pauses else min(pause for pause in pauses if pause is not None),
        )

    return conclude
