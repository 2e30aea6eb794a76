"""A text too long for one question to a chat model: cut into parts, each asked about, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from langchain_core.messages import HumanMessage
from langchain_core.messages.utils import count_tokens_approximately

from tidegate.errors import CircuitOpen, ServiceError
from tidegate.services.chat import Chat

P = TypeVar("P")
A = TypeVar("A")


def in_parts(pieces: Iterable[P], text: Callable[[P], str], budget: int) -> list[list[P]]:
    """Return the pieces in parts of at most `budget` tokens; one that is longer is a part of its own."""
    parts: list[list[P]] = []
    left = 0
    for piece in pieces:
        size = tokens(text(piece))
        if not parts or size > left:
            parts.append([])
            left = budget
        parts[-1].append(piece)
        left -= size
    return parts


def tokens(text: str) -> int:
    """Estimate tokens, four bytes of UTF-8 each: a character of Chinese, three bytes, is nearly a token."""
    size = len(text.encode(errors="replace"))
    return count_tokens_approximately([HumanMessage(text)], chars_per_token=4 * max(1, len(text)) / max(1, size))


async def ask_each(
    chat: Chat, parts: Sequence[P], ask: Callable[[int, P], Awaitable[A]], *, concurrency: int
) -> list[A]:
    """Ask about every part, given with its place, and return the answers in their order.

    As many at once as the guard lets through, since to wait for it would use up a call's budget; one at a time until
    the circuit is closed, since those refused beside the one probe would cancel it.

    Raises:
        ServiceError: what the first of them to fail raised; the others are cancelled.
    """
    answers: dict[int, A] = {}
    waiting = iter(enumerate(parts))

    async def work(*, until_proven: bool = False) -> None:
        for at, part in waiting:
            answers[at] = await ask(at, part)
            if until_proven and await chat.is_proven():
                return

    if not await chat.is_proven():
        await work(until_proven=True)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(parts))):
                group.create_task(work())
    except ExceptionGroup as failed:
        error = min(failed.exceptions, key=lambda error: (isinstance(error, ServiceError), type(error) is CircuitOpen))
        raise error from error.__cause__
    return [answers[at] for at in range(len(parts))]
