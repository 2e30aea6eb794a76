"""An object that was created -> its document."""

from __future__ import annotations

import asyncio
from typing import Any

from botocore.exceptions import ClientError

from tidegate.errors import DocumentTooLarge, EmptyDocument, SourceUnavailable, Transient
from tidegate.services.intake import Loaded, shown
from tidegate.triggers.s3.events import CreatedObject
from tidegate.triggers.s3.failures import code_of, judged

_PIECE = 1024 * 1024  # bytes
_LONGEST = 600.0  # seconds for one object, however slowly it comes
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "404"})  # not allowed: of a delete marker


class Objects:
    """Reads objects of any bucket."""

    def __init__(self, client: Any, *, max_bytes: int) -> None:
        """Read by this client objects of at most `max_bytes`."""
        self._client = client
        self._max_bytes = max_bytes

    async def fetch(self, created: CreatedObject) -> Loaded:
        """Read an object; no more than the limit of it.

        Raises:
            SourceUnavailable: it is gone, or archived.
            DocumentTooLarge, EmptyDocument: it is no document for us.
            ServiceError: it cannot be had now, or we may not.
        """
        name = shown(f"s3://{created.bucket}/{created.key}")
        version = {} if created.version is None else {"VersionId": created.version}
        right = "s3:GetObject" if created.version is None else "s3:GetObjectVersion"
        with judged("s3", right=right, on=f"bucket {created.bucket!r}"):
            try:
                async with asyncio.timeout(_LONGEST):
                    answer = await self._client.get_object(Bucket=created.bucket, Key=created.key, **version)
                    async with answer["Body"]:  # entering it returns something else in aiobotocore 2
                        data = await self._read(answer["Body"], answer.get("ContentLength"), name)
            except ClientError as error:
                code = code_of(error)
                if code in _GONE:
                    problem = "is not in its bucket any more" if version == {} else "is not there any more as it was"
                    raise SourceUnavailable(name, problem, "put it there again") from error
                if code == "InvalidObjectState":
                    raise SourceUnavailable(name, "is archived", "restore it, and copy it onto itself") from error
                raise
        if not data:
            raise EmptyDocument(name, "is empty", "give a document with content")
        return Loaded(data, name, answer.get("ContentType"))

    async def _read(self, body: Any, length: object, name: str) -> bytes:
        pieces: list[bytes] = []
        count = 0
        if isinstance(length, int) and length > self._max_bytes:
            raise self._too_large(name)
        while piece := await body.read(_PIECE):
            count += len(piece)
            if count > self._max_bytes:
                raise self._too_large(name)
            pieces.append(piece)
        if isinstance(length, int) and count != length:
            raise Transient("s3", f"{name} broke off after {count} of {length} bytes")
        return b"".join(pieces)

    def _too_large(self, name: str) -> DocumentTooLarge:
        way_out = "split it, or raise the limit (setting max_document_bytes)"
        return DocumentTooLarge(name, f"is larger than {self._max_bytes} bytes", way_out)
