"""PostgreSQL holds what LangGraph's saver in memory holds, whatever is done to both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conformance.histories import keeps_what_the_model_keeps
from tests.conformance.model import BothSavers
from tidegate.checkpointers.postgres import PostgresSaver
from tidegate.store.postgres_url import read_url


class Tables:
    """The tables of one schema, emptied for each run of the machine: making them takes longer than a run."""

    saver: ClassVar[PostgresSaver]
    portal: ClassVar[BlockingPortal]

    def open(self) -> PostgresSaver:
        return self.saver

    def tell(self, ts: str) -> None:
        """Its checkpoints say it themselves."""

    def close(self) -> None:
        async def clear() -> int:
            async with self.saver._cursor() as cursor:
                for (thread_id,) in [tuple(row.values()) for row in await _threads(self.saver)]:
                    await self.saver.adelete_thread(str(thread_id))
                await cursor.execute(
                    "SELECT (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM checkpoint_blobs)"
                    " + (SELECT count(*) FROM checkpoint_writes) AS left"
                )
                row = await cursor.fetchone()
                return int(row["left"]) if row else -1

        assert self.portal.call(clear) == 0  # nothing leaked past the threads that it belongs to


async def _threads(saver: PostgresSaver) -> list[dict[str, object]]:
    async with saver._cursor() as cursor:
        await cursor.execute("SELECT thread_id FROM checkpoints UNION SELECT thread_id FROM checkpoint_writes")
        return await cursor.fetchall()


class BothWithPostgres(BothSavers):
    """PostgreSQL beside the model."""

    place = Tables


@pytest.fixture
def tables(postgres_url: str) -> Iterator[None]:
    opened = PostgresSaver.open(read_url(postgres_url))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as saver:
        Tables.saver, Tables.portal = saver, portal
        yield


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(("examples", "steps"), [(10, 15), pytest.param(300, 40, marks=pytest.mark.slow)])
def test_both_savers_hold_the_same(examples: int, steps: int) -> None:
    settings_ = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(BothWithPostgres, settings=settings_)


# The pool draws a random number in its own thread, which Hypothesis takes for the strategies.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_what_is_pruned_is_what_the_rules_say(examples: int) -> None:
    kept = Tables()
    keeps_what_the_model_keeps(kept, examples)
    kept.close()
