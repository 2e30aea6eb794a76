"""The size of everything that `Pipeline` keeps of one document, over the document compressed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from tests.benchmarks.prose import prose
from tidegate import Pipeline, Settings


def compressed(text: str) -> int:
    """Return the bytes of a text under zstd, at its default level 3."""
    return len(zstandard.ZstdCompressor(level=3).compress(text.encode()))


def measure(size: int, seed: int, folder: Path) -> tuple[float, float]:
    """Bring a document of `size` bytes through; returns the ratio without its raw bytes as stored, and with them.

    Entities are found by rules, enrichment and model are off. All files count, those beside the checkpoints too.
    """
    text = prose(size, seed)
    with TemporaryDirectory(dir=folder) as name:
        store = Path(name)
        asyncio.run(_run(text, store))
        files = list(store.iterdir())
        whole = sum(file.stat().st_size for file in files)
        raw = sum(_raw_documents(file) for file in files if file.suffix == ".db")
    return (whole - raw) / compressed(text), whole / compressed(text)


async def _run(text: str, folder: Path) -> None:
    settings = Settings.read(
        checkpoints=f"sqlite:///{folder}/tidegate.db", recogniser="rules", model=None, enrichment={"adapter": "none"}
    )
    async with Pipeline.open(settings) as pipeline:
        result = await pipeline.run(text=text, name="report.txt")
    assert result.status == "complete"


def _raw_documents(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'documents'").fetchone():
            return 0
        return int(connection.execute("SELECT coalesce(sum(length(data)), 0) FROM documents").fetchone()[0])
