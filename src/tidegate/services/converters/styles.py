"""What the styles and properties of a Word document say: which paragraphs are headings, and its title."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tidegate.services.converters.package import PartReader, attribute

_HEADING = re.compile(r"heading ([1-9])")


class Properties(PartReader):
    """The core properties, of which the title is kept."""

    title = ""
    _in_title = False

    def opened(self, name: str, attributes: Mapping[str, str]) -> None:
        """Note where the title begins."""
        self._in_title = name == "{http://purl.org/dc/elements/1.1/}title"

    def closed(self, name: str) -> None:
        """Note where it ends."""
        self._in_title = False

    def data(self, text: str) -> None:
        """Keep its text."""
        if self._in_title:
            self.title = (self.title + text)[:1000]


@dataclass(slots=True)
class Style:
    """A paragraph style: its name in small letters, its heading level or 0, whether its paragraphs are list items."""

    name: str = ""
    base: str = ""
    level: int = 0
    listed: bool = False


class Styles(PartReader):
    """The paragraph styles: which of them are headings, captions, lists."""

    def __init__(self) -> None:
        super().__init__()
        self._styles: dict[str, Style] = {}
        self._open = Style()

    def opened(self, name: str, attributes: Mapping[str, str]) -> None:
        """Keep what an element says of the style that it stands in."""
        value = attribute(attributes, "val")
        match name:
            case "style":
                self._open = self._styles[attribute(attributes, "styleId")] = Style()
            case "name":
                self._open.name = value.casefold()
            case "basedOn":
                self._open.base = value
            case "outlineLvl":
                self._open.level = outline_level(value)
            case "numId":
                self._open.listed = value != "0"

    def resolved(self) -> dict[str, Style]:
        """Return each style with what it inherits."""
        return {key: self._inherited(style) for key, style in self._styles.items()}

    def _inherited(self, style: Style) -> Style:
        level, listed = _named_level(style) or style.level, style.listed or style.name.startswith("list ")
        ancestor = style
        for _ in range(20):
            ancestor = self._styles.get(ancestor.base, Style())
            level = level or _named_level(ancestor) or ancestor.level
            listed = listed or ancestor.listed
        return replace(style, level=level, listed=listed)


def _named_level(style: Style) -> int:
    if style.name == "title":
        return 1
    found = _HEADING.fullmatch(style.name)
    return min(int(found[1]), 6) if found else 0


def outline_level(value: str) -> int:
    """Turn an outline level, 0 to 8 (9 is body text), into that of a heading, 1 to 6, or 0."""
    return min(int(value) + 1, 6) if value.isdecimal() and int(value) < 9 else 0
