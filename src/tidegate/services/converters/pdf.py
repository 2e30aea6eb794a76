"""PDF: the characters that pdfium finds -> blocks, page by page."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version

from tidegate.errors import BrokenDocument, DocumentTooLarge, EncryptedDocument
from tidegate.services.converters.geometry import Segment
from tidegate.services.converters.glyphs import segments
from tidegate.services.converters.layout import arranged
from tidegate.services.converters.pieces import Converted

MAX_PAGES = 20_000

_SCAN = ("it holds no text, as a scan does", "run text recognition (OCR) on it first")


def convert(data: bytes, *, source: str, max_characters: int) -> Converted:
    """Find the blocks of a PDF. Never call it in two threads at once: pdfium is not made for that.

    Page numbers, running headers and footers, footnote marks, and text that does not run as most of its page does
    (a stamp in the margin, a watermark) are left out.

    Raises:
        EncryptedDocument: a password is needed.
        BrokenDocument: it, or one of its pages, cannot be read.
        DocumentTooLarge: more pages or more text than is read.
    """
    from pypdfium2 import PdfDocument, PdfiumError, raw

    try:
        document = PdfDocument(data)
    except PdfiumError as error:
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise EncryptedDocument(
                source, "it is protected by a password", "save it without one and try again"
            ) from error
        raise BrokenDocument(source, "it is damaged and cannot be read as PDF", "get it again, undamaged") from error
    pages: list[list[Segment]] = []
    left = max_characters
    with closing(document):
        if len(document) > MAX_PAGES:
            raise DocumentTooLarge(source, f"it has {len(document):,} pages, more than {MAX_PAGES:,}", "split it")
        for index in range(len(document)):
            try:
                with closing(document[index]) as page, closing(page.get_textpage()) as text:
                    left -= text.count_chars()
                    if left < 0:
                        problem = f"its text has more than {max_characters:,} characters"
                        raise DocumentTooLarge(source, problem, "split it, or raise max_expanded_bytes")
                    pages.append(segments(text.raw, text.count_chars()))
            except PdfiumError as error:
                way_out = "open it in a viewer and print it to a new PDF"
                raise BrokenDocument(source, f"its page {index + 1} cannot be read", way_out) from error
        title = document.get_metadata_dict().get("Title")
    return Converted(arranged(pages), f"pdf/pypdfium2-{version('pypdfium2')}", title, _SCAN)
