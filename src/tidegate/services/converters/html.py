"""HTML: a page without its navigation, scripts and footers -> blocks, by way of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version

from tidegate.errors import BrokenDocument, DocumentTooLarge
from tidegate.services.converters import markdown
from tidegate.services.converters.lines import continues, ends_sentence, unwrap
from tidegate.services.converters.pieces import Converted, Piece

_PAGE_TURN = "\ue0cb"
_RAISED = "\ue0cc"
_DOCTYPE = re.compile(r"<!doctype[^>]*>?", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]{0,200}>([^<]{0,2000})</title", re.IGNORECASE)
_CAPTIONED = re.compile(r"<(?:fig)?caption\b[^<>]*>", re.IGNORECASE)
_TABLE_TAG = re.compile(r"<(table|t[dh])\b[^<>]*\b(?:border|(?:col|row)span)\b[^<>]*>", re.IGNORECASE)
_SPAN_COUNT = re.compile(r"\b(?:col|row)span\s{0,9}=[\s\"']{0,9}(\d{0,4})")
_SPAN = re.compile(r"\b(?:col|row)(span\s*=)", re.IGNORECASE)
_RAISED_TEXT = re.compile(rf"(\\?[\[(])?{_RAISED}([^{_RAISED}]{{0,200}}){_RAISED}")
_NOTE_MARK = re.compile(r"\W*(?:\d{1,3}|[*†‡§]|(?<=\[)[a-z])(?:,\s*\d{1,3})*\W*(?:\([^()\s]*\))?")
_UNIT = re.compile(r"(?:\d|(?:^|[\s\d/])(?:[cdkmnµ]?m|ft|in|s|x))$")
_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_NUMBERED_PAGE = re.compile(r"\n\n(?:page )?[-–—]?(?:\d{1,4}|[ivxl]{1,6})[-–—]?\n\n?(?:---\n|\Z)", re.IGNORECASE)
_WITHOUT: list[str] = [
    *("nav", "footer", "button", "select", "textarea", "[role=navigation]", "[role=contentinfo]"),
    *(".nav", "#nav", ".navbar", "#navbar", ".navigation", "#navigation", ".breadcrumb", ".breadcrumbs"),
    *(".footer", "#footer"),
]
MAX_TAGS = 500_000
"""Tags that are read: each costs up to 500 bytes while it is. An annual report of 2.4 MB has 18,000."""
MAX_SPANS = 100_000
"""Cells that spanning ones are left to fill: one of 1,000 rows by 1,000 columns fills a million."""


def convert(text: str, *, source: str) -> Converted:
    """Find the blocks of an HTML page.

    Raises:
        BrokenDocument: it cannot be read as HTML, or only by losing text.
        DocumentTooLarge: more tags or lines than are read in reasonable memory.
    """
    from html_to_markdown import ConversionOptions, PreprocessingOptions
    from html_to_markdown import convert as to_markdown

    tags = text.count("<")
    if tags > MAX_TAGS:
        raise DocumentTooLarge(source, f"it has {tags:,} tags, more than {MAX_TAGS:,}", "split it")
    title = _TITLE.search(text[:200_000])
    options = ConversionOptions(
        # Forms stay, since an ASP.NET page is one. Text is escaped, so that what looks like Markdown stays as it is.
        preprocessing=PreprocessingOptions(enabled=True, preset="standard", remove_forms=False),
        escape_asterisks=True,
        escape_underscores=True,
        escape_misc=True,
        autolinks=False,
        br_in_tables=True,
        compact_tables=True,
        extract_metadata=False,
        skip_images=True,
        sup_symbol=_RAISED,
        exclude_selectors=_WITHOUT,
    )
    try:
        result = to_markdown(_prepared(text), options)
    except Exception as error:
        raise BrokenDocument(source, "it cannot be read as HTML", "open it in a browser and save it again") from error
    if any("depth" in str(warning.kind) for warning in result.warnings):
        raise BrokenDocument(source, "its elements are nested over 1,000 deep, where text is lost", "save it again")
    text = (result.content or "").replace(2 * _RAISED, "")  # where raised text ends and begins again
    text = _RAISED_TEXT.sub(_lowered, text).replace(_RAISED, "")
    text = _NUMBERED_PAGE.sub(f"\n\n{_PAGE_TURN}\n\n", text)
    found = list(markdown.pieces(text, source=source, guess_headings=not _HEADING.search(text)))
    return Converted(
        _rejoined(found),
        f"html/html-to-markdown-{version('html-to-markdown')}",
        html.unescape(title[1]) if title else None,
        ("it holds no text", "if scripts fill it, save the page as a browser shows it"),
    )


def _lowered(raised: re.Match[str]) -> str:
    """Drop a footnote mark, which would be read as part of the word before, and keep other raised text (m², 1st)."""
    bracket, text = raised[1] or "", raised[2]
    before = raised.string[max(0, raised.start() - 5) : raised.start()]
    if not _NOTE_MARK.fullmatch(text) or _UNIT.search(before):
        return bracket + text
    return "" if text.endswith((")", "]")) else bracket


def _prepared(text: str) -> str:
    """Mend what the library trips over.

    Many doctypes take it quadratic time; cells that span a thousand rows and columns take it gigabytes, and
    `border=0` makes it turn a table into a list (all measured, version 3.21). Nothing that is read hangs on these.
    """
    for private in (markdown.CAPTION, _PAGE_TURN, _RAISED, "\x00"):
        text = text.replace(private, "")
    text = _TABLE_TAG.sub(r"<\1>", _DOCTYPE.sub("", text))
    if _spans(text) > MAX_SPANS:
        text = _SPAN.sub(r"\1", text)
    return _CAPTIONED.sub(lambda tag: tag[0] + markdown.CAPTION, text)


def _spans(text: str) -> int:
    """Count the cells that are spanned by attributes which were hidden from `_TABLE_TAG`, 1,000 at most for each."""
    lowered = text.lower()
    if "colspan" not in lowered and "rowspan" not in lowered:
        return 0
    return sum(min(int(count or 0), 1000) ** 2 for count in _SPAN_COUNT.findall(lowered))


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
