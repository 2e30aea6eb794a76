"""Checkpoint URLs: which saver one names, and which files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tidegate.errors import MissingExtra, SettingsError
from tidegate.store.postgres_url import PostgresUrl, read_url

OFFERED = (
    "sqlite:///FILE, file:///FOLDER, postgresql://HOST/DATABASE or memory: "
    "(three slashes are relative to the working folder, four absolute)"
)

STORE_FILE = "store.db"
"""The store's database in a folder of JSON files."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where threads live, and the databases with them.

    `checkpoints` is a file for sqlite, a folder for file, else None. `store` and `live` are for
    `tidegate.store.database.Database`: paths, or `:memory:`. For sqlite, `store` is the file of the checkpoints. For
    postgres, `server` is the database that holds both.
    """

    kind: Literal["sqlite", "file", "memory", "postgres"]
    checkpoints: Path | None
    store: str
    live: str
    server: PostgresUrl | None = None


def locate(url: str) -> Location:
    """Read a checkpoint URL; nothing is opened.

    Raises:
        SettingsError: no saver has this URL. The message shows the scheme alone, since a URL may hold a password.
        MissingExtra: it is for PostgreSQL, and what that needs is not installed.
    """
    scheme, colon, rest = url.partition(":")
    if scheme in {"postgresql", "postgres"}:
        server = read_url(url)
        if not all(map(find_spec, ("psycopg", "psycopg_pool", "langgraph.checkpoint.postgres"))):
            raise MissingExtra("a PostgreSQL checkpoint URL", "postgres")
        return Location("postgres", None, ":memory:", ":memory:", server)
    if url == "memory:":
        return Location("memory", None, ":memory:", ":memory:")
    if scheme == "memory":
        raise SettingsError("checkpoints in memory take nothing after the colon; use memory:")
    if scheme not in {"sqlite", "file"}:
        shown = repr(scheme + colon) if colon and scheme.isalnum() else "no scheme"
        raise SettingsError(f"no checkpoints under a URL that starts with {shown}; use {OFFERED}")
    if not rest.startswith("///") or "?" in rest or "\0" in rest or not (path := Path(rest[3:])).name:
        raise SettingsError(
            f"cannot read the path of a {scheme} checkpoint URL; use {OFFERED}, with no options after it"
        )
    if scheme == "file":
        return Location("file", path, str(path / STORE_FILE), str(path / "live.db"))
    if path.name == ":memory:":
        raise SettingsError("for checkpoints in memory use memory:")
    return Location("sqlite", path, str(path), str(path.with_name(f"{path.stem}-live{path.suffix}")))
