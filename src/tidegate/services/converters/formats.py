"""What a document is, whatever it is called: by its first bytes, then by its declared type, then by its name."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from enum import Enum
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from tidegate.errors import (
    BrokenDocument,
    DocumentTooLarge,
    EmptyDocument,
    EncryptedDocument,
    UnsupportedDocument,
)
from tidegate.services.converters.encoding import decode, is_binary


class Format(Enum):
    """A type that is converted, with its media type."""

    TEXT = "text/plain"
    MARKDOWN = "text/markdown"
    HTML = "text/html"
    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


READABLE = "save it as PDF, DOCX, HTML, Markdown or plain text"
MAX_MEMBERS = 10_000
"""Files that a zip archive may hold: a real DOCX has tens, and listing a million costs half a gigabyte."""

_MEDIA_TYPES = {
    **{form.value: form for form in Format},
    "application/x-pdf": Format.PDF,
    "application/xhtml+xml": Format.HTML,
    "text/x-markdown": Format.MARKDOWN,
}
_SUFFIXES = {
    ".htm": Format.HTML,
    ".html": Format.HTML,
    ".xhtml": Format.HTML,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".mkd": Format.MARKDOWN,
    ".pdf": Format.PDF,
    ".docx": Format.DOCX,
    ".docm": Format.DOCX,
    ".txt": Format.TEXT,
}
_TEXTUAL_MAGIC = ((b"{\\rtf", "a Rich Text file"), (b"%!PS", "a PostScript file"))
_BINARY_MAGIC = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"BM", "a bitmap picture"),
    (b"RIFF", "a picture, sound or film"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"Rar!", "a RAR archive"),
)
_ZIP_CONTENTS = (
    ("ppt/", "a PowerPoint presentation (PPTX)"),
    ("xl/", "an Excel workbook (XLSX)"),
    ("content.xml", "an OpenDocument file (ODT, ODS, ODP)"),
    ("META-INF/container.xml", "an e-book (EPUB)"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BEFORE_ROOT = re.compile(r"(?:\s+|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_HTML_ROOT = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_HTML_PART = re.compile(r"<(?:article|div|h[1-6]|main|meta|ol|p|section|table|title|ul)[\s>]", re.IGNORECASE)
_TAG = re.compile(rb"<[a-zA-Z!/]")


def detect(data: bytes, *, source: str, media_type: str | None) -> Format:
    """Return the format that the bytes have.

    A claim, by media type or name, counts only where bytes cannot tell: text may be plain, Markdown or HTML.

    Raises:
        EmptyDocument: no bytes.
        UnsupportedDocument: a known type that no converter reads, or an unknown one.
        EncryptedDocument: an Office document under a password.
        BrokenDocument: binary data that is not what its name or media type says.
    """
    if not data:
        raise EmptyDocument(source, "it is empty, 0 bytes", "give a document with content")
    binary = is_binary(data)
    if data[:1024].lstrip().startswith(b"%PDF-") or (
        binary and b"%PDF-" in data[:1024]
    ):  # readers skip what precedes it
        return Format.PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(data, source)
    if data.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise EncryptedDocument(source, "it is protected by a password", "save it without one and try again")
        raise UnsupportedDocument(source, "it is a document of Office 97-2003 (DOC, XLS, PPT)", READABLE)
    claim = _claim(source, media_type)
    for magic, name in _BINARY_MAGIC if binary else _TEXTUAL_MAGIC:
        if data.startswith(magic):
            raise UnsupportedDocument(source, f"it is {name}", _way_out(name))
    if not binary:
        return _text_format(data, claim, source)
    if claim in {Format.PDF, Format.DOCX}:
        raise BrokenDocument(source, f"it is named a {claim.name} but does not begin as one", "get it again, undamaged")
    raise UnsupportedDocument(source, "it is binary data of an unknown type", READABLE)


def _text_format(data: bytes, claim: Format | None, source: str) -> Format:
    head = decode(data[:65536])
    root = _BEFORE_ROOT.sub("", head, count=1)
    if _HTML_ROOT.match(root) or (claim is not Format.MARKDOWN and _HTML_PART.match(root)):
        return Format.HTML
    if head.startswith("<?xml"):
        raise UnsupportedDocument(source, "it is XML of an unknown kind", READABLE)
    if claim is Format.HTML and _TAG.search(data):
        return Format.HTML
    return Format.MARKDOWN if claim is Format.MARKDOWN else Format.TEXT


def _zip_format(data: bytes, source: str) -> Format:
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise DocumentTooLarge(source, f"it is an archive of more than {MAX_MEMBERS:,} files", _way_out("archive"))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        raise BrokenDocument(source, "it is a damaged DOCX or zip archive", "get it again, undamaged") from error
    for start, name in _ZIP_CONTENTS:
        if any(member.startswith(start) for member in names):
            raise UnsupportedDocument(source, f"it is {name}", READABLE)
    if "[Content_Types].xml" in names and "_rels/.rels" in names:
        return Format.DOCX
    raise UnsupportedDocument(source, "it is a zip archive", _way_out("archive"))


def _claim(source: str, media_type: str | None) -> Format | None:
    """Prefer what is said more precisely: servers send Markdown as text/plain, and anything as octet-stream."""
    declared = _MEDIA_TYPES.get((media_type or "").partition(";")[0].strip().lower())
    named = _SUFFIXES.get(PurePosixPath(urlsplit(source).path if "://" in source else source).suffix.lower())
    return named if declared in {None, Format.TEXT} and named else declared


def _way_out(name: str) -> str:
    if name.endswith("archive"):
        return "unpack it and give the document inside"
    return "run text recognition (OCR) on it first" if "picture" in name else READABLE
