"""Crash points: a process kills itself around the n-th write of a checkpoint or of the journal.

A point is `WRITE:SIDE:N`. WRITE is `checkpoint`, a step's pending `writes`, or the journal's `intent` and `answer`;
those can be of one service alone, as in `answer@model`. SIDE is `before` or `after`. N counts from 1.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver

from tidegate.resilience.journal import Call, Journal

_METHODS: Final = {"checkpoint": ("put", "aput"), "writes": ("put_writes", "aput_writes")}
_JOURNAL: Final = {"intent": "_begin", "answer": "_record"}
_POINT = re.compile(rf"(({'|'.join(_METHODS)})|({'|'.join(_JOURNAL)})(@[^:]+)?):(before|after):[1-9][0-9]*")

_within: ContextVar[bool] = ContextVar("tidegate-within-a-write", default=False)


class Fuse:
    """Kills the process when it reaches a point, `NAME:N`, for the Nth time. The names are yours."""

    def __init__(self, point: str) -> None:
        """Set the point; an empty one is never reached."""
        self._point = point
        self._counts: Counter[str] = Counter()

    def reach(self, *names: str) -> None:
        """Die here, if this is the point; it may have several names."""
        for name in names:
            self._counts[name] += 1
            if f"{name}:{self._counts[name]}" == self._point:
                os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def crash_at(point: str) -> Iterator[None]:
    """Have this process killed, by SIGKILL, when it reaches the point; the module's docstring says what points are.

    Watches all savers, LangGraph's and your own too, and Tidegate's journal.

    Raises:
        ValueError: there is no such point.
    """
    _check(point)
    fuse, before = Fuse(point), list[tuple[type, str, Any]]()

    def replace(owner: type, name: str, watched: Any) -> None:
        before.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, watched)

    def watch(saver: type) -> None:
        for write, (blocking, awaited) in _METHODS.items():
            if blocking in saver.__dict__:
                replace(saver, blocking, _blocking(fuse, write, saver.__dict__[blocking]))
            if awaited in saver.__dict__:
                replace(saver, awaited, _awaited(fuse, write, saver.__dict__[awaited]))

    def loaded(saver: type[BaseCheckpointSaver[Any]], /, **options: Any) -> None:
        super(BaseCheckpointSaver, saver).__init_subclass__(**options)
        watch(saver)

    for saver in _savers():
        watch(saver)
    for write, name in _JOURNAL.items():
        replace(Journal, name, _journaled(fuse, write, Journal.__dict__[name]))
    # Savers are imported late, some only when a store is opened.
    setattr(BaseCheckpointSaver, "__init_subclass__", classmethod(loaded))  # noqa: B010 - it is another type's
    try:
        yield
    finally:
        del BaseCheckpointSaver.__init_subclass__
        for owner, name, method in reversed(before):
            setattr(owner, name, method)


def killed_at(point: str, work: Callable[..., None], *arguments: Any) -> None:
    """Do the work in a process of its own, which is killed at the point.

    `work` is a function of a module, and its arguments can be pickled: the process imports them. It has the work to
    itself, so it is to use a store that outlives it, such as `sqlite:///FILE`.

    Raises:
        ValueError: there is no such point.
        AssertionError: the process ended otherwise, perhaps before it came to the point.
    """
    _check(point)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(point, work, arguments))
    process.start()
    process.join()
    ended, status = process.exitcode == -signal.SIGKILL, process.exitcode
    process.close()
    if not ended:
        raise AssertionError(f"the process was not killed at {point}: it ended with status {status}")


def _check(point: str) -> None:
    if not _POINT.fullmatch(point):
        raise ValueError(f"{point!r} is no crash point; one is `checkpoint:before:2` or `answer@model:after:1`")


def _work(point: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with crash_at(point):
        work(*arguments)


def _savers() -> list[type]:
    """Return all classes of savers but the abstract one, each once."""
    found: dict[type, None] = {}
    further = BaseCheckpointSaver.__subclasses__()
    while further:
        saver = further.pop()
        if saver not in found:
            found[saver] = None
            further += saver.__subclasses__()
    return list(found)


def _blocking(fuse: Fuse, write: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        if _within.get():  # a saver that calls another, or its base, writes once
            return method(*args, **kwargs)
        token = _within.set(True)
        try:
            fuse.reach(f"{write}:before")
            result = method(*args, **kwargs)
            fuse.reach(f"{write}:after")
            return result
        finally:
            _within.reset(token)

    return watched


def _awaited(fuse: Fuse, write: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def watched(*args: Any, **kwargs: Any) -> Any:
        if _within.get():
            return await method(*args, **kwargs)
        token = _within.set(True)
        try:
            fuse.reach(f"{write}:before")
            result = await method(*args, **kwargs)
            fuse.reach(f"{write}:after")
            return result
        finally:
            _within.reset(token)

    return watched


def _journaled(fuse: Fuse, write: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def watched(self: Journal, call: Call, *rest: Any) -> Any:
        fuse.reach(f"{write}:before", f"{write}@{call.service}:before")
        result = await method(self, call, *rest)
        fuse.reach(f"{write}:after", f"{write}@{call.service}:after")
        return result

    return watched
