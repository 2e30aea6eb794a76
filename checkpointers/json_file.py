"""Checkpoints as JSON files, for people who want to read them."""

from __future__ import annotations

import asyncio
import errno
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from tidegate.checkpointers.durable import locked, make_folder, name_for, sync_folder
from tidegate.checkpointers.json_format import Damaged
from tidegate.checkpointers.json_thread import ThreadFolder
from tidegate.checkpointers.retention import Rule
from tidegate.checkpointers.saving import (
    TAKEN,
    Address,
    Pruned,
    Saver,
    StrictSerializer,
    prune_each,
    put_span,
    uninterrupted,
)
from tidegate.checkpointers.url import STORE_FILE
from tidegate.errors import CheckpointDamaged, LeaseLost, SettingsError, ThreadError
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.leases import Lease, check_in, check_lease_in


class JsonFileSaver(Saver):
    """A folder of threads, which several processes may use at once.

    What is stored is on the disk when a method returns. A file that cannot be read raises `CheckpointDamaged`, and
    everything else can still be read. Every method raises `StoreError` where the disk is full or fails.
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        """Use this folder, creating it if need be; the clock tells how old checkpoints are.

        Raises:
            SettingsError: the folder above it is missing, or files cannot be written in it.
        """
        super().__init__(serde=StrictSerializer())
        self._threads = folder.absolute() / "threads"  # the process may change its working folder later
        self._store = folder.absolute() / STORE_FILE
        self._clock = clock or SystemClock()
        if not self._threads.parent.parent.is_dir():
            raise SettingsError(f"cannot open {folder}: the folder above it does not exist; create it or name another")
        try:
            make_folder(self._threads)
            with tempfile.TemporaryFile(dir=self._threads):
                pass
        except OSError as error:
            way_out = "name a folder that files can be written in"
            raise SettingsError(f"cannot use {folder}: {error.strerror}; {way_out}") from error

    # reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its thread and namespace; None if there is none.

        Raises:
            CheckpointDamaged: it cannot be read; the message says which file to move away to go on from which other.
        """
        thread = self._thread(_configurable(config)["thread_id"])
        folder = thread.namespace(_namespace(config))
        with locked(thread.path, exclusive=False) as there, _telling(thread, folder):
            checkpoint_id = get_checkpoint_id(config) or next(iter(thread.ids(folder)), None)
            if not there or not checkpoint_id or name_for(checkpoint_id) != checkpoint_id:
                return None
            return thread.load(thread.read(folder, checkpoint_id)) if thread.has(folder, checkpoint_id) else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """List checkpoints, newest first within a thread.

        Raises:
            CheckpointDamaged: when its turn comes. `before` this one, the listing can be taken up again.
        """
        wanted = get_checkpoint_id(config) if config else None
        end = get_checkpoint_id(before) if before else None
        for thread in [self._thread(_configurable(config)["thread_id"])] if config else self._all_threads():
            for folder, checkpoint_id in _contents(thread, config):
                if (wanted and checkpoint_id != wanted) or (end and checkpoint_id >= end):
                    continue
                if limit is not None and limit <= 0:
                    return
                # The lock is not held while the caller works on what it got: it may want to write.
                if each := _load_if(thread, folder, checkpoint_id, filter or {}):
                    yield each
                    limit = None if limit is None else limit - 1

    def _thread(self, thread_id: Any) -> ThreadFolder:
        return ThreadFolder(self._threads / name_for(str(thread_id)), self.serde, str(thread_id))

    def _all_threads(self) -> Sequence[ThreadFolder]:
        return [ThreadFolder(path, self.serde) for path in sorted(self._threads.glob("[!.]*")) if path.is_dir()]

    # writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint.

        Raises:
            LeaseLost: the config carries a lease of the thread that another process has taken over.
        """
        with put_span(config, checkpoint, metadata) as span:
            stored, size = self._put(config, checkpoint, metadata)
            span.size(size)
        return stored

    def _put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> tuple[RunnableConfig, int]:
        at = _address(config, checkpoint["id"])
        thread = self._thread(at.thread_id)
        with locked(thread.path, exclusive=True, create=True):
            self._check_lease(thread, config)
            size = thread.save(at, checkpoint, get_checkpoint_metadata(config, metadata), get_checkpoint_id(config))
        return at.config(), size

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote, all of it or nothing.

        Raises:
            CheckpointDamaged: the task wrote before, and that file cannot be read.
            LeaseLost: as `put`.
        """
        if not writes:
            return
        at = _address(config, _configurable(config)["checkpoint_id"])
        thread = self._thread(at.thread_id)
        with locked(thread.path, exclusive=True, create=True), _telling(thread, thread.namespace(at.checkpoint_ns)):
            self._check_lease(thread, config)
            thread.save_writes(at, writes, task_id, task_path)

    def _check_lease(self, thread: ThreadFolder, config: RunnableConfig) -> None:
        try:
            check_lease_in(self._store, config)
        except LeaseLost:
            if thread.is_empty():  # made for its lock alone
                self._drop(thread)
            raise

    async def afence(self, thread_id: str) -> None:
        """Return once no write that passed its check of a lease before can land any more.

        The lease is in another file: between check and rename another process may take it, but not the thread's lock.
        """
        await asyncio.to_thread(self._pass_lock, thread_id)

    def _pass_lock(self, thread_id: str) -> None:
        with locked(self._thread(thread_id).path, exclusive=True):
            pass

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread to an ID that has none, all of it or nothing; a source that does not exist is nothing.

        Raises:
            ThreadError: there is a thread under the target ID.
            CheckpointDamaged: a file of the source cannot be read.
        """
        self._copy(source_thread_id, target_thread_id, ())

    def _copy(self, source_thread_id: str, target_thread_id: str, leases: Sequence[Lease]) -> None:
        source, final = self._thread(source_thread_id), self._thread(target_thread_id).path
        unfinished = self._threads / f".copy-{final.name}"
        with locked(source.path, exclusive=False) as there, _telling(source, source.namespace("")):
            if not there:
                return
            with locked(unfinished, exclusive=True, create=True):
                target = ThreadFolder(unfinished, self.serde, str(target_thread_id))
                try:
                    target.clear()  # of a copy that was killed
                    source.copy(target)
                    check_in(self._store, *leases)
                    unfinished.rename(final)
                    sync_folder(self._threads)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                    raise ThreadError(target.thread_id, TAKEN) from None
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)

    # removing

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread: it is gone at once, then its files are removed. Calling this again removes what is left."""
        self._delete(thread_id, ())

    def _delete(self, thread_id: str, leases: Sequence[Lease]) -> None:
        thread = self._thread(thread_id)
        with locked(thread.path, exclusive=True) as there:
            check_in(self._store, *leases)
            if there:
                self._drop(thread)
        for leftover in self._threads.glob(f".deleted-{thread.path.name}-????????"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _drop(self, thread: ThreadFolder) -> None:
        dropped = self._threads / f".deleted-{thread.path.name}-{secrets.token_hex(4)}"
        thread.path.rename(dropped)
        sync_folder(self._threads)
        shutil.rmtree(dropped, ignore_errors=True)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made. One that cannot be read stays."""
        for thread in self._all_threads():
            with locked(thread.path, exclusive=True) as there:
                if there:
                    for folder in thread.namespaces():
                        thread.remove_runs(folder, run_ids)
                    thread.remove_unused_values()
                    if thread.is_empty():
                        self._drop(thread)

    def _prune_thread(self, thread_id: str, rule: Rule) -> int:
        return self._prune(self._thread(thread_id), rule)

    def prune_all(self, rule: Rule) -> Pruned:
        """Of all threads, keep what `prune` keeps and what a rule says."""
        return prune_each(self._all_threads(), lambda thread: self._prune(thread, rule))

    def _prune(self, thread: ThreadFolder, rule: Rule) -> int:
        """Prune a thread; a checkpoint that cannot be read stays, unless it is the latest: then nothing is removed."""
        with locked(thread.path, exclusive=True) as there:
            if not there:
                return 0
            described = {}
            for folder in thread.namespaces():
                with _telling(thread, folder):
                    described[folder] = thread.describe(folder, self._clock.now())
            return thread.prune(described, rule)

    # the same for callers on an event loop

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (each := await asyncio.to_thread(next, found, None)) is not None:
            yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        with put_span(config, checkpoint, metadata) as span:
            stored, size = await uninterrupted(asyncio.to_thread(self._put, config, checkpoint, metadata))
            span.size(size)
        return stored

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await uninterrupted(asyncio.to_thread(self.put_writes, config, writes, task_id, task_path))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `copy_thread`; `LeaseLost` if one of the leases was lost."""
        await uninterrupted(asyncio.to_thread(self._copy, source_thread_id, target_thread_id, leases))

    async def adelete_thread(self, thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `delete_thread`; `LeaseLost` if one of the leases was lost."""
        await uninterrupted(asyncio.to_thread(self._delete, thread_id, leases))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await uninterrupted(asyncio.to_thread(self.delete_for_runs, run_ids))

    async def _aprune_thread(self, thread_id: str, rule: Rule) -> int:
        return await uninterrupted(asyncio.to_thread(self._prune_thread, thread_id, rule))

    async def aprune_all(self, rule: Rule) -> Pruned:
        """As `prune_all`."""
        return await uninterrupted(asyncio.to_thread(self.prune_all, rule))


def _configurable(config: RunnableConfig) -> dict[str, Any]:
    return config.get("configurable", {})


def _namespace(config: RunnableConfig) -> str:
    return str(_configurable(config).get("checkpoint_ns") or "")


def _address(config: RunnableConfig, checkpoint_id: str) -> Address:
    if name_for(checkpoint_id) != checkpoint_id:
        raise ValueError("a checkpoint's ID must be 1 to 64 lower-case letters, digits, _ and -")
    return Address(str(_configurable(config)["thread_id"]), _namespace(config), checkpoint_id)


def _contents(thread: ThreadFolder, config: RunnableConfig | None) -> Sequence[tuple[Path, str]]:
    checkpoint_ns = _configurable(config).get("checkpoint_ns") if config else None
    with locked(thread.path, exclusive=False) as there:
        if not there:
            return []
        folders = thread.namespaces() if checkpoint_ns is None else [thread.namespace(checkpoint_ns)]
        found = [(folder, checkpoint_id) for folder in folders for checkpoint_id in thread.ids(folder)]
    return sorted(found, key=lambda each: each[1], reverse=True)


def _load_if(thread: ThreadFolder, folder: Path, checkpoint_id: str, wanted: dict[str, Any]) -> CheckpointTuple | None:
    with locked(thread.path, exclusive=False) as there, _telling(thread, folder):
        if not there or not thread.has(folder, checkpoint_id):  # deleted since it was listed
            return None
        file = thread.read(folder, checkpoint_id)
        metadata = thread.metadata(file)
        return thread.load(file) if all(metadata.get(key) == value for key, value in wanted.items()) else None


@contextmanager
def _telling(thread: ThreadFolder, folder: Path) -> Iterator[None]:
    """Tell the caller about damage, and what is left in this namespace; needs the thread's lock."""
    try:
        yield
    except Damaged as damage:
        whole = thread.newest_whole(folder)
        then = f"go on from checkpoint {whole}, the newest that is whole" if whole else "start anew: no other is whole"
        problem = f"is damaged: {damage}; move {damage.remove} away to {then}"
        raise CheckpointDamaged(thread.thread_id, problem) from damage
