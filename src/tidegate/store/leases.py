"""Leases: a thread is run by one process at a time, and whoever lost it changes nothing any more."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from tidegate.errors import LeaseLost, ThreadBusy
from tidegate.state import LEASE
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.connection import BUSY_TIMEOUT, told
from tidegate.store.dialect import FOR_SHARE
from tidegate.store.owner import Owner
from tidegate.store.transactions import Connection, Store

_log = logging.getLogger(__name__)

_COLUMNS: Final = """
    epoch, held, ttl, tidegate_now(), tidegate_now() - renewed_at, tidegate_ticks() - renewed_tick,
        host, boot, pid_namespace, pid, started
"""
_READ: Final = f"SELECT {_COLUMNS} FROM leases WHERE thread_id = ?"  # noqa: S608 - ours, as all of these
_READ_RUNNING: Final = f"""
    SELECT thread_id, {_COLUMNS} FROM leases
    WHERE held = 1 AND thread_id IN (SELECT thread_id FROM threads WHERE status = 'running')
"""  # noqa: S608
_TAKE: Final = """
    INSERT INTO leases (thread_id, epoch, held, host, boot, pid_namespace, pid, started, ttl, renewed_at, renewed_tick)
    VALUES (?, 1, 1, ?, ?, ?, ?, ?, ?, tidegate_now(), tidegate_ticks())
    ON CONFLICT (thread_id) DO UPDATE SET epoch = leases.epoch + 1, held = 1, host = excluded.host,
        boot = excluded.boot, pid_namespace = excluded.pid_namespace, pid = excluded.pid, started = excluded.started,
        ttl = excluded.ttl, renewed_at = excluded.renewed_at, renewed_tick = excluded.renewed_tick
    WHERE leases.epoch = ?
    RETURNING epoch
"""
_RENEW: Final = """
    UPDATE leases SET renewed_at = tidegate_now(), renewed_tick = tidegate_ticks()
    WHERE thread_id = ? AND epoch = ? AND held = 1
"""
_RELEASE: Final = "UPDATE leases SET held = 0 WHERE thread_id = ? AND epoch = ?"
_BOUND: Final = "UPDATE leases SET renewed_at = tidegate_now() WHERE thread_id = ? AND renewed_at > tidegate_now()"
CHECK: Final = "SELECT 1 FROM leases WHERE thread_id = ? AND epoch = ? AND held = 1 " + FOR_SHARE  # noqa: S608


_OWNER: Final = slice(6, None)
"""Where a row of `_READ` holds the owner."""

_held_here: set[tuple[object, str, int]] = set()
"""By database, thread and epoch: what this process has acquired and not released."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a thread. `epoch` grows with every holder, so that it tells the present one from all before."""

    thread_id: str
    epoch: int

    def configurable(self) -> dict[str, Any]:
        """Return what `config["configurable"]` has to hold, for the savers to check."""
        return {LEASE: {"thread_id": self.thread_id, "epoch": self.epoch}}


@dataclass(slots=True, eq=False)
class _Holding:
    """A lease that an execution holds. `renewed` is the monotonic and the wall-clock time of its last renewal."""

    leases: Leases
    lease: Lease
    task: asyncio.Task[Any]
    renewed: tuple[float, float]
    is_lost: bool = False
    is_over: bool = False

    def lose(self) -> None:
        """Cancel the execution, from any thread."""
        self.task.get_loop().call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if not self.is_lost and not self.is_over:
            self.is_lost = True
            self.task.cancel()


# Not the config of a node, which the services behind it do not see. Tasks, `asyncio.to_thread` and LangGraph's branches
# inherit it.
_holding: ContextVar[_Holding | None] = ContextVar("tidegate-lease", default=None)


