"""The schema of the store's file: each script leads from one version to the next."""

from __future__ import annotations

THREADS = """
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
"""

LEASES = """
    CREATE TABLE leases (
        thread_id TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,
        held INTEGER NOT NULL,
        host TEXT NOT NULL,
        boot TEXT NOT NULL,
        pid_namespace TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started TEXT NOT NULL,
        ttl REAL NOT NULL,
        renewed_at REAL NOT NULL,
        renewed_tick REAL NOT NULL
    ) STRICT
"""
"""Who runs which thread. A row stays when its lease is released: epochs only grow."""

CALLS = """
    CREATE TABLE calls (
        cache_key TEXT PRIMARY KEY,
        service TEXT NOT NULL,
        operation TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        thread_id TEXT,
        intended_at REAL NOT NULL,
        answered_at REAL,
        found INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        answer TEXT
    ) STRICT;
    CREATE INDEX calls_by_answer ON calls (answered_at)
"""
"""The journal: of every call that was begun, the newest intent, and its answer once there is one."""

STORE = (THREADS, LEASES, CALLS)
