"""The event loop that a pipeline lives on, reached from other loops and from threads."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from langchain_core.runnables.config import var_child_runnable_config

from tidegate.errors import WrongThread

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


_GRACE = 5.0  # seconds for what is cancelled: one that cannot end must not keep its process from it


class Home:
    """The running loop, where the pipeline's connections were opened.

    Work runs in a task of its own, in the caller's context (so that spans nest) but outside any LangGraph run that the
    caller is part of: inside one, LangGraph would take our graph for a subgraph of it and use its checkpointer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Cancel what is still being worked on for streams that were left early, and wait until it has ended.

        Python closes an asynchronous generator that a `break` left some time after the block that it stood in, so its
        work outlived the store: it ended with an error that nobody could be told.
        """
        here = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not here and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE)

    async def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do the work on this loop, from whichever loop this is awaited on; cancelling the caller cancels the work."""
        context = _outside_of_runs()
        if asyncio.get_running_loop() is self._loop:
            return await self._loop.create_task(work, context=context)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._task(work, context), self._loop))

    async def stream(
        self, begin: Callable[[Callable[[_Item], None]], Coroutine[Any, Any, None]]
    ) -> AsyncGenerator[_Item, None]:
        """Do the work that `begin` returns, and yield what it emits; leaving the loop early cancels it.

        Raises:
            WrongThread: this is not the pipeline's own event loop.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise WrongThread(
                "a stream is iterated on the event loop that the pipeline was opened on; use `run` elsewhere"
            )
        items: asyncio.Queue[_Item | None] = asyncio.Queue()
        work = self._begin(begin(items.put_nowait), _outside_of_runs())
        work.add_done_callback(lambda _: items.put_nowait(None))
        try:
            while (item := await items.get()) is not None:
                yield item
            await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # taken note of: who left early does not want it, any other was told above

    def run_sync(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do the work on this loop and block this thread until it is done.

        Raises:
            WrongThread: this thread is the loop's own; await the async method there.
        """
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            work.close()
            raise WrongThread("a _sync method would block the event loop it needs; await the async method instead")
        future = asyncio.run_coroutine_threadsafe(self._task(work, _outside_of_runs()), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _task(self, work: Coroutine[Any, Any, _Result], context: contextvars.Context) -> _Result:
        return await self._loop.create_task(work, context=context)

    def _begin(self, work: Coroutine[Any, Any, _Result], context: contextvars.Context) -> asyncio.Task[_Result]:
        task = self._loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _outside_of_runs() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(var_child_runnable_config.set, None)
    return context
