"""PDF: the characters that pdfium finds -> blocks, page by page."""

from __future__ import annotations

import zlib
from contextlib import closing
from importlib.metadata import version

from tidegate.errors import BrokenDocument, DocumentTooLarge, EncryptedDocument
from tidegate.services.converters.geometry import Segment
from tidegate.services.converters.glyphs import segments
from tidegate.services.converters.layout import arranged
from tidegate.services.converters.pieces import Converted

MAX_PAGES = 20_000
MAX_PAGE_CHARACTERS = 500_000
"""Characters that are read of one page. A page of a newspaper has 30,000; pdfium takes 150 bytes for each."""

_CHUNK = 1 << 18
_SCAN = ("it holds no text, as a scan does", "run text recognition (OCR) on it first")


def convert(data: bytes, *, source: str, max_expanded_bytes: int) -> Converted:
    """Find the blocks of a PDF. Never call it in two threads at once: pdfium is not made for that.

    Page numbers, running headers and footers, footnote marks, and text that does not run as most of its page does
    (a stamp in the margin, a watermark) are left out.

    Raises:
        EncryptedDocument: a password is needed.
        BrokenDocument: it, or one of its pages, cannot be read.
        DocumentTooLarge: more pages or more text than is read.
    """
    from pypdfium2 import PdfDocument, PdfiumError, raw

    _check_streams(data, source, max_expanded_bytes)
    try:
        document = PdfDocument(data)
    except PdfiumError as error:
        way_out = "save it without one and try again"
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise EncryptedDocument(source, "it is protected by a password", way_out) from error
        raise BrokenDocument(source, "it is damaged and cannot be read as PDF", "get it again, undamaged") from error
    pages: list[list[Segment]] = []
    left = max_expanded_bytes
    with closing(document):
        if len(document) > MAX_PAGES:
            raise DocumentTooLarge(source, f"it has {len(document):,} pages, more than {MAX_PAGES:,}", "split it")
        for index in range(len(document)):
            try:
                with closing(document[index]) as page, closing(page.get_textpage()) as text:
                    count = text.count_chars()
                    left -= count
                    if count > MAX_PAGE_CHARACTERS or left < 0:
                        raise DocumentTooLarge(source, f"its page {index + 1} has {count:,} characters", "split it")
                    pages.append(segments(text.raw, count))
            except PdfiumError as error:
                way_out = "open it in a viewer and print it to a new PDF"
                raise BrokenDocument(source, f"its page {index + 1} cannot be read", way_out) from error
        title = document.get_metadata_dict().get("Title")
    return Converted(arranged(pages), f"pdf/pypdfium2-{version('pypdfium2')}", title, _SCAN)


def _check_streams(data: bytes, source: str, limit: int) -> None:
    """Unpack what pdfium will unpack, a little at a time, since it would do it in memory and at once.

    A stream of a megabyte can hold a gigabyte, and pdfium takes two for it. Streams that are packed twice, or in
    another way, are not seen through.

    Raises:
        DocumentTooLarge: a stream expands to more than `limit` bytes, or all of them to ten times as much.
    """
    total = position = 0
    while (position := data.find(b"stream", position)) >= 0:
        position += len(b"stream")
        start = position + len(data[position : position + 2]) - len(data[position : position + 2].lstrip(b"\r\n"))
        head = data[start : start + 2]
        if data[position - 9 : position - 6] == b"end" or len(head) < 2:
            continue
        if head[0] & 15 != 8 or int.from_bytes(head, "big") % 31:  # no head of a zlib stream (RFC 1950, section 2.2)
            continue
        size, start = _unpacked(data, start, min(limit, 10 * limit - total))
        total += size
        if size > limit or total > 10 * limit:
            problem = f"it expands to more than {limit if size > limit else 10 * limit:,} bytes"
            raise DocumentTooLarge(source, problem, "split it, or raise max_expanded_bytes")
        position = max(position, start)


def _unpacked(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return how many bytes a stream expands to, as far as just over the limit, and where it ends."""
    unpacker = zlib.decompressobj()
    size = 0
    try:
        while not unpacker.eof and size <= limit and (unpacker.unconsumed_tail or start < len(data)):
            packed = unpacker.unconsumed_tail
            if not packed:
                packed = data[start : start + _CHUNK]
                start += len(packed)
            size += len(unpacker.decompress(packed, _CHUNK))
    except zlib.error:
        pass  # pdfium judges what is damaged
    return size, start - len(unpacker.unused_data) - len(unpacker.unconsumed_tail)
