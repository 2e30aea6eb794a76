"""A request -> the document that it brings: a file of a form, the body itself, or JSON with a text or a URL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tidegate.errors import DocumentTooLarge, EmptyDocument
from tidegate.server.bodies import Share, read_body
from tidegate.server.multipart import MultipartError, parse_form
from tidegate.server.problems import Problem
from tidegate.services.intake import LONGEST_NAME, Loaded, only_name
from tidegate.services.json_size import MOST_VALUES, has_few_values

FORM_OVERHEAD = 64 * 1024
"""Bytes that a form or JSON may have beside the document."""

_IN_THREAD = 64 * 1024

_Model = TypeVar("_Model", bound=BaseModel)

Fetch = Callable[[str, str | None], Awaitable[Loaded]]
"""Downloads a document: URL and name -> its bytes."""


class Submission(BaseModel):
    """A document as JSON: give `text` or `url`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["url"]}]},
    )

    text: str | None = Field(default=None, description="the document itself")
    url: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        default=None, description="an http(s) URL where the document is"
    )
    name: Annotated[str, StringConstraints(max_length=LONGEST_NAME)] | None = Field(
        default=None, description="what to call it in results"
    )

    @model_validator(mode="after")
    def _has_one(self) -> Submission:
        if (self.text is None) == (self.url is None):
            raise ValueError("give text or url, and not both")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a request brings: `data`, or a `url` to download it from."""

    name: str
    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None

    @property
    def request_sha256(self) -> str | None:
        """What tells a URL from others: it is kept without its query, which may be secret. None where there is none."""
        return None if self.url is None else hashlib.sha256(self.url.encode("utf-8", "replace")).hexdigest()

    async def load(self, fetch: Fetch) -> Loaded:
        """Return the document.

        Raises:
            DocumentError: it cannot be downloaded.
        """
        if self.url is not None:
            return await fetch(self.url, self.name or None)
        return Loaded(self.data or b"", self.name, self.media_type)


async def brought(request: Request, share: Share, *, max_bytes: int, name: str | None = None) -> Brought:
    """Read what a request brings; `name` is what its address calls the document.

    Raises:
        Problem: it cannot be read, or is none of the three.
        DocumentTooLarge, EmptyDocument: as they say.
    """
    content_type = request.headers.get("content-type", "")
    essence = content_type.partition(";")[0].strip().lower()
    if essence == "application/x-www-form-urlencoded":
        # What curl says of `--data-binary @FILE`, whatever is in the file.
        detail = (
            f"{essence} holds no document; give the document's own content type, as text/markdown or application/pdf, "
            "or send a file as multipart/form-data"
        )
        raise Problem(415, detail, kind="form")
    if essence == "multipart/form-data":
        body = await read_body(request, share, limit=max_bytes + FORM_OVERHEAD)
        found = await _of_form(content_type, body, name)
    elif essence == "application/json":
        # Every byte of a text may take two in JSON, and six where all of it is control characters.
        body = await read_body(request, share, limit=2 * max_bytes + FORM_OVERHEAD)
        found = await of_json(body)
    else:
        body = await read_body(request, share, limit=max_bytes)
        found = Brought(name=only_name(name, "document"), data=body, media_type=content_type or None)
    return checked(found, max_bytes)


def checked(found: Brought, max_bytes: int) -> Brought:
    """Return it, if it is neither empty nor too large.

    Raises:
        DocumentTooLarge, EmptyDocument: as they say.
    """
    if found.data is not None and not found.data:
        raise EmptyDocument(found.name, "is empty", "send a document with content")
    if found.data is not None and len(found.data) > max_bytes:
        problem = f"is larger than {max_bytes} bytes"
        raise DocumentTooLarge(found.name, problem, "split it, or raise the limit (setting max_document_bytes)")
    return found


async def of_json(body: bytes) -> Brought:
    """Read a submission in JSON."""
    submission = await validated(Submission, body)
    if submission.url is not None:
        return Brought(name=only_name(submission.name, ""), url=submission.url)
    data = (submission.text or "").encode("utf-8", "replace")
    return Brought(name=only_name(submission.name, "text"), data=data, media_type="text/plain; charset=utf-8")


async def validated(model: type[_Model], body: bytes) -> _Model:
    """Read JSON into a model.

    Raises:
        Problem: it does not fit; the detail says where, and quotes nothing.
    """
    try:
        if len(body) < _IN_THREAD:
            return model.model_validate_json(body)
        if not await asyncio.to_thread(has_few_values, body):
            raise Problem(422, f"body: it has more than {MOST_VALUES} values", kind="validation")
        return await asyncio.to_thread(model.model_validate_json, body)
    except ValidationError as error:
        wrong: list[dict[str, Any]] = [
            {"at": ".".join(map(str, each["loc"])) or "body", "message": _told(each["type"], each["msg"], model)}
            for each in error.errors(include_input=False, include_context=False, include_url=False)[:20]
        ]
        malformed = any(each["type"] == "json_invalid" for each in error.errors(include_context=False))
        if malformed:
            raise Problem(400, "the body is no JSON", kind="malformed") from None
        detail = "; ".join(f"{each['at']}: {each['message']}" for each in wrong)
        raise Problem(422, detail, kind="validation") from None


def _told(kind: str, words: str, model: type[BaseModel]) -> str:
    return f"is none of {', '.join(model.model_fields)}" if kind == "extra_forbidden" else words


async def _of_form(content_type: str, body: bytes, name: str | None) -> Brought:
    try:
        parts = await asyncio.to_thread(parse_form, content_type, body)
    except MultipartError as error:
        raise Problem(400, f"the form cannot be read: {error}", kind="malformed") from None
    files = [part for part in parts if part.filename is not None or part.name == "file"]
    if len(files) != 1:
        raise Problem(422, f"the form has {len(files)} files; send one, named file", kind="validation")
    [file] = files
    given = next((part.data.decode("utf-8", "replace") for part in parts if part.name == "name"), name)
    return Brought(name=only_name(given or file.filename, "document"), data=file.data, media_type=file.media_type)