class Leases:
    """Who runs which thread, in the store's database.

    An owner that has died on this machine is known to be dead, so that its threads can be taken over at once; any other
    keeps a thread until it was silent for the TTL. On one machine the TTL is measured by monotonic time, and no step of
    the wall clock counts. Between machines a clock that was set back lengthens a lease to one TTL from the first
    attempt to take it, at most.
    """

    def __init__(
        self, database: Store, *, ttl: float = 30.0, owner: Owner | None = None, clock: Clock | None = None
    ) -> None:
        """Use the database, which stays the caller's to close. `ttl` is in seconds; the heartbeat is a third of it.

        `clock` is that of the heartbeat. It is apart from the database's, which a test may move as it likes.
        """
        self._database = database
        self._ttl = ttl
        self._owner = owner
        self._clock = clock or SystemClock()
        self._unwanted: set[Future[Lease | ThreadBusy]] = set()

    async def acquire(self, thread_id: str) -> Lease:
        """Take a thread's lease.

        Raises:
            ThreadBusy: another execution holds it; the message says which process, and until when.
        """
        owner = self._owner or Owner.current()  # asked anew each time, since the process may be a fork

        def take(connection: Connection) -> Lease | ThreadBusy:
            while True:
                row = connection.execute(_READ, (thread_id,)).fetchone()
                if row is not None and not self._was_not_given_back(thread_id, row, owner):
                    busy = _busy(thread_id, row, owner)
                    if busy is not None:
                        connection.execute(_BOUND, (thread_id,))
                        return busy
                values = (owner.host, owner.boot, owner.pid_namespace, owner.pid, owner.started, self._ttl)
                taken = connection.execute(_TAKE, (thread_id, *values, row[0] if row else 0)).fetchone()
                if taken is not None:  # else another was faster, as can be where transactions run side by side
                    lease = Lease(thread_id, int(taken[0]))
                    _held_here.add((self, thread_id, lease.epoch))  # before anybody can see the row
                    return lease

        taking = self._database.submit(take)
        try:
            found = await asyncio.shield(asyncio.wrap_future(taking))
        except asyncio.CancelledError:
            self._unwanted.add(taking)
            taking.add_done_callback(self._give_back)  # nobody else would
            raise
        if isinstance(found, ThreadBusy):
            raise found
        return found

    def _give_back(self, taking: Future[Lease | ThreadBusy]) -> None:
        try:
            if taking.cancelled() or taking.exception() is not None or not isinstance(lease := taking.result(), Lease):
                return
            _held_here.discard((self, lease.thread_id, lease.epoch))
            with suppress(RuntimeError):  # closed without `settle`: the lease ends with its process, or its TTL
                self._database.submit(lambda connection: connection.execute(_RELEASE, (lease.thread_id, lease.epoch)))
        finally:
            self._unwanted.discard(taking)

    async def settle(self) -> None:
        """Wait, before the database is closed, until leases whose takers were cancelled are on their way back."""
        while unwanted := list(self._unwanted):
            await asyncio.gather(*(asyncio.wrap_future(each) for each in unwanted), return_exceptions=True)

    def _was_not_given_back(self, thread_id: str, row: tuple[Any, ...], owner: Owner) -> bool:
        """Whether it is this process's own, and could not be released: the server was away.

        One that is held in another database under the same name and epoch passes for it: nobody can tell whether two
        URLs name the same database, and a lease that ends late does no harm.
        """
        held = {lease[1:] for lease in tuple(_held_here)}
        return Owner(*row[_OWNER]) == owner and (thread_id, row[0]) not in held

    async def holder(self, thread_id: str) -> ThreadBusy | None:
        """Return what `acquire` would raise now: who runs the thread, None if nobody does."""
        owner = self._owner or Owner.current()

        def look(connection: Connection) -> ThreadBusy | None:
            row = connection.execute(_READ, (thread_id,)).fetchone()
            return None if row is None else _busy(thread_id, row, owner)

        return await self._database.read(look)

    async def renew(self, lease: Lease) -> None:
        """Begin the TTL anew.

        Raises:
            LeaseLost: another process has taken the thread over.
        """

        def update(connection: Connection) -> int:
            return connection.execute(_RENEW, (lease.thread_id, lease.epoch)).rowcount

        if not await self._database.write(update):
            raise lost(lease.thread_id)

    async def release(self, lease: Lease) -> None:
        """Give the thread back, even if the caller is cancelled; one that was lost is another's, and stays so."""

        def update(connection: Connection) -> None:
            connection.execute(_RELEASE, (lease.thread_id, lease.epoch))

        _held_here.discard((self, lease.thread_id, lease.epoch))
        await asyncio.shield(asyncio.wrap_future(self._database.submit(update)))

    @asynccontextmanager
    async def hold(self, thread_id: str) -> AsyncIterator[Lease]:
        """Hold a thread's lease inside the block, renewing it, and give it back at the end.

        Once it is lost, whether the heartbeat, a saver or the journal finds out, the task that runs the block is
        cancelled: refusing what it saves does not keep it from making further calls (16 to 18, LangGraph 1.2.22).

        Raises:
            ThreadBusy: as `acquire`.
            LeaseLost: another process took the thread over meanwhile.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = task.cancelling()
        began = self._time()
        lease = await self.acquire(thread_id)
        holding = _Holding(self, lease, task, began)
        token = _holding.set(holding)
        beating = asyncio.create_task(self._beat(holding))
        try:
            yield lease
        except asyncio.CancelledError:
            if not holding.is_lost or task.cancelling() - 1 > cancelling:  # somebody else cancels it, too
                raise
            raise lost(thread_id) from None
        finally:
            holding.is_over = True
            if holding.is_lost:
                task.uncancel()
            _holding.reset(token)
            beating.cancel()
            await self.release(lease)

    async def _beat(self, holding: _Holding) -> None:
        while True:
            await self._clock.sleep(self._ttl / 3)
            began = self._time()
            try:
                await self.renew(holding.lease)
            except LeaseLost:
                holding.lose()
                return
            except Exception:  # noqa: BLE001 - whatever ails the database, the next beat may find it well
                _log.warning("the lease of thread %s could not be renewed", holding.lease.thread_id, exc_info=True)
            else:
                holding.renewed = began

    def current(self) -> Lease | None:
        """Return the lease that the execution around the caller holds here, None outside of any."""
        holding = _holding.get()
        return holding.lease if holding is not None and holding.leases is self else None

    async def confirm(self) -> None:
        """Make sure, before a call to a service, that the execution around the caller still holds its lease.

        Costs nothing while the TTL of the last renewal runs, in which nobody else can have taken it.

        Raises:
            LeaseLost: another process has taken the thread over.
        """
        holding = _holding.get()
        if holding is None or holding.leases is not self:
            return
        # Both clocks: the monotonic one stands still while a virtual machine is paused.
        if all(now - renewed < self._ttl for now, renewed in zip(self._time(), holding.renewed, strict=True)):
            return
        lease = holding.lease
        with stopping():
            await self._database.read(lambda connection: check(connection, lease))

    def _time(self) -> tuple[float, float]:
        return self._clock.monotonic(), self._clock.now()


class _Stopping:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LeaseLost) and (holding := _holding.get()) is not None:
            holding.lose()


_STOPPING = _Stopping()


def stopping() -> _Stopping:
    """Stop the execution around the caller if the block finds its lease lost.

    Every write of a branch passes by here; a generator as context manager would cost it a microsecond.
    """
    return _STOPPING


def check(connection: Connection, *leases: Lease) -> None:
    """Make sure that the leases are still held, for the rest of the caller's writing transaction.

    Raises:
        LeaseLost: another process has taken the thread over, or the lease was given back.
    """
    for lease in leases:
        if connection.execute(CHECK, (lease.thread_id, lease.epoch)).fetchone() is None:
            raise lost(lease.thread_id)


def running(connection: Connection) -> set[str]:
    """Return which of the threads that the registry has as running somebody does run."""
    asking = Owner.current()
    return {thread_id for thread_id, *row in connection.execute(_READ_RUNNING) if _busy(thread_id, row, asking)}


def check_lease(connection: Connection, config: Mapping[str, Any]) -> None:
    """Do the same for the lease that a saver's `config` carries; without one, and for other threads, nothing.

    Raises:
        LeaseLost: as `check`.
    """
    if (lease := lease_in(config)) is not None:
        check(connection, lease)


def check_in(database: Path, *leases: Lease) -> None:
    """Do what `check` does, for a saver whose checkpoints are not in the store's `database`.

    Nothing keeps a lease from being lost after this: whoever takes it has to wait for the saver's own lock.

    Raises:
        LeaseLost: as `check`; also if there is no such database, or no leases in it.
        StoreError: it cannot be read.
    """
    if not leases:
        return
    uri = f"{database.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)) as connection:
            check(connection, *leases)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise (told(str(database), error) if database.is_file() else None) or lost(leases[0].thread_id) from error


def check_lease_in(database: Path, config: Mapping[str, Any]) -> None:
    """Do what `check_lease` does, for such a saver.

    Raises:
        LeaseLost, StoreError: as `check_in`.
    """
    if (lease := lease_in(config)) is not None:
        check_in(database, lease)


def lease_in(config: Mapping[str, Any]) -> Lease | None:
    """Return the lease that a config carries for its thread, None if there is none: LangGraph is used by itself."""
    configurable = config.get("configurable", {})
    carried = configurable.get(LEASE)
    if carried is None or carried["thread_id"] != str(configurable.get("thread_id")):
        return None
    return Lease(carried["thread_id"], carried["epoch"])


def _busy(thread_id: str, row: Sequence[Any], asking: Owner) -> ThreadBusy | None:
    _, held, ttl, now, elapsed, ticks, *described = row
    holder = Owner(*described)
    same_boot = holder.boot != "" and holder.boot == asking.boot
    remaining = ttl - ticks if same_boot else min(ttl, ttl - elapsed)
    if not held or remaining <= 0 or holder.is_dead():
        return None
    until = datetime.fromtimestamp(now + remaining, UTC)
    problem = (
        f"is being run by process {holder.pid} on {holder.host}, until {until:%H:%M:%S} UTC unless that goes on; "
        "wait for it, or stop that process"
    )
    return ThreadBusy(thread_id, problem, until=now + remaining)


def lost(thread_id: str) -> LeaseLost:
    """Return the error for a lease that another process has taken."""
    return LeaseLost(
        thread_id, "was taken over by another process, since this one was silent for too long; look at it there"
    )
