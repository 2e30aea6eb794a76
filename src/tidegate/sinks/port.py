"""What a sink is."""

from __future__ import annotations

from typing import Protocol

from tidegate.store.outbox import Delivery


class Sink(Protocol):
    """A place where results go. What it is given twice, it may write twice: `Delivery.id` is the same then."""

    @property
    def name(self) -> str:
        """What its deliveries are kept under; its circuit is named `sink-NAME`."""
        ...

    async def deliver(self, delivery: Delivery) -> None:
        """Deliver one result: once this returns, it is there. Called by a guard, which retries, limits and cuts off.

        Raises:
            ServiceError: it is not there, sorted by what can be done: `Transient`, `RateLimited`, `Refused`,
                `Permanent`. Under whatever name, it is a verdict on this sink; its words are kept, and shown.
            OSError: a file, or a connection, cannot be used now.
        """
        ...

    async def aclose(self) -> None:
        """Close what was opened."""
        ...
