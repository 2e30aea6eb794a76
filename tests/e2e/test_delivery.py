"""Relays in processes of their own, killed between a delivery and its record."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.engines import until
from tests.servers.receiver import Receiver, receiving
from tidegate import Pipeline, Settings
from tidegate.settings.service import WebhookSink
from tidegate.store.inbox import Envelope


def url_of(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> str:
    return f"sqlite:///{tmp_path}/t.db" if where == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_a_delivery_whose_process_was_killed_before_it_was_recorded_is_made_again_under_the_same_id(
    tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    url = url_of(tmp_path, request, where)
    async with receiving() as receiver:
        settings = Settings(checkpoints=url, sink=(WebhookSink(kind="webhook", name="hook", url=receiver.url),))
        async with Pipeline.open(settings) as pipeline:
            event = Envelope(source="test", id="1", data=b"Ada went to Cairo.", name="ada.txt")
            receipt = await pipeline.inbox.accept(event)
            assert (await pipeline.resume(receipt.thread_id)).status == "complete"
            relaying = await start(url, receiver)
            receiver.held = asyncio.Event()
            await until(lambda: receiver.read)
            relaying.kill()  # it has handed the result over, and does not know yet
            await relaying.wait()
            receiver.held.set()
            await until(lambda: receiver.got)
            assert (await pipeline.outbox.undelivered())["hook"].waiting == 1
            relaying = await start(url, receiver)

            async def delivered() -> bool:
                return await pipeline.outbox.undelivered() == {}

            await until(delivered)
            relaying.kill()
            await relaying.wait()
    assert receiver.got == [f"{receipt.thread_id}:1"] * 2


async def start(url: str, receiver: Receiver) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.e2e.relay", url, receiver.url)
