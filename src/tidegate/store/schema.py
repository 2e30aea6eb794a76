"""The schema of the store's file: each script leads from one version to the next."""

from __future__ import annotations

STORE = (
    """
    CREATE TABLE documents (
        sha256 TEXT PRIMARY KEY,
        data BLOB NOT NULL,
        taken_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE threads (
        thread_id TEXT PRIMARY KEY,
        document_id TEXT NOT NULL,
        source TEXT NOT NULL,
        media_type TEXT,
        status TEXT NOT NULL,
        outcome TEXT,
        revision INTEGER NOT NULL,
        retryable_missing INTEGER NOT NULL,
        next_at REAL,
        fingerprint TEXT NOT NULL,
        error TEXT,
        updated_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX threads_by_update ON threads (updated_at)
    """,
)
