"""What the trigger of queues asks of a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

DEAD: Final = ".dead"
"""What the name of a queue's dead letters ends in, where the broker does not say otherwise."""

REASON: Final = "tidegate-reason"
"""The header of a dead letter that says why it is one."""

PREFETCH: Final = 8
"""Messages that a process holds at once; all others stay at the broker, where they can be seen, or be taken by others.
"""


class Delivered(Protocol):
    """A message in our hands, which the broker keeps until it hears of it."""

    @property
    def id(self) -> str | None:
        """What its sender or its broker tells it apart by; the same at each delivery. None if there is nothing."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, `content-type` among them."""
        ...

    @property
    def body(self) -> bytes:
        """Its content."""
        ...

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included; 1 where the broker does not count."""
        ...

    async def accept(self) -> None:
        """Have the broker forget it. Raises ServiceError: it comes again."""
        ...

    async def bury(self, reason: str) -> None:
        """Have the broker put it with the dead letters. Raises ServiceError: it comes again."""
        ...

    async def extend(self) -> None:
        """Have the broker wait longer. Raises ServiceError."""
        ...

    async def release(self) -> None:
        """Have the broker deliver it to somebody else, soon. Raises ServiceError."""
        ...


class Consumer(Protocol):
    """A connection over which messages of one queue come."""

    @property
    def note(self) -> str:
        """What its owner should know of the queue; empty if there is nothing."""
        ...

    async def receive(self, most: int) -> Sequence[Delivered]:
        """Return up to `most` messages, after a while none.

        Raises:
            ServiceError: the connection is of no use any more.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection; what is in our hands is delivered again."""
        ...
