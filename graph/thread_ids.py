"""Thread IDs: which there can be, and which one a document has."""

from __future__ import annotations

from tidegate.errors import SettingsError, ThreadNotFound
from tidegate.state import Input
from tidegate.store.registry import Registry, ThreadRecord, thread_id_of

_LONGEST = 200


def check_thread_id(thread_id: str) -> None:
    """Refuse what cannot be a thread ID.

    Raises:
        SettingsError: it is empty, too long, or not printable.
    """
    if not thread_id or len(thread_id) > _LONGEST or not thread_id.isprintable():
        raise SettingsError(f"{thread_id[:40]!r} cannot be a thread ID; use 1 to {_LONGEST} printable characters")


def not_found(thread_id: str) -> ThreadNotFound:
    """Return the error for a thread that there is not."""
    return ThreadNotFound(thread_id, "does not exist; `tidegate threads` lists those that do")


async def existing(registry: Registry, thread_id: str) -> ThreadRecord:
    """Return the record of a thread.

    Raises:
        SettingsError: this cannot be a thread ID.
        ThreadNotFound: no thread has it.
    """
    check_thread_id(thread_id)
    record = await registry.get(thread_id)
    if record is None:
        raise not_found(thread_id)
    return record


def default_thread_id(input_: Input) -> str:
    """Return the thread ID of a document: its name, made safe to type, and the beginning of its SHA-256."""
    return thread_id_of(input_.get("source") or "", str(input_.get("document_sha256"))[:10])
