"""Bearer tokens: kept as SHA-256, read anew when their file changes, and compared in constant time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock, SystemClock

_log = logging.getLogger(__name__)
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LOOK_EVERY = 1.0
_LARGEST_FILE = 1024 * 1024


class Tokens:
    """The tokens that count now."""

    def __init__(self, tokens: Iterable[SecretStr], file: str | None, *, clock: Clock | None = None) -> None:
        """Take tokens, and a file with one a line, plain or as `sha256:HEX`; `#` begins a line that is none.

        Raises:
            SettingsError: the file cannot be read, or a token cannot be sent in a header.
        """
        self._clock = clock or SystemClock()
        self._fixed = tuple(_hashed(token.get_secret_value(), "serve.tokens") for token in tokens)
        self._file = None if file is None else Path(file)
        self._from_file: tuple[bytes, ...] = ()
        self._seen: tuple[int, ...] = ()
        self._looked_at = self._clock.monotonic()
        if self._file is not None:
            self._from_file, self._seen = _read(self._file)
            if not self._fixed and not self._from_file:
                raise SettingsError(f"serve.tokens_file: {self._file} holds no token; write one a line")

    @property
    def required(self) -> bool:
        """Whether a token is needed: also while the file, which had some, is empty."""
        return bool(self._fixed) or self._file is not None

    async def accept(self, authorization: str | None) -> bool:
        """Say whether an Authorization header holds one of them; always, where none is required."""
        if not self.required:
            return True
        await self._look()
        scheme, _, token = (authorization or "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in (*self._fixed, *self._from_file):  # all of them, whichever it is: time tells nothing
            found |= hmac.compare_digest(known, given)
        return found and scheme.lower() == "bearer"

    async def _look(self) -> None:
        """Read the file again if it changed; while it cannot be read, what it held counts."""
        now = self._clock.monotonic()
        if self._file is None or now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        try:
            if await asyncio.to_thread(_state, self._file) != self._seen:
                self._from_file, self._seen = await asyncio.to_thread(_read, self._file)
                _log.info("serve.tokens_file: read again, %d tokens", len(self._from_file))
        except (OSError, SettingsError) as error:
            _log.warning("serve.tokens_file cannot be read, its former tokens count: %s", type(error).__name__)


def _state(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    try:
        seen = _state(file)
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"serve.tokens_file: {file} cannot be read ({type(error).__name__}); check it") from None
    lines = [line.strip() for line in text.splitlines()]
    return tuple(_hashed(line, "serve.tokens_file") for line in lines if line and not line.startswith("#")), seen


def _hashed(token: str, setting: str) -> bytes:
    if (known := _HASHED.fullmatch(token)) is not None:
        return bytes.fromhex(known[1])
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"{setting}: a token is empty, or has characters that no header holds; make another")
    return hashlib.sha256(token.encode()).digest()
