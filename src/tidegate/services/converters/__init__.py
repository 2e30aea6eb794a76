"""The bytes of a document, whatever its format -> its text in blocks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from email.message import Message

from tidegate.errors import EmptyDocument
from tidegate.services.converters.formats import Format, detect
from tidegate.services.converters.pieces import Converted, assemble
from tidegate.state import Document

# pdfium must not be entered by two threads at once. One thread of its own, rather than a lock, so that PDFs that wait
# their turn do not hold the threads that everything else runs on.
_pdfium = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-pdfium")


async def convert(
    data: bytes, *, source: str, media_type: str | None = None, max_expanded_bytes: int = 200 * 1024 * 1024
) -> Document:
    """Turn the bytes of a document into text in blocks, off the event loop.

    The format is told by the bytes; `media_type` and the suffix of `source` decide only between kinds of text, and a
    `charset` in the media type is tried before guessing. `max_expanded_bytes` bounds what a zip-based document may
    expand to, and the characters of text of any. A conversion that has begun goes on to its end when it is cancelled.

    Raises:
        EmptyDocument: no bytes, or white space only.
        UnsupportedDocument: a type that no converter reads.
        EncryptedDocument: a password is needed.
        BrokenDocument: damaged, or not what it claims to be.
        DocumentTooLarge: over a limit of size, pages, lines or blocks.
        NoTextInDocument: it opens, but holds no text, as a scan does.
    """
    form = await asyncio.to_thread(detect, data, source=source, media_type=media_type)
    threads = _pdfium if form is Format.PDF else None
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, _convert, data, form, source, media_type, max_expanded_bytes)


def _convert(data: bytes, form: Format, source: str, media_type: str | None, limit: int) -> Document:
    if form is Format.PDF:
        from tidegate.services.converters import pdf

        found = pdf.convert(data, source=source, max_expanded_bytes=limit)
    elif form is Format.DOCX:
        from tidegate.services.converters import docx

        found = docx.convert(data, source=source, max_expanded_bytes=limit)
    else:
        found = _convert_text(data, form, source, media_type)
    return assemble(found, data=data, source=source, media_type=form.value, max_characters=limit)


def _convert_text(data: bytes, form: Format, source: str, media_type: str | None) -> Converted:
    from tidegate.services.converters import encoding

    declared = _charset(media_type) or (encoding.declared_in_html(data) if form is Format.HTML else None)
    text = encoding.decode(data, declared=declared)
    if not text.strip("\ufeff \t\r\n\f\v\x00"):
        raise EmptyDocument(source, "it holds white space only", "give a document with content")
    if form is Format.HTML:
        from tidegate.services.converters import html

        return html.convert(text, source=source)
    if form is Format.MARKDOWN:
        from tidegate.services.converters import markdown

        return markdown.convert(text, source=source)
    from tidegate.services.converters import plain

    return plain.convert(text, source=source)


def _charset(media_type: str | None) -> str | None:
    message = Message()
    message["Content-Type"] = media_type or ""
    return message.get_content_charset()
