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
"""Raw documents, and the thread registry."""

CHECKPOINTS = """
    UPDATE documents SET data = tidegate_pack(data);
    CREATE TABLE encryption (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        proof BLOB NOT NULL
    ) STRICT;
    CREATE TABLE blobs (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        data BLOB NOT NULL
    ) STRICT;
    CREATE TABLE blob_parts (
        blob INTEGER NOT NULL REFERENCES blobs ON DELETE CASCADE,
        key TEXT NOT NULL,
        part INTEGER NOT NULL REFERENCES blobs,
        PRIMARY KEY (blob, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blob_parts_by_part ON blob_parts (part);
    CREATE TABLE checkpoints (
        id INTEGER PRIMARY KEY,
        thread_id TEXT NOT NULL,
        checkpoint_ns TEXT NOT NULL,
        checkpoint_id TEXT NOT NULL,
        parent_id TEXT,
        run_id TEXT,
        revision INTEGER,
        stored_at REAL,
        metadata TEXT,
        body BLOB,
        UNIQUE (thread_id, checkpoint_ns, checkpoint_id)
    ) STRICT;
    CREATE INDEX checkpoints_by_thread ON checkpoints (thread_id, checkpoint_id);
    CREATE INDEX checkpoints_by_age ON checkpoints (checkpoint_id);
    CREATE INDEX checkpoints_by_run ON checkpoints (run_id) WHERE run_id IS NOT NULL;
    CREATE TABLE channel_values (
        checkpoint INTEGER NOT NULL REFERENCES checkpoints ON DELETE CASCADE,
        channel TEXT NOT NULL,
        kind TEXT,
        value BLOB,
        blob INTEGER REFERENCES blobs,
        PRIMARY KEY (checkpoint, channel)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX channel_values_by_blob ON channel_values (blob) WHERE blob IS NOT NULL;
    CREATE TABLE writes (
        checkpoint INTEGER NOT NULL REFERENCES checkpoints ON DELETE CASCADE,
        task_id TEXT NOT NULL,
        idx INTEGER NOT NULL,
        task_path TEXT NOT NULL,
        channel TEXT NOT NULL,
        kind TEXT,
        value BLOB,
        blob INTEGER REFERENCES blobs,
        PRIMARY KEY (checkpoint, task_id, idx)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX writes_by_blob ON writes (blob) WHERE blob IS NOT NULL
"""
"""Documents packed (see `tidegate.store.codec`), and checkpoints. A row of `checkpoints` without a `body` stands for a
checkpoint that tasks wrote on before it was stored itself. `channel_values` and `writes` hold a small value in `value`,
and name the blob that holds a large one, which is stored once however many checkpoints, tasks and threads name it.
`blob_parts` takes large items out of a dictionary's blob, so that a document inside the input of a graph is the blob
that its channel names. Thread, checkpoint, task and channel names, run IDs, revisions, times and metadata are plain
text in an encrypted file too; values, the rest of a checkpoint and documents are not.
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
        answer BLOB
    ) STRICT;
    CREATE INDEX calls_by_answer ON calls (answered_at)
"""
"""The journal: of every call that was begun, the newest intent, and its answer, packed, once there is one."""

CALLS_OF_DOCUMENTS = """
    ALTER TABLE calls ADD COLUMN document_id TEXT;
    UPDATE calls SET document_id = (SELECT document_id FROM threads WHERE threads.thread_id = calls.thread_id);
    CREATE INDEX calls_by_document ON calls (document_id)
"""
"""For which document each call was made, which outlasts its thread."""

HEALING = """
    ALTER TABLE threads ADD COLUMN when_open TEXT;
    ALTER TABLE threads ADD COLUMN enrichment_at REAL;
    ALTER TABLE threads ADD COLUMN summary_at REAL;
    UPDATE threads SET enrichment_at = next_at, summary_at = next_at WHERE status <> 'failed';
    CREATE INDEX threads_by_enrichment ON threads (enrichment_at, thread_id) WHERE enrichment_at IS NOT NULL;
    CREATE INDEX threads_by_summary ON threads (summary_at, thread_id) WHERE summary_at IS NOT NULL
"""
"""What a sweep goes by: which services a thread lacks something of. It was not kept before, so any may be it."""

HEALING_EXTRACTION = """
    ALTER TABLE threads ADD COLUMN extraction_at REAL;
    CREATE INDEX threads_by_extraction ON threads (extraction_at, thread_id) WHERE extraction_at IS NOT NULL
"""
"""The same for a model that names the entities."""

THREADS_BY_NAME = """
    CREATE INDEX threads_by_document ON threads (document_id);
    CREATE INDEX threads_by_source ON threads (source);
    CREATE INDEX threads_by_status ON threads (status, updated_at)
"""
"""What threads are looked up by: `forget` by document or source, lists by status."""

EVENTS = """
    ALTER TABLE threads ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE threads ADD COLUMN attempted_at TEXT;
    CREATE INDEX threads_by_pause ON threads (next_at) WHERE status = 'failed';
    CREATE TABLE inbox (
        source TEXT NOT NULL,
        event_id TEXT NOT NULL,
        thread_id TEXT NOT NULL,
        traceparent TEXT,
        received_at REAL NOT NULL,
        PRIMARY KEY (source, event_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX inbox_by_thread ON inbox (thread_id);
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY,
        thread_id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        sink TEXT NOT NULL,
        result BLOB,
        written_at REAL NOT NULL,
        next_at REAL,
        attempts INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        UNIQUE (thread_id, revision, sink)
    ) STRICT;
    CREATE INDEX outbox_by_time ON outbox (sink, next_at) WHERE next_at IS NOT NULL;
    CREATE INDEX outbox_by_sink ON outbox (sink) WHERE result IS NOT NULL
"""
"""Which event began which thread, and which results are still to be delivered where. A row of `outbox` holds a result,
packed, until it is delivered; one that has a result and no `next_at` was given up. `attempts` of a thread counts how
often it was begun since it last got further: at the checkpoint `attempted_at`."""

REQUESTS = """
    ALTER TABLE inbox ADD COLUMN request_sha256 TEXT
"""
"""What tells whether an event whose document is elsewhere is sent again, or another one under its ID."""

EXPIRY = """
    CREATE INDEX inbox_by_time ON inbox (received_at)
"""
"""What is forgotten is found by its time. Of an event, `received_at` is when it was seen last, within a day."""

TRACESTATES = "ALTER TABLE inbox ADD COLUMN tracestate TEXT"
"""What came with an event's `traceparent`."""

_THREADS_SINCE = (HEALING, HEALING_EXTRACTION, THREADS_BY_NAME, EVENTS, REQUESTS, EXPIRY, TRACESTATES)

STORE = (THREADS, CHECKPOINTS, LEASES, CALLS, CALLS_OF_DOCUMENTS, *_THREADS_SINCE)
"""The store's file."""

SERVER_STORE = (THREADS, LEASES, CALLS, CALLS_OF_DOCUMENTS, *_THREADS_SINCE)
"""The same in a PostgreSQL database, where LangGraph's own saver keeps the checkpoints."""
