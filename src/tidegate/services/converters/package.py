"""The parts of an Office Open XML package: unpacked within a limit, and read as a stream of elements."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from xml.etree.ElementTree import ParseError, XMLParser

from tidegate.errors import BrokenDocument, DocumentTooLarge, EncryptedDocument

MAX_DEPTH = 500
"""Elements within one another; a table in a table in a table has about 60."""
MAX_ELEMENTS = 2_000_000
"""Elements that are read of one part, at about 6 µs each. A thousand pages have a million."""
MAX_TAG_BYTES = 8 * 1024 * 1024
"""Bytes without a `>`: expat before 2.6 reads a tag again with each megabyte that arrives."""

_WORD = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}",
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}",
)
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"


class Package:
    """The parts of the document, read until their sizes add up to the limit; no size in a header is believed."""

    def __init__(self, data: bytes, source: str, limit: int) -> None:
        self._source = source
        self._limit = self._left = limit
        self._zip = zipfile.ZipFile(BytesIO(data))  # the format was recognised by opening it

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def main_part(self) -> str:
        """Return the name of the part that holds the text, which need not be word/document.xml."""
        relations = _Relations()
        self.parse("_rels/.rels", relations)
        return relations.main or "word/document.xml"

    def parse(self, name: str, reader: PartReader) -> bool:
        """Feed a part to a reader; return False if there is no such part."""
        content = self._read(name)
        if content is None:
            return False
        parser = XMLParser(target=reader)  # noqa: S314 - its one danger, a DTD, is refused by PartReader
        try:
            if _longest_tag(content) > MAX_TAG_BYTES:
                raise _Refused("a tag of several megabytes")
            parser.feed(content)
            parser.close()
        except (ParseError, _Refused, LookupError, ValueError) as error:  # LookupError: an encoding of that name
            problem = f"its XML holds {error}" if isinstance(error, _Refused) else "its XML is damaged"
            raise BrokenDocument(self._source, problem, "open it in Word and save it again") from error
        except TooMuch as error:
            raise DocumentTooLarge(self._source, f"it has {error}", "split it") from error
        return True

    def _read(self, name: str) -> bytes | None:
        try:
            member = self._zip.getinfo(name)
        except KeyError:
            return None
        if member.flag_bits & 1:
            raise EncryptedDocument(self._source, "it is encrypted", "save it without a password and try again")
        if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise BrokenDocument(self._source, "it is compressed as no Word document is", "save it again in Word")
        try:
            with self._zip.open(member) as part:
                content = part.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise BrokenDocument(self._source, "it is damaged", "get it again, undamaged") from error
        if len(content) > self._left:
            limit = f"it expands to more than {self._limit:,} bytes"
            raise DocumentTooLarge(self._source, limit, "split it, or raise max_expanded_bytes")
        self._left -= len(content)
        return content


def _longest_tag(content: bytes) -> int:
    longest = start = 0
    while (end := content.find(b">", start)) >= 0:
        longest = max(longest, end - start)
        start = end + 1
    return max(longest, len(content) - start)


class _Refused(Exception):
    """The XML holds what no Word document needs."""


class TooMuch(Exception):
    """There is more of it than is read."""


class PartReader:
    """Receives the elements of one part; subclasses implement `opened`, `closed` and `data`."""

    def __init__(self) -> None:
        self.depth = 0
        self._count = 0

    def doctype(self, *_: object) -> None:
        """Refuse a DTD, and with it entities of every kind; Office Open XML has none (ECMA-376, part 2)."""
        raise _Refused("a document type definition")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Count the depth, and pass on the name without its namespace if it is Word's."""
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise TooMuch(f"more than {MAX_ELEMENTS:,} elements")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(f"elements nested more than {MAX_DEPTH} deep")
        self.opened(_local(tag), attributes)

    def end(self, tag: str) -> None:
        """Pass on the name as `start` does."""
        self.closed(_local(tag))
        self.depth -= 1

    def opened(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""

    def closed(self, name: str) -> None:
        """An element ends."""

    def data(self, text: str) -> None:
        """Some text, which need not be all there is between two tags."""


@lru_cache(maxsize=1024)
def _local(tag: str) -> str:
    namespace, bracket, name = tag.rpartition("}")
    return name if namespace + bracket in _WORD or tag == _FALLBACK else tag


def attribute(attributes: Mapping[str, str], name: str) -> str:
    """Return the value of one of Word's attributes, empty if it is missing."""
    return next((attributes[key] for namespace in _WORD if (key := namespace + name) in attributes), "")


class _Relations(PartReader):
    """The relations of the package, of which one names the main part."""

    main = ""

    def opened(self, name: str, attributes: Mapping[str, str]) -> None:
        if attributes.get("Type", "").endswith("/officeDocument") and attributes.get("TargetMode") != "External":
            self.main = posixpath.normpath(attributes.get("Target", "")).lstrip("/")
