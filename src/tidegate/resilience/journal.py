"""The journal: what a service answered is replayed, never asked for again."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from tidegate.errors import NotFound, OutcomeUnknown, Permanent, Refused, ServiceError
from tidegate.resilience.guard import Answer, Keep
from tidegate.state import JSON, hash_of
from tidegate.store.blobs import give_back
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.leases import Lease, Leases, check, stopping
from tidegate.store.transactions import Connection, Store
from tidegate.telemetry import events

Reconcile: TypeAlias = Literal["repeat", "give_up"] | Callable[[str], Awaitable[JSON | None]]
"""What to do about an intent that has no answer: the request may have been made, and even carried out.

`repeat` it under its idempotency key; `give_up` with OutcomeUnknown; or ask the service what became of the idempotency
key: None if it knows nothing of it, so that the request is repeated. NotFound, when raised, is the answer.
"""

Ask: TypeAlias = Callable[[str, Keep[JSON]], Awaitable[Answer[JSON]]]
"""Makes the call, retries and all, under an idempotency key; `Guard.call` is to keep the answer."""

_READ: Final = """
    SELECT idempotency_key, answered_at IS NOT NULL, tidegate_now() - answered_at, found, attempts, answer, thread_id
    FROM calls WHERE cache_key = ?
"""
_INTEND: Final = """
    INSERT INTO calls (cache_key, service, operation, idempotency_key, thread_id, document_id, intended_at)
    VALUES (?, ?, ?, ?, ?, (SELECT document_id FROM threads WHERE thread_id = ?), tidegate_now())
    ON CONFLICT (cache_key) DO UPDATE SET idempotency_key = excluded.idempotency_key, thread_id = excluded.thread_id,
        document_id = excluded.document_id, intended_at = excluded.intended_at, answered_at = NULL, found = 0,
        attempts = 0, answer = NULL
    WHERE calls.idempotency_key = ?
    RETURNING idempotency_key
"""
_ANSWER: Final = """
    UPDATE calls SET answered_at = tidegate_now(), found = ?, attempts = ?, answer = ?, thread_id = ?,
        document_id = (SELECT document_id FROM threads WHERE thread_id = ?)
    WHERE cache_key = ? AND idempotency_key = ? AND answered_at IS NULL
"""
_WITHDRAW: Final = "DELETE FROM calls WHERE cache_key = ? AND idempotency_key = ? AND answered_at IS NULL"
_FORGET: Final = "DELETE FROM calls WHERE cache_key = ? AND answered_at IS NOT NULL"
_FORGET_NOT_FOUND: Final = "DELETE FROM calls WHERE answered_at IS NOT NULL AND found = 0"
_FORGET_DOCUMENT: Final = "DELETE FROM calls WHERE document_id = ?"
_PRUNE: Final = "DELETE FROM calls WHERE found = ? AND answered_at < tidegate_now() - ?"
_PRUNE_INTENTS: Final = "DELETE FROM calls WHERE answered_at IS NULL AND intended_at < tidegate_now() - ?"

_PRUNE_EVERY: Final = 86400.0
_INTENT_TTL: Final = 2592000.0
"""Seconds after which no request is repeated under its idempotency key any more: services forget keys within days."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of a service. Calls with the same `cache_key` have the same answer."""

    service: str
    operation: str
    cache_key: str

    @classmethod
    def of(cls, service: str, operation: str, *asked: object) -> Self:
        """Name a call; `asked` are JSON values, normalised: whatever shapes the answer, and nothing else."""
        return cls(service, operation, hash_of(service, operation, *asked))


@dataclass(frozen=True, slots=True)
class _Intent:
    idempotency_key: str
    is_open: bool
    """An earlier execution had it, and it was not answered."""


@dataclass(frozen=True, slots=True)
class _Replay:
    answer: JSON | None
    attempts: int


