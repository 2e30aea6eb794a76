"""HTML: a page without its navigation, scripts and footers -> blocks, by way of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version

from tidegate.errors import BrokenDocument
from tidegate.services.converters import markdown
from tidegate.services.converters.lines import continues, ends_sentence, unwrap
from tidegate.services.converters.pieces import Converted, Piece

_PAGE_TURN = "\ue0cb"
_PRIVATE = re.compile("[\ue0ca-\ue0cd\x00]")
_DOCTYPE = re.compile(r"<!doctype[^>]*>?", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]{0,200}>([^<]{0,2000})</title", re.IGNORECASE)
_CAPTIONED = re.compile(r"<(?:fig)?caption\b[^<>]*>", re.IGNORECASE)
_TABLE_TAG = re.compile(r"<(table|t[dh])\b[^<>]*\b(?:border|(?:col|row)span)\b[^<>]*>", re.IGNORECASE)
_SPAN = re.compile(r"\b(?:col|row)(span\s*=)", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_NUMBERED_PAGE = re.compile(r"\n\n(?:page )?[-–—]?(?:\d{1,4}|[ivxl]{1,6})[-–—]?\n\n---\n", re.IGNORECASE)
_WITHOUT = (
    "nav footer button select textarea .nav #nav .navbar #navbar .navigation #navigation .breadcrumb .breadcrumbs"
    " .footer #footer [role=navigation] [role=contentinfo]"
).split()
MAX_SPANS = 1_000
"""Spanning cells that are left to the library: a cell of 1,000 rows by 1,000 columns takes it a million cells."""


def convert(text: str, *, source: str) -> Converted:
    """Find the blocks of an HTML page.

    Raises:
        BrokenDocument: it cannot be read as HTML, or only by losing text.
        DocumentTooLarge: its text has too many lines.
    """
    from html_to_markdown import ConversionOptions, PreprocessingOptions
    from html_to_markdown import convert as to_markdown

    title = _TITLE.search(text[:200_000])
    options = ConversionOptions(
        preprocessing=PreprocessingOptions(enabled=True, preset="standard", remove_forms=False),  # ASP.NET pages are one form
        escape_asterisks=True,  # so that text which looks like Markdown comes back as it was
        escape_underscores=True,
        escape_misc=True,
        autolinks=False,
        br_in_tables=True,
        compact_tables=True,
        extract_metadata=False,
        skip_images=True,
        exclude_selectors=_WITHOUT,
    )
    try:
        result = to_markdown(_prepared(text), options)
    except Exception as error:
        raise BrokenDocument(source, "it cannot be read as HTML", "open it in a browser and save it again") from error
    if any(warning.kind.name == "depth_limit_exceeded" for warning in result.warnings):
        raise BrokenDocument(source, "its elements are nested over 1,000 deep, where text is lost", "save it again")
    text = _NUMBERED_PAGE.sub(f"\n\n{_PAGE_TURN}\n\n", result.content or "")
    found = list(markdown.pieces(text, source=source, guess_headings=not _HEADING.search(text)))
    return Converted(
        _rejoined(found),
        f"html/html-to-markdown-{version('html-to-markdown')}",
        html.unescape(title[1]) if title else None,
        ("it holds no text", "if scripts fill it, save the page as a browser shows it"),
    )


def _prepared(text: str) -> str:
    """Mend what the library trips over.

    Many doctypes take it quadratic time; cells that span a thousand rows and columns take it gigabytes, and
    `border=0` makes it turn a table into a list (all measured, version 3.21). Nothing that is read hangs on these.
    """
    text = _DOCTYPE.sub("", _PRIVATE.sub("", text))
    text = _TABLE_TAG.sub(r"<\1>", text)
    if len(_SPAN.findall(text)) > MAX_SPANS or re.search(r"span\s*=\W{0,20}\d{3}", text):
        text = _SPAN.sub(r"\1", text)
    return _CAPTIONED.sub(lambda tag: tag[0] + markdown.CAPTION, text)


def _rejoined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join the paragraphs that a page number cut in two, as pages do that were made for printing."""
    held: Piece | None = None
    turned = False
    for piece in pieces:
        if piece.text == _PAGE_TURN:
            turned = True
        elif held and turned and _is_cut(held, piece):
            held = replace(held, text=unwrap([held.text, piece.text]))
            turned = False
        else:
            if held:
                yield held
            held, turned = piece, False
    if held:
        yield held


def _is_cut(first: Piece, second: Piece) -> bool:
    return first.kind == second.kind == "paragraph" and not ends_sentence(first.text) and continues(second.text)
