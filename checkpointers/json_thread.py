"""One thread's folder: a file for each checkpoint, one for what each task wrote on it, one for each large value.

checkpoints/<checkpoint ID>.json                    the thread's own
checkpoints/<checkpoint ID>.writes/<task ID>.json   what a task wrote on it
subgraphs/<namespace>/...                           the same, for each subgraph
values/<SHA-256>.json                               a value too large to repeat in every checkpoint
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from tidegate.checkpointers.durable import make_folder, name_for, sync_folder, write_whole
from tidegate.checkpointers.json_format import (
    AnyFile,
    CheckpointFile,
    Damaged,
    Write,
    WritesFile,
    dump_json,
    parse,
    parse_json,
    value_file,
)
from tidegate.checkpointers.json_values import decode, encode
from tidegate.checkpointers.retention import REVISION, Kept, Links, Rule, described, doomed
from tidegate.checkpointers.saving import Address

_OURS = frozenset({".lock", ".new", "checkpoints", "subgraphs", "values"})

LARGE = 8 * 1024
"""Bytes of JSON from which on a value gets a file of its own."""


class ThreadFolder:
    """The files of one thread. Its methods need the folder's lock; those that change something, the exclusive one."""

    def __init__(self, path: Path, serde: SerializerProtocol, thread_id: str | None = None) -> None:
        """The thread of a folder that is found may be unknown; a folder that is being made has another name yet."""
        self.path = path
        self.name = path.name if thread_id is None else name_for(thread_id)
        self.thread_id = self.name if thread_id is None else thread_id
        self._serde = serde

    def namespace(self, checkpoint_ns: str) -> Path:
        """Return the folder of a namespace."""
        return self.path / "subgraphs" / name_for(checkpoint_ns) if checkpoint_ns else self.path / "checkpoints"

    def namespaces(self) -> list[Path]:
        """Return the folders of all namespaces."""
        return [each for each in (self.path / "checkpoints", *self.path.glob("subgraphs/*")) if each.is_dir()]

    def ids(self, folder: Path) -> list[str]:
        """Return the checkpoint IDs of a namespace, newest first."""
        return sorted((path.stem for path in folder.glob("*.json")), reverse=True)

    def has(self, folder: Path, checkpoint_id: str) -> bool:
        """Whether there is this checkpoint."""
        return (folder / f"{checkpoint_id}.json").is_file()

    # reading: what cannot be read raises Damaged

    def read(self, folder: Path, checkpoint_id: str) -> CheckpointFile:
        """Read a checkpoint's file, its values still encoded."""
        return self._read(folder / f"{checkpoint_id}.json", CheckpointFile)

    def metadata(self, file: CheckpointFile) -> dict[str, Any]:
        """Return a checkpoint's metadata."""
        return self._decode_object(file.metadata, self._path(file))

    def load(self, file: CheckpointFile, *, writes: bool = True) -> CheckpointTuple:
        """Return a checkpoint with its values and what tasks wrote on it."""
        path = self._path(file)
        checkpoint: Any = self._decode_object(file.checkpoint, path)
        keyed = all(isinstance(checkpoint.get(key), dict) for key in ("channel_versions", "versions_seen"))
        if not keyed or checkpoint.get("id") != file.checkpoint_id or not checkpoint.keys() >= {"v", "ts"}:
            raise Damaged(path, "does not fit this version (checkpoint)", path)
        checkpoint["channel_values"] = {
            channel: self._load_value(value, path) for channel, value in file.channel_values.items()
        }
        metadata: Any = self.metadata(file)
        parent = file.parent_checkpoint_id
        return CheckpointTuple(
            config=_config(file, file.checkpoint_id),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=_config(file, parent) if parent else None,
            pending_writes=self._load_writes(path) if writes else [],
        )

    def newest_whole(self, folder: Path) -> str | None:
        """Return the newest checkpoint that can be read, whether or not what tasks wrote on it can."""
        for checkpoint_id in self.ids(folder):
            try:
                self.load(self.read(folder, checkpoint_id), writes=False)
            except Damaged:
                continue
            return checkpoint_id
        return None

    def _load_writes(self, checkpoint: Path) -> list[PendingWrite]:
        found = []
        for path in checkpoint.with_suffix(".writes").glob("*.json"):
            file = self._read(path, WritesFile)
            for write in file.writes:
                order = writes_sort_key(write.task_path, file.task_id, write.index)
                found.append((order, (file.task_id, write.channel, self._load_value(write.value, path))))
        return [write for _, write in sorted(found, key=lambda each: each[0])]

    def _load_value(self, value: Any, owner: Path) -> Any:
        name = value_file(value)
        if name is None:
            return self._decode(value, owner)
        path = self.path / name
        data = _bytes(path, owner)
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise Damaged(path, "has other content than its name says", owner)
        return self._decode(parse_json(data, path, owner), owner)

    def _decode(self, value: Any, owner: Path) -> Any:
        try:
            return decode(value, self._serde)
        except (ValueError, RecursionError) as error:
            raise Damaged(owner, str(error), owner) from error

    def _decode_object(self, value: Any, owner: Path) -> dict[str, Any]:
        decoded = self._decode(value, owner)
        if not isinstance(decoded, dict):
            raise Damaged(owner, "does not fit this version", owner)
        return decoded

    def _read(self, path: Path, kind: type[AnyFile]) -> AnyFile:
        file = parse(_bytes(path, path), kind, path)
        if self.name != name_for(file.thread_id) or path != self._path(file):
            raise Damaged(path, "belongs to another thread or checkpoint, so it was copied or renamed", path)
        return file

    def _path(self, file: CheckpointFile | WritesFile) -> Path:
        folder = self.namespace(file.checkpoint_ns)
        if isinstance(file, WritesFile):
            return folder / f"{file.checkpoint_id}.writes" / f"{name_for(file.task_id)}.json"
        return folder / f"{file.checkpoint_id}.json"

    # writing

    def save(
        self, at: Address, checkpoint: Checkpoint, metadata: CheckpointMetadata, parent_checkpoint_id: str | None
    ) -> int:
        """Write a checkpoint; return the bytes that this took."""
        machinery = {key: value for key, value in checkpoint.items() if key != "channel_values"}
        values, sizes = {}, 0
        for channel, value in checkpoint["channel_values"].items():
            values[channel], size = self._save_value(value)
            sizes += size
        file = CheckpointFile(
            **at._asdict(),
            parent_checkpoint_id=parent_checkpoint_id,
            metadata=encode(metadata, self._serde),
            channel_values=values,
            checkpoint=encode(machinery, self._serde),
        )
        is_new = not self.has(self.namespace(at.checkpoint_ns), at.checkpoint_id)
        written = self._write(file)
        if not is_new:
            self.remove_unused_values()
        return sizes + written

    def save_writes(self, at: Address, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> None:
        """Add what a task wrote. A write that is there stays, unless it is to a channel of LangGraph's own."""
        file = WritesFile(**at._asdict(), task_id=task_id, writes=[])
        path = self._path(file)
        known = {write.index: write for write in self._read(path, WritesFile).writes} if path.exists() else {}
        replaces = False
        for place, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, place)
            if index < 0 or index not in known:
                replaces |= index in known and value_file(known[index].value) is not None
                encoded, _ = self._save_value(value)
                known[index] = Write(index=index, channel=channel, task_path=task_path, value=encoded)
        file.writes.extend(known[index] for index in sorted(known))
        self._write(file)
        if replaces:
            self.remove_unused_values()

    def _save_value(self, value: Any) -> tuple[Any, int]:
        encoded = encode(value, self._serde)
        data = dump_json(encoded)
        if len(data) < LARGE:
            return encoded, 0
        name = f"values/{hashlib.sha256(data).hexdigest()}.json"
        path = self.path / name
        if path.exists() and path.read_bytes() == data:
            return {"$file": name}, 0
        make_folder(path.parent)
        write_whole(path, data, self.path)
        return {"$file": name}, len(data)

    def _write(self, file: CheckpointFile | WritesFile) -> int:
        path = self._path(file)
        data = dump_json(file.model_dump())
        make_folder(path.parent)
        write_whole(path, data, self.path)
        return len(data)

    def copy(self, target: ThreadFolder) -> None:
        """Copy everything into another thread's folder, if all of it can be read."""
        for path in self.path.glob("values/*.json"):
            make_folder(target.path / "values")
            write_whole(target.path / "values" / path.name, path.read_bytes(), target.path)
        for folder in self.namespaces():
            for path in folder.glob("*.writes/*.json"):
                target._write(self._read(path, WritesFile).model_copy(update={"thread_id": target.thread_id}))
            for checkpoint_id in self.ids(folder):
                file = self.read(folder, checkpoint_id)
                self.load(file)
                target._write(file.model_copy(update={"thread_id": target.thread_id}))

    # removing

    def remove(self, folder: Path, checkpoint_ids: Collection[str]) -> None:
        """Remove checkpoints of a namespace, and what tasks wrote on them."""
        for checkpoint_id in checkpoint_ids:
            (folder / f"{checkpoint_id}.json").unlink(missing_ok=True)
            shutil.rmtree(folder / f"{checkpoint_id}.writes", ignore_errors=True)
        sync_folder(folder)

    def remove_runs(self, folder: Path, run_ids: Collection[str]) -> None:
        """Remove the checkpoints of a namespace that these runs made, as far as they can be read."""
        doomed = []
        for checkpoint_id in self.ids(folder):
            try:
                if self.metadata(self.read(folder, checkpoint_id)).get("run_id") in run_ids:
                    doomed.append(checkpoint_id)
            except Damaged:
                continue
        self.remove(folder, doomed)

    def is_empty(self) -> bool:
        """Whether there is neither a checkpoint nor anything that a task wrote, nor a file of somebody else's."""
        ours = all(path.name in _OURS for path in self.path.iterdir())
        return ours and not any(any(folder.iterdir()) for folder in self.namespaces())

    def clear(self) -> None:
        """Remove everything but the lock."""
        for name in ("checkpoints", "subgraphs", "values"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def describe(self, folder: Path, now: float) -> dict[Kept, Links]:
        """Return the checkpoints of a namespace as pruning looks at them; those that cannot be read are left out.

        The newest has to be whole: nothing is removed for the sake of one that cannot be read.
        """
        found: dict[Kept, Links] = {}
        ids = self.ids(folder)
        for checkpoint_id in ids:
            try:
                file = self.read(folder, checkpoint_id)
                if checkpoint_id == ids[0]:
                    self.load(file)
                found |= [self._describe(file, now)]
            except Damaged:
                if checkpoint_id == ids[0]:
                    raise
        if found:
            checkpoint_ns = next(iter(found)).checkpoint_ns
            for path in folder.glob("*.writes"):
                if path.stem not in ids:
                    found[Kept(checkpoint_ns, path.stem, stored=False)] = Links()
        return found

    def _describe(self, file: CheckpointFile, now: float) -> tuple[Kept, Links]:
        path, values = self._path(file), file.channel_values
        checkpoint, metadata = self._decode_object(file.checkpoint, path), self.metadata(file)
        links = Links(file.parent_checkpoint_id, holds=values.keys())
        try:
            at = file.checkpoint_ns, file.checkpoint_id
            return described(at, checkpoint, metadata, links, revision=values.get(REVISION), now=now)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise Damaged(path, "does not fit this version (checkpoint)", path) from error

    def prune(self, namespaces: Mapping[Path, Mapping[Kept, Links]], rule: Rule) -> int:
        """Remove what need not be kept of the checkpoints that `describe` returned; return how many those were."""
        thread = {each: links for checkpoints in namespaces.values() for each, links in checkpoints.items()}
        removed = set(doomed(thread, rule))
        for folder, checkpoints in namespaces.items():
            if gone := [each.checkpoint_id for each in checkpoints if each in removed]:
                self.remove(folder, gone)
        self.remove_unused_values()
        return sum(each.stored for each in removed)

    def remove_unused_values(self) -> None:
        """Remove the values that no file names; none while there is a file that cannot be read."""
        used: set[str | None] = set()
        try:
            for folder in self.namespaces():
                for path in folder.glob("*.json"):
                    used.update(map(value_file, self._read(path, CheckpointFile).channel_values.values()))
                for path in folder.glob("*.writes/*.json"):
                    used.update(value_file(write.value) for write in self._read(path, WritesFile).writes)
        except Damaged:
            return
        for path in self.path.glob("values/*.json"):
            if f"values/{path.name}" not in used:
                path.unlink()


def _config(file: CheckpointFile, checkpoint_id: str) -> RunnableConfig:
    return Address(file.thread_id, file.checkpoint_ns, checkpoint_id).config()


def _bytes(path: Path, owner: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Damaged(path, "is missing", owner) from None
