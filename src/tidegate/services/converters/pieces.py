"""Pieces: what a converter finds in a document, in order, and how they become one text with offsets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tidegate.errors import DocumentTooLarge, NoTextInDocument
from tidegate.services.converters.characters import one_line, tidy, tidy_code
from tidegate.state import Block, BlockKind, Document, Page

MAX_PIECES = 200_000
"""Blocks that a document may have. All of War and Peace has 12,000; a million of them cost a gigabyte."""

_TITLE_LINES = 4
_FILE_NAME = re.compile(r"(?:microsoft word|powerpoint) - |^untitled|\.(?:docx?|html?|indd|pages|pdf|rtf|txt|xlsx?)$")


@dataclass(frozen=True, slots=True)
class Piece:
    """One block to be. `page` is where it begins, 0 where there are no pages; `turns` are the offsets in `text` at
    which further pages begin, with their numbers, if it is `ready`: tidy already, so that offsets stay true.
    """

    kind: BlockKind
    text: str
    level: int = 0
    page: int = 0
    turns: tuple[tuple[int, int], ...] = ()
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Converted:
    """What a converter found. `title` is what the document's own metadata says, if anything."""

    pieces: Iterable[Piece]
    converter: str
    title: str | None = None
    why_empty: tuple[str, str] = ("it holds no text", "give a document with text")


def assemble(found: Converted, *, data: bytes, source: str, media_type: str, max_characters: int) -> Document:
    """Join the pieces into a document whose text holds nothing but its blocks, a blank line between any two.

    Raises:
        NoTextInDocument: there is no text.
        DocumentTooLarge: there is too much of it.
    """
    texts: list[str] = []
    blocks: list[Block] = []
    turns: list[tuple[int, int]] = []
    position = 0
    for piece in found.pieces:
        text = _tidied(piece)
        if not text:
            continue
        for offset, number in ((0, piece.page), *piece.turns):
            if number > (turns[-1][1] if turns else 0):
                turns.append((position + offset, number))
        texts.append(text)
        blocks.append(Block(start=position, end=position + len(text), kind=piece.kind, level=piece.level))
        position += len(text) + 2
        if position > max_characters or len(blocks) > MAX_PIECES:
            limit = f"{max_characters:,} characters" if position > max_characters else f"{MAX_PIECES:,} paragraphs"
            raise DocumentTooLarge(source, f"its text has more than {limit}", "split it, or raise max_expanded_bytes")
    if not blocks:
        raise NoTextInDocument(source, *found.why_empty)
    text = "\n\n".join(texts)
    return Document(
        id=hashlib.sha256(data).hexdigest(),
        source=source,
        media_type=media_type,
        title=_title(found.title, blocks, text, source),
        text=text,
        blocks=tuple(blocks),
        pages=tuple(_pages(turns, text)),
        converter=found.converter,
    )


def _tidied(piece: Piece) -> str:
    if piece.ready:
        return piece.text
    if piece.kind == "code":
        return tidy_code(piece.text)
    return one_line(piece.text) if piece.kind == "heading" else tidy(piece.text)


def _pages(turns: list[tuple[int, int]], text: str) -> Iterable[Page]:
    for index, (start, number) in enumerate(turns):
        end = turns[index + 1][0] if index + 1 < len(turns) else len(text)
        while text[end - 1].isspace():
            end -= 1
        yield Page(start=start, end=end, number=number)


def _title(named: str | None, blocks: list[Block], text: str, source: str) -> str:
    """Prefer the document's own title, if it is no file name, to its first heading, and that to its first line."""
    title = one_line(named or "")
    if title and not _FILE_NAME.search(title.casefold()):
        return _shortened(title)
    first = next((index for index, block in enumerate(blocks) if block.kind == "heading"), 0)
    line = " – ".join(_title_lines(blocks[first:], text))
    return _shortened(line) if re.search(r"\w", line[:1000]) else PurePosixPath(source).name or source


def _title_lines(blocks: list[Block], text: str) -> list[str]:
    """Return the first line, and the headings right below it unless it is one of level 1, a title by itself.

    Forms and chapters begin so, in centred bold lines: UNITED STATES, SECURITIES AND EXCHANGE COMMISSION, FORM 10-K.
    They end where a heading says nothing new, or heads the contents.
    """
    lines = [text[blocks[0].start : blocks[0].end].partition("\n")[0]]
    if (blocks[0].kind, blocks[0].level) == ("heading", 1):
        return lines
    for block in blocks[1:_TITLE_LINES]:
        line = text[block.start : block.end]
        said = set(re.findall(r"\w+", " ".join(lines).casefold())) | {"table", "of", "contents"}
        if (block.kind, block.level) != ("heading", blocks[0].level) or said.issuperset(
            re.findall(r"\w+", line.casefold())
        ):
            break
        lines.append(line)
    return lines


def _shortened(title: str, limit: int = 150) -> str:
    """Cut a title after the last word that fits."""
    return title if len(title) <= limit else (title[:limit].rpartition(" ")[0] or title[:limit]) + " …"
