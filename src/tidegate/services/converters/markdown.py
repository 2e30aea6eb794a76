"""Markdown: CommonMark with tables -> blocks, without the marks."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from tidegate.errors import BrokenDocument, DocumentTooLarge
from tidegate.services.converters.characters import slices
from tidegate.services.converters.lines import is_caption, is_heading, unwrap
from tidegate.services.converters.pieces import Converted, Piece
from tidegate.services.converters.tables import table_pieces

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_LINES = 100_000
"""Lines that are parsed: each costs up to 3 KB of tokens while it is."""
MAX_MARKS = 5_000
"""Inline marks that are parsed in one paragraph. No author writes as many, and parsing n of them can take n² steps."""
MAX_ALL_MARKS = 100_000
"""Inline marks that are parsed in one document; the rest is read without parsing."""
_MAX_NESTING = 100
"""Lists and quotations in each other; what is deeper is lost. The parser's preset of 20 is less than people use."""
_INNERMOST = {"blockquote_open", "list_item_open"}
CAPTION = "\ue0ca"
"""A private character, put at the beginning of a paragraph by who knows it to be a caption."""

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\n((?:[^\n]{0,500}\n){0,60}?)(?:---|\.\.\.)[ \t]*\n")
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_MARKS = "\\`*_<&~"
_BRACKET = 30
"""How many other marks an opening bracket counts for: measured, one that nothing closes takes 0.2 ms."""
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_LINK = re.compile(r"(?<!\\)!?\[([^\[\]\n]{0,300})\]\([^()\s]{0,500}\)")
_EMPHASIS = re.compile(r"(?<![\\\s])(?:\*{1,3}|_{2,3})(?=\W|$)|(?<!\S)(?:\*{1,3}|_{1,3})(?=\w)")
# What is not closed goes on to the end, so that no search begins twice: `<!--` a million times takes linear time.
_TAGS = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<[a-zA-Z/!][^<>]*>", re.DOTALL | re.IGNORECASE
)


def convert(text: str, *, source: str) -> Converted:
    """Find the blocks of a Markdown document; its title may stand in YAML front matter.

    Raises:
        DocumentTooLarge: more lines than are parsed in reasonable memory.
        BrokenDocument: quotations or lists are nested so deep that text in them would be lost.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = None
    if front := _FRONT_MATTER.match(text):
        text = text[front.end() :]
        named = _TITLE.search(front[1])
        title = named[1].strip().strip("\"'") if named else None
    return Converted(pieces(text, source=source), f"markdown/markdown-it-py-{version('markdown-it-py')}", title)


def pieces(text: str, *, source: str, guess_headings: bool = False) -> Iterator[Piece]:
    """Yield the blocks of Markdown text. `guess_headings`: paragraphs that read like headings are headings.

    Raises:
        DocumentTooLarge: more lines than are parsed in reasonable memory.
        BrokenDocument: quotations or lists are nested so deep that text in them would be lost.
    """
    lines = text.count("\n")
    if lines > MAX_LINES:
        raise DocumentTooLarge(source, f"it has {lines:,} lines, more than {MAX_LINES:,}", "split it")
    return _Reader(source, guess_headings).read(text)


class _Reader:
    """One document being read."""

    def __init__(self, source: str, guess_headings: bool) -> None:
        self._source = source
        self._guess_headings = guess_headings
        self._references: dict[str, object] = {}
        self._marks = 0

    def read(self, text: str) -> Iterator[Piece]:
        tokens = _parser().parse(text, self._references)
        if any(each.type in _INNERMOST and each.level >= _MAX_NESTING - 1 for each in tokens):
            problem = "its quotations or lists are nested so deep that text in them would be lost"
            raise BrokenDocument(self._source, problem, "take some of the nesting away")
        numbers: list[int | None] = []  # of the lists around, the next number, None for bullets
        sign = ""
        rows: list[list[str]] = []
        for token, opening in zip(tokens, [None, *tokens], strict=False):
            match token.type:
                case "inline" if opening and opening.type in {"th_open", "td_open"}:
                    rows[-1].append(self._plain(token.content)[0])
                case "inline" if opening and opening.type == "heading_open":
                    yield Piece("heading", self._plain(token.content)[0], level=int(opening.tag[1]))
                case "inline" if numbers:
                    yield Piece("list_item", sign + self._plain(token.content)[0])
                    sign = ""
                case "inline":
                    yield self._paragraph(token.content)
                case "bullet_list_open":
                    numbers.append(None)
                case "ordered_list_open":
                    numbers.append(int(token.attrs.get("start", 1)))
                case "bullet_list_close" | "ordered_list_close":
                    numbers.pop()
                case "list_item_open" if (number := numbers[-1]) is not None:
                    sign = f"{number}. "
                    numbers[-1] = number + 1
                case "list_item_open":
                    sign = ""
                case "table_open":
                    rows = []
                case "tr_open":
                    rows.append([])
                case "table_close":
                    yield from table_pieces(rows)
                case "fence" | "code_block":
                    yield Piece("code", token.content)
                case "html_block":
                    yield Piece("paragraph", html.unescape(_TAGS.sub(" ", token.content)))

    def _paragraph(self, content: str) -> Piece:
        text, bold = self._plain(content)
        if text.startswith(CAPTION):
            return Piece("caption", text[len(CAPTION) :])
        if is_caption(text):
            return Piece("caption", text)
        if (self._guess_headings or bold) and is_heading(text):
            return Piece("heading", text, level=3 if bold else 2)
        return Piece("paragraph", text)

    def _plain(self, content: str) -> tuple[str, bool]:
        """Return the text of inline Markdown, and whether all of it is bold."""
        marks = sum(map(content.count, _MARKS)) + _BRACKET * content.count("[")
        self._marks += marks
        if marks > MAX_MARKS or self._marks > MAX_ALL_MARKS:
            return "".join(map(_unmarked, slices(content))), False
        parser = _parser()
        children: list[Token] = []
        parser.inline.parse(content, parser, self._references, children)
        lines = [""]
        for token in children:
            match token.type:
                case "text" | "code_inline" | "text_special":
                    lines[-1] += token.content
                case "softbreak":
                    lines.append("")
                case "hardbreak":
                    lines[-1] += "\n"
                case "html_inline" if token.content[:3].lower() == "<br":
                    lines[-1] += "\n"
        outer = [token.type for token in children if token.type != "text" or token.content]
        return unwrap(lines), outer[:1] == ["strong_open"] and outer.index("strong_close") == len(outer) - 1


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # Inline marks are parsed a paragraph at a time, so that their number can be limited.
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    return parser.disable("inline")


def _unmarked(content: str) -> str:
    """Take the marks off without parsing, in linear time: links, emphasis, escapes."""
    content = _LINK.sub(r"\1", content)
    return html.unescape(_ESCAPED.sub(r"\1", _EMPHASIS.sub("", content)))