class _Turns:
    """The turns of those who ask the same at the same time, and how the last turn that failed did so."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.failures = 0
        self.failure: ServiceError | None = None


class Journal:
    """Calls by cache key: an intent before each, its answer after it.

    Of several callers of one cache key on one event loop, the first calls the service, and the others wait for it and
    find its answer, or share its failure: so none waits longer than one call may take. Across loops and processes
    nobody waits: at worst both call, under the same idempotency key, and the answer that is recorded first is kept.
    """

    def __init__(
        self,
        database: Store,
        leases: Leases,
        *,
        enabled: bool = True,
        ttl: float = 2592000.0,
        not_found_ttl: float = 86400.0,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
        clock: Clock | None = None,
    ) -> None:
        """Keep answers for `ttl` seconds, those that there is no such thing for `not_found_ttl`.

        An intent without an answer is kept for 30 days, or for `ttl` if that is longer.

        One that is not `enabled` keeps nothing: each call has an idempotency key of its own. Executions make their
        calls under their lease in `leases`.
        """
        self._database = database
        self._leases = leases
        self._enabled = enabled
        self._ttl = ttl
        self._not_found_ttl = min(ttl, not_found_ttl)
        self._new_key = new_key
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, _Turns]]
        self._turns = WeakKeyDictionary()
        self._clock = clock or SystemClock()
        self._prune_at = -math.inf

    async def call(
        self,
        call: Call,
        ask: Ask,
        *,
        usable: Callable[[JSON], bool] = lambda _: True,
        reconcile: Reconcile = "repeat",
    ) -> Answer[JSON]:
        """Return the answer that is recorded, or make the call and record its answer.

        A recorded answer that is not `usable`, as may be after the code changed, is forgotten. `attempts` of a replayed
        one are those that this thread made for it, so 0 if another thread did. `ask` has to `confirm` before each
        request.

        Raises:
            NotFound: there is no such thing; this answer is recorded and replayed, too.
            OutcomeUnknown: an earlier request was not answered, and `reconcile` says to give up.
            LeaseLost: another process has taken the thread over; no call was made.
            ServiceError: what else `ask` raises. The intent stays, and its idempotency key with it, unless it is known
                that nothing was done under it. Who waited for another caller gets a copy of its error, of no attempts.
        """
        if not self._enabled:
            return await ask(self._new_key(), _keep_nothing)
        of_loop = self._turns.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        turns = of_loop.setdefault(call.cache_key, _Turns())
        known = turns.failures
        async with turns.lock:
            if turns.failure is not None and turns.failures != known:  # it failed while this caller waited
                raise _shared(turns.failure)
            try:
                return await self._answer(call, ask, usable, reconcile)
            except NotFound:
                raise  # an answer, which the others find
            except ServiceError as error:
                turns.failures, turns.failure = turns.failures + 1, _shared(error)  # without its traceback
                raise

    async def _answer(self, call: Call, ask: Ask, usable: Callable[[JSON], bool], reconcile: Reconcile) -> Answer[JSON]:
        begun = await self._begin(call)
        if isinstance(begun, _Replay) and begun.answer is not None and not usable(begun.answer):
            await self._forget(call)
            begun = await self._begin(call)
        if isinstance(begun, _Replay):
            events.replayed(call.service, call.operation)
            if begun.answer is None:
                raise NotFound(call.service, "answered so before", attempts=begun.attempts)
            return Answer(begun.answer, begun.attempts)
        return await self._ask(call, begun, ask, reconcile)

    async def _ask(self, call: Call, intent: _Intent, ask: Ask, reconcile: Reconcile) -> Answer[JSON]:
        kept = False

        async def keep(answer: JSON | None, attempts: int) -> None:
            nonlocal kept
            kept = True
            await self._record(call, intent, answer, attempts)

        try:
            answer = await self._reconciled(call, intent, reconcile) or await ask(intent.idempotency_key, keep)
        except NotFound as error:
            if not kept:
                await keep(None, error.attempts)
            raise
        except ServiceError as error:
            rejected = error.attempts == 1 and isinstance(error, (Permanent, Refused))
            if not intent.is_open and (error.attempts == 0 or rejected):  # so nothing was done under its key
                await self._withdraw(call, intent)
            raise
        if not kept:
            await keep(answer.value, answer.attempts)
        return answer

    async def _reconciled(self, call: Call, intent: _Intent, reconcile: Reconcile) -> Answer[JSON] | None:
        if not intent.is_open or reconcile == "repeat":
            return None
        if reconcile == "give_up":
            problem = "an earlier request was not answered; look there what became of it"
            raise OutcomeUnknown(call.service, problem, attempts=1)
        known = await reconcile(intent.idempotency_key)
        return None if known is None else Answer(known, 0)

    async def forget(self, document_id: str, leases: Sequence[Lease] = ()) -> int:
        """Delete the calls that were last made for this document, and return how many there were.

        Raises:
            LeaseLost: another process has taken over one of the leases, and nothing was deleted.
        """

        def delete(connection: Connection) -> int:
            check(connection, *leases)
            count = connection.execute(_FORGET_DOCUMENT, (document_id,)).rowcount
            give_back(connection)
            return count

        return await self._database.write(delete)

    async def forget_not_found(self) -> int:
        """Delete the answers that there is no such thing, as after a wrong address, and return how many there were."""
        return await self._database.write(lambda connection: connection.execute(_FORGET_NOT_FOUND).rowcount)

    async def confirm(self) -> None:
        """Make sure, before each request, that the execution around the caller still holds its lease.

        Raises:
            LeaseLost: another process has taken the thread over.
        """
        await self._leases.confirm()

    def _key(self, call: Call) -> str:
        """Return what a call is found by; under a key, nobody without it can tell which question that is."""
        codec = self._database.codec
        return codec.digest([call.cache_key.encode()]).hex() if codec.encrypts else call.cache_key

    async def _begin(self, call: Call) -> _Intent | _Replay:
        lease = self._leases.current()
        key = self._new_key()
        self._prune()

        cache_key = self._key(call)

        def begin(connection: Connection) -> _Intent | _Replay:
            _check(connection, lease)
            while True:
                row = connection.execute(_READ, (cache_key,)).fetchone()
                if row is not None:
                    known, is_answered, age, found, attempts, answer, thread_id = row
                    if not is_answered:
                        return _Intent(known, is_open=True)
                    parsed = self._parsed(answer) if found else None
                    lifetime = self._ttl if found else self._not_found_ttl
                    is_whole = parsed is not None or not found
                    if is_whole and abs(age) < lifetime:  # a clock that was set back adds one lifetime at most
                        own = lease is not None and lease.thread_id == thread_id
                        return _Replay(parsed, attempts if own else 0)
                thread_id = lease.thread_id if lease else None
                values = (cache_key, call.service, call.operation, key, thread_id, thread_id, row[0] if row else "")
                if connection.execute(_INTEND, values).fetchone() is not None:
                    return _Intent(key, is_open=False)
                # Another was faster, as can be where transactions run side by side.

        with stopping():
            return await self._database.write(begin)

    async def _record(self, call: Call, intent: _Intent, answer: JSON | None, attempts: int) -> None:
        """Record an answer, even if the caller is cancelled now: it was paid for."""
        lease = self._leases.current()
        packed = None
        if answer is not None:
            packed = self._database.codec.pack(json.dumps(answer, separators=(",", ":")).encode())
        thread_id = lease.thread_id if lease else None
        values = (
            int(answer is not None),
            attempts,
            packed,
            thread_id,
            thread_id,
            self._key(call),
            intent.idempotency_key,
        )

        def update(connection: Connection) -> None:
            _check(connection, lease)
            connection.execute(_ANSWER, values)

        with stopping():
            await asyncio.shield(self._database.queue(update))

    async def _forget(self, call: Call) -> None:
        await self._database.write(lambda connection: connection.execute(_FORGET, (self._key(call),)))

    async def _withdraw(self, call: Call, intent: _Intent) -> None:
        lease = self._leases.current()

        def delete(connection: Connection) -> None:
            _check(connection, lease)
            connection.execute(_WITHDRAW, (self._key(call), intent.idempotency_key))

        with stopping():
            await self._database.write(delete)

    def _parsed(self, stored: bytes) -> JSON | None:
        """Return a recorded answer, None if it was damaged."""
        try:
            value = json.loads(self._database.codec.unpack(bytes(stored)))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def _prune(self) -> None:
        """Delete what is too old to be replayed, at the first call and once a day, without waiting for it."""
        now = self._clock.monotonic()
        if now < self._prune_at:
            return
        self._prune_at = now + _PRUNE_EVERY

        def delete(connection: Connection) -> None:
            connection.execute(_PRUNE, (1, self._ttl))
            connection.execute(_PRUNE, (0, self._not_found_ttl))
            connection.execute(_PRUNE_INTENTS, (max(self._ttl, _INTENT_TTL),))
            give_back(connection)

        self._database.submit(delete)


def _shared(error: ServiceError) -> ServiceError:
    """Return a copy for a caller who made no request; each has its own, since raising one changes it."""
    copy = type(error).__new__(type(error), *error.args)  # not by `__init__`, whose arguments differ by class
    vars(copy).update(vars(error), attempts=0)
    copy.__cause__ = error.__cause__  # which `why` tells of
    return copy


def _check(connection: Connection, lease: Lease | None) -> None:
    if lease is not None:
        check(connection, lease)


async def _keep_nothing(answer: JSON | None, attempts: int) -> None:
    pass
