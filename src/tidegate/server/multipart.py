"""multipart/form-data (RFC 7578), of which the whole body is there: its parts, within limits.

A parser of our own: the body was read and bounded before, and parsers for streams write parts to files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

MOST_PARTS = 16
_LONGEST_HEAD = 8 * 1024
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class MultipartError(Exception):
    """The body is no multipart form; the message says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form: `filename` and `media_type` as they came, None where they did not."""

    name: str
    filename: str | None
    media_type: str | None
    data: bytes


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a form in order.

    Raises:
        MultipartError: it is none.
    """
    try:
        return _parts(content_type, body)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # The standard library's parser of headers raises what it likes at hostile ones, some of it when they are read.
        raise MultipartError("a header of it is malformed") from error


def _parts(content_type: str, body: bytes) -> list[Part]:
    header = _parsed(b"Content-Type: " + content_type.encode("latin-1", "replace"))
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or _BOUNDARY.fullmatch(boundary) is None:
        raise MultipartError("its Content-Type names no boundary")
    delimiter = b"\r\n--" + boundary.encode()
    text = b"\r\n" + body  # the first delimiter is one like all others
    at = text.find(delimiter)
    parts: list[Part] = []
    while at >= 0:
        start = at + len(delimiter)
        if text.startswith(b"--", start):
            return parts
        line = text.find(b"\r\n", start, start + _LONGEST_HEAD)
        after = text.find(delimiter, start)
        if line < 0 or text[start:line].strip(b" \t") or after < 0:
            break
        if len(parts) == MOST_PARTS:
            raise MultipartError(f"it has more than {MOST_PARTS} parts")
        parts.append(_part(text, line + 2, after))
        at = after
    raise MultipartError("its end is missing, or a part of it is malformed")


def _part(text: bytes, start: int, end: int) -> Part:
    head = text.find(b"\r\n\r\n", start, min(end, start + _LONGEST_HEAD))
    if head < 0:
        raise MultipartError("a part has no headers, or too long ones")
    headers = _parsed(text[start:head])
    name = headers.get_param("name", header="content-disposition")
    if headers.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise MultipartError("a part has no name")
    media_type = headers.get("content-type")
    return Part(name, headers.get_filename(), None if media_type is None else str(media_type), text[head + 4 : end])


def _parsed(head: bytes) -> EmailMessage:
    return BytesParser(policy=policy.HTTP).parsebytes(head + b"\r\n\r\n", headersonly=True)
