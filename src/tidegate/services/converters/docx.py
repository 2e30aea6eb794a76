"""DOCX: a Word document -> blocks."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tidegate.errors import BrokenDocument
from tidegate.services.converters.characters import tidy
from tidegate.services.converters.lines import ends_sentence, is_caption, is_heading, marker, unmarked
from tidegate.services.converters.package import Package, PartReader, TooMuch, attribute
from tidegate.services.converters.pieces import MAX_PIECES, Converted, Piece
from tidegate.services.converters.styles import Properties, Style, Styles, outline_level
from tidegate.services.converters.tables import table_pieces

_UNSHOWN = frozenset({"del", "moveFrom", "Fallback"})  # Fallback repeats a text box for old readers
_OFF = frozenset({"0", "false", "off", "none"})
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def convert(data: bytes, *, source: str, max_expanded_bytes: int) -> Converted:
    """Find the blocks of a Word document; headers, footers, comments and deleted text are left out.

    Raises:
        BrokenDocument: the archive or its XML is damaged, or holds what a Word document must not.
        EncryptedDocument: its parts are encrypted.
        DocumentTooLarge: the parts that are read expand to more than `max_expanded_bytes`.
    """
    with Package(data, source, max_expanded_bytes) as package:
        main = package.main_part()
        folder = posixpath.dirname(main)
        styles = Styles()
        package.parse(posixpath.join(folder, "styles.xml"), styles)
        body = _Body(styles.resolved())
        if not package.parse(main, body):
            raise BrokenDocument(source, "its main part is missing", "open it in Word and save it again")
        notes = _Body({})
        for part in ("footnotes.xml", "endnotes.xml"):
            package.parse(posixpath.join(folder, part), notes)
        properties = Properties()
        package.parse("docProps/core.xml", properties)
    return Converted([*body.pieces(), *notes.pieces()], "docx/1", properties.title)


@dataclass(slots=True)
class _Run:
    bold: bool = False
    size: int = 0
    hidden: bool = False


@dataclass(slots=True)
class _Paragraph:
    style: str = ""
    level: int | None = None
    listed: bool | None = None
    text: list[str] = field(default_factory=list)
    bold: int = 0
    sizes: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """A piece, and how it looks: all bold, and its font size in half-points, 0 where the style decides it."""

    piece: Piece
    bold: bool = False
    size: int = 0


class _Body(PartReader):
    """The text of the document, or of its footnotes."""

    def __init__(self, styles: Mapping[str, Style]) -> None:
        super().__init__()
        self._styles = styles
        self._found: list[_Found] = []
        self._sizes: Counter[int] = Counter()
        self._paragraphs: list[_Paragraph] = []  # one within another: a text box is anchored in a paragraph
        self._runs: list[_Run | None] = []  # None: in a paragraph, but in none of its runs
        self._tables: list[list[list[list[str]]]] = []  # rows of cells of paragraphs, for each table around
        self._in_text = False
        self._unshown_from = 0

    def opened(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._unshown_from:
            return
        if name in _UNSHOWN:
            self._unshown_from = self.depth
        elif name == "p":
            self._paragraphs.append(_Paragraph())
            self._runs.append(None)
        elif name == "tbl":
            self._tables.append([])
        elif name == "tr" and self._tables:
            self._tables[-1].append([])
        elif name == "tc" and self._tables and self._tables[-1]:
            self._tables[-1][-1].append([])
        elif name == "r":
            self._runs.append(_Run())
        elif self._paragraphs:
            self._opened_in_paragraph(name, attributes, self._paragraphs[-1])

    def _opened_in_paragraph(self, name: str, attributes: Mapping[str, str], paragraph: _Paragraph) -> None:
        run = self._runs[-1] if self._runs else None
        value = attribute(attributes, "val") if attributes else ""
        if run is None:
            match name:
                case "pStyle":
                    paragraph.style = value
                case "outlineLvl":
                    paragraph.level = outline_level(value)
                case "numId":
                    paragraph.listed = value != "0"
            return
        match name:
            case "t":
                self._in_text = True
            case "b":
                run.bold = value not in _OFF
            case "vanish":
                run.hidden = value not in _OFF
            case "sz" if value.isdecimal() and len(value) < 5:
                run.size = int(value)
            case "tab" | "br" | "cr" | "noBreakHyphen":
                paragraph.text.append(_BREAKS[name])

    def data(self, text: str) -> None:
        run = self._runs[-1] if self._runs else None
        if not self._in_text or self._unshown_from or run is None or run.hidden:
            return
        paragraph = self._paragraphs[-1]
        paragraph.text.append(text)
        shown = len(text.strip())
        paragraph.bold += shown if run.bold else 0
        paragraph.sizes[run.size] = paragraph.sizes.get(run.size, 0) + shown

    def closed(self, name: str) -> None:
        if self._unshown_from:
            if self.depth == self._unshown_from:
                self._unshown_from = 0
        elif name == "t":
            self._in_text = False
        elif name == "r" and self._runs and self._runs[-1]:
            self._runs.pop()
        elif name == "p" and self._paragraphs:
            while self._runs.pop():
                pass
            self._end_paragraph(self._paragraphs.pop())
        elif name == "tbl" and self._tables:
            self._end_table(self._tables.pop())

    def _end_paragraph(self, paragraph: _Paragraph) -> None:
        text = tidy("".join(paragraph.text)) if paragraph.text else ""
        if not text:
            return
        if self._tables and self._tables[-1] and self._tables[-1][-1]:
            self._tables[-1][-1][-1].append(text)
            return
        style = self._styles.get(paragraph.style, Style())
        level = style.level if paragraph.level is None else paragraph.level
        shown = sum(paragraph.sizes.values())
        size = max(paragraph.sizes, key=paragraph.sizes.__getitem__, default=0)
        self._sizes[size] += shown
        if style.name.startswith("toc "):
            return  # a table of contents repeats the headings
        if level and len(text) <= 300:
            self._keep(Piece("heading", text, level))
        elif style.name == "caption" or is_caption(text):
            self._keep(Piece("caption", text))
        elif paragraph.listed or (paragraph.listed is None and style.listed):
            self._keep(Piece("list_item", unmarked(text)))
        elif "preformatted" in style.name or style.name in {"code", "source code", "plain text"}:
            self._keep(Piece("code", "".join(paragraph.text)))
        else:
            self._keep(Piece("paragraph", text), bold=paragraph.bold > 0.9 * shown, size=size)

    def _end_table(self, rows: list[list[list[str]]]) -> None:
        if self._tables and self._tables[-1] and self._tables[-1][-1]:
            self._tables[-1][-1][-1] += [text for row in rows for cell in row for text in cell]
            return
        for piece in table_pieces([["\n".join(cell) for cell in row] for row in rows]):
            self._keep(piece)

    def _keep(self, piece: Piece, *, bold: bool = False, size: int = 0) -> None:
        self._found.append(_Found(piece, bold, size))
        if len(self._found) > MAX_PIECES:
            raise TooMuch(f"more than {MAX_PIECES:,} paragraphs")

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces; where no style names a heading, they are found by how they look and read."""
        body = max((size for size, _ in self._sizes.most_common(1)), default=0)
        styled = any(found.piece.kind == "heading" for found in self._found)
        for found in self._found:
            piece = found.piece
            if piece.kind != "paragraph":
                yield piece
            elif _stands_out(found, body) or (not styled and is_heading(piece.text)):
                yield Piece("heading", piece.text, level=3 if styled else 2)
            elif marker(piece.text):
                yield Piece("list_item", unmarked(piece.text))
            else:
                yield piece


def _stands_out(found: _Found, body: int) -> bool:
    text = found.piece.text
    large = body and found.size >= 1.2 * body
    return bool((found.bold or large) and len(text) <= 120 and "\n" not in text and not ends_sentence(text))
