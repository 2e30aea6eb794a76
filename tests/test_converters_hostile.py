"""Documents that are damaged, locked, too large, or made to harm: each its own error, soon, and no text half read."""

from __future__ import annotations

import asyncio
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.samples import make
from tidegate import errors
from tidegate.services.converters import convert, docx, formats, html, markdown, package, pdf, pieces, plain
from tidegate.state import Document

LIMIT = 2_000_000
SECONDS = 20.0
"""Far above what any of these takes (all of them together take a few), and far below what a square would."""

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SCAN = "it holds no text, as a scan does"


async def read(data: bytes, source: str, limit: int = LIMIT) -> Document:
    async with asyncio.timeout(SECONDS):
        return await convert(data, source=source, media_type=None, max_expanded_bytes=limit)


def zipped(parts: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def word(document: bytes | str, **others: bytes | str) -> bytes:
    package = {"[Content_Types].xml": "<Types/>", "_rels/.rels": "<Relationships/>", "word/document.xml": document}
    return zipped(package | {name.replace("__", "/") + ".xml": content for name, content in others.items()})


def body(content: str) -> str:
    return f'<w:document xmlns:w="{WORD}"><w:body>{content}</w:body></w:document>'


def text(content: str) -> str:
    return f"<w:p><w:r><w:t>{content}</w:t></w:r></w:p>"


def page(drawing: str) -> bytes:
    return make.pdf([[drawing]])


def flate(drawing: bytes) -> bytes:
    """Return a PDF whose page is packed."""
    packed = zlib.compress(drawing, 9)
    head, _, tail = make.pdf([["~"]]).partition(b"<< /Length 1 >>\nstream\n~\nendstream")
    stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    return head + stream + tail  # the offsets are off by now, and every reader copes


ENTITIES = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
SAMPLE = (Path(__file__).parent / "samples" / "port-survey.pdf").read_bytes()

REFUSED: dict[str, tuple[bytes, str, type[errors.DocumentError], str]] = {
    "no bytes": (b"", "a.txt", errors.EmptyDocument, "0 bytes"),
    "white space": (b" \r\n\t \n", "a.txt", errors.EmptyDocument, "white space only"),
    "a byte order mark alone": (b"\xff\xfe", "a.txt", errors.EmptyDocument, "white space only"),
    "rules alone": (b"-----\n*****\n", "a.txt", errors.NoTextInDocument, "no words"),
    "markup alone": (b"<html><script>f()</script></html>", "a.html", errors.NoTextInDocument, "no text"),
    "a scan": (page("0 0 100 100 re f"), "a.pdf", errors.NoTextInDocument, SCAN),
    "an empty Word document": (word(body("<w:p/>")), "a.docx", errors.NoTextInDocument, "no text"),
    "PowerPoint": (zipped({"ppt/presentation.xml": ""}), "a.pptx", errors.UnsupportedDocument, "PowerPoint"),
    "Excel": (zipped({"xl/workbook.xml": ""}), "a.docx", errors.UnsupportedDocument, "Excel"),
    "OpenDocument": (zipped({"content.xml": ""}), "a.odt", errors.UnsupportedDocument, "OpenDocument"),
    "a zip": (zipped({"a.txt": "text"}), "a.zip", errors.UnsupportedDocument, "unpack it"),
    "Rich Text": (b"{\\rtf1\\ansi text}", "a.rtf", errors.UnsupportedDocument, "Rich Text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\0\0\0", "a.png", errors.UnsupportedDocument, "OCR"),
    "gzip": (b"\x1f\x8b\x08" + bytes(range(30)), "a.gz", errors.UnsupportedDocument, "gzip"),
    "other XML": (b"<?xml version='1.0'?><rss/>", "a.xml", errors.UnsupportedDocument, "XML"),
    "old Word": (formats._OLE + bytes(100), "a.doc", errors.UnsupportedDocument, "97-2003"),
    "random bytes": (bytes(range(256)) * 4, "a.bin", errors.UnsupportedDocument, "unknown type"),
    "binary named PDF": (bytes(range(256)) * 4, "a.pdf", errors.BrokenDocument, "named a PDF"),
    "a locked Word document": (
        formats._OLE + bytes(64) + "EncryptedPackage".encode("utf-16-le"),
        "a.docx",
        errors.EncryptedDocument,
        "password",
    ),
    "a PDF of its head": (b"%PDF-1.7\n", "a.pdf", errors.BrokenDocument, "damaged"),
    "half a PDF": (SAMPLE[: len(SAMPLE) // 3], "a.pdf", errors.BrokenDocument, "damaged"),
    "half a zip": (word(body(text("x")))[:-40], "a.docx", errors.BrokenDocument, "damaged"),
    "a Word document without its text": (
        zipped({"[Content_Types].xml": "", "_rels/.rels": "<Relationships/>"}),
        "a.docx",
        errors.BrokenDocument,
        "main part is missing",
    ),
    "XML in no encoding": (
        word('<?xml version="1.0" encoding="lTF-8"?>' + body(text("x"))),
        "a.docx",
        errors.BrokenDocument,
        "XML is damaged",
    ),
    "XML that stops": (word(body(text("x"))[:-20]), "a.docx", errors.BrokenDocument, "XML is damaged"),
    "an entity bomb": (
        word(f'<!DOCTYPE w [<!ENTITY a0 "ha">{ENTITIES}]>{body(text("&a9;"))}'),
        "a.docx",
        errors.BrokenDocument,
        "document type definition",
    ),
    "an external entity": (
        word(f'<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>{body(text("&x;"))}'),
        "a.docx",
        errors.BrokenDocument,
        "document type definition",
    ),
    "an entity bomb in the styles": (
        word(body(text("x")), word__styles='<!DOCTYPE w [<!ENTITY a "b">]><w/>'),
        "a.docx",
        errors.BrokenDocument,
        "document type definition",
    ),
    "XML without end": (word(body("<w:p>" * 100_000)), "a.docx", errors.BrokenDocument, "nested more than"),
    "a zip bomb": (word(b"<w>" + b" " * 300_000_000), "a.docx", errors.DocumentTooLarge, "expands to more than"),
    "a PDF bomb": (flate(b" " * 30_000_000), "a.pdf", errors.DocumentTooLarge, "expands to more than"),
    "an archive of very many files": (
        zipped({f"{n}": "" for n in range(formats.MAX_MEMBERS + 1)}),
        "a.docx",
        errors.DocumentTooLarge,
        "10,000 files",
    ),
    "more text than allowed": (b"word " * 1_000_000, "a.txt", errors.DocumentTooLarge, "2,000,000 characters"),
    "HTML too deep to be read whole": (
        b"<html>" + b"<div>" * 5000 + b"text",
        "a.html",
        errors.BrokenDocument,
        "nested over 1,000 deep",
    ),
    "quotations too deep to be read whole": (b">" * 50_000 + b" text", "a.md", errors.BrokenDocument, "nested so deep"),
    "lists too deep to be read whole": (
        b"A note.\n\n" + b"- " * 50 + b"text",
        "a.md",
        errors.BrokenDocument,
        "nested so",
    ),
    "quotations in HTML too deep to be read whole": (
        b"<p>A note.</p>" + b"<blockquote>" * 200 + b"text",
        "a.html",
        errors.BrokenDocument,
        "nested so deep",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_each_has_its_own_error_that_names_the_document_and_the_way_out(name: str) -> None:
    data, source, expected, problem = REFUSED[name]
    with pytest.raises(errors.DocumentError, match=problem) as caught:
        await read(data, source)
    assert type(caught.value) is expected
    assert caught.value.source == source
    assert caught.value.way_out
    assert len(str(caught.value)) < 300


async def test_a_locked_zip_member_is_an_encrypted_document() -> None:
    data = bytearray(word(body(text("x"))))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + flags] |= 1
    with pytest.raises(errors.EncryptedDocument):
        await read(bytes(data), "a.docx")


async def test_a_size_in_a_zip_header_is_not_believed() -> None:
    data = bytearray(word(b"<w>" + b" " * 10_000_000))
    place = data.rfind(b"PK\x01\x02", 0, data.rfind(b"word/document.xml"))
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    with pytest.raises((errors.DocumentTooLarge, errors.BrokenDocument)):
        await read(bytes(data), "a.docx")


async def test_links_to_elsewhere_are_not_followed() -> None:
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    rels = f'<Relationships><Relationship Type="{relation}" TargetMode="External" Target="http://127.0.0.1:1/x"/></Relationships>'
    parts = {"[Content_Types].xml": "", "_rels/.rels": rels, "word/document.xml": body(text("Inside."))}
    assert (await read(zipped(parts), "a.docx")).text == "Inside."


async def test_tables_within_tables_are_flattened_once() -> None:
    inner = text("x" * 100_000)
    for _ in range(100):
        inner = f"<w:tbl><w:tr><w:tc>{inner}</w:tc></w:tr></w:tbl>"
    assert (await read(word(body(inner)), "a.docx")).text == "x" * 100_000


async def test_styles_that_inherit_in_a_circle_are_read() -> None:
    circle = "".join(f'<w:style w:styleId="{n}"><w:basedOn w:val="{(n + 1) % 50}"/></w:style>' for n in range(50))
    styled = '<w:p><w:pPr><w:pStyle w:val="3"/></w:pPr><w:r><w:t>Text.</w:t></w:r></w:p>'
    data = word(body(styled), word__styles=f'<w:styles xmlns:w="{WORD}">{circle}</w:styles>')
    assert (await read(data, "a.docx")).text == "Text."


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_page_whose_text_stands_sideways_is_read(turns: int) -> None:
    matrix = {1: "0 1 -1 0", 2: "-1 0 0 -1", 3: "0 -1 1 0"}[turns]
    first, second = {1: ("300 100", "312 100"), 2: ("500 300", "500 312"), 3: ("300 700", "288 700")}[turns]
    drawing = (
        f"BT /F1 9 Tf {matrix} {first} Tm (The first line) Tj ET BT /F1 9 Tf {matrix} {second} Tm (goes on.) Tj ET"
    )
    assert (await read(page(drawing), "a.pdf")).text == "The first line goes on."


async def test_absurd_coordinates_do_no_harm() -> None:
    far = (
        "BT /F1 1e30 Tf 1e38 -1e38 Td (far) Tj ET BT /F1 0 Tf 10 10 Td (flat) Tj ET BT /F1 9 Tf 60 700 Td (Here.) Tj ET"
    )
    assert "Here." in (await read(page(far), "a.pdf")).text


async def test_random_bytes_after_a_magic_number_do_not_crash_a_parser() -> None:
    for seed in range(40):
        noise = zlib.compress(bytes((seed * n * 31 + n) % 256 for n in range(2000)))
        for data, source in (
            (SAMPLE[: 60 * seed] + noise + SAMPLE[60 * seed + 200 :], "a.pdf"),
            (b"PK\x03\x04" + noise, "a.docx"),
        ):
            try:
                await read(data, source)
            except errors.DocumentError as error:
                assert error.way_out  # noqa: PT017 - either outcome is right


PATHOLOGICAL: dict[str, tuple[bytes, str]] = {
    "one line": (b"a" * 1_900_000, "a.txt"),
    "one line of words": (b"word " * 380_000, "a.txt"),
    "closing brackets": (b"x" + b'"' * 1_000_000, "a.txt"),
    "references": (b"[1]" * 600_000, "a.txt"),
    "hyphens": (b"some words and some-\n" * 60_000, "a.txt"),
    "combining marks": (("a" + "\u0301\u0323" * 200_000).encode(), "a.txt"),
    "short lines": (b"This is a long line of prose that has no end and\nClub\nTown\n" * 10_000, "a.txt"),
    "images in Markdown": (b"![" * 500_000, "a.md"),
    "images in paragraphs": ((b"![" * 100 + b"\n\n") * 300, "a.md"),
    "emphasis": (b"*a **b " * 200_000, "a.md"),
    "ticks": (b"`a``b" * 200_000, "a.md"),
    "comments in Markdown": (b"<!--" * 300_000, "a.md"),
    "quotes in quotes": (b">" * 1_000_000, "a.md"),
    "lists in lists": (b"\n".join(b"  " * n + b"- a" for n in range(800)), "a.md"),
    "front matter": (b"---\n" + b"a: b\n" * 20_000, "a.md"),
    "doctypes": (b"<html>" + b"<!DOCTYPE " * 100_000, "a.html"),
    "spanning cells": (b"<html><table>" + b"<tr><td colspan=1000 rowspan=1000>x</td></tr>" * 5_000, "a.html"),
    "hidden spanning cells": (
        b"<html><table>" + b'<tr><td title=">" colspan=1000 rowspan=1000>x</td></tr>' * 5_000,
        "a.html",
    ),
    "unclosed attributes": (b"<html><a " + b'x="' * 300_000, "a.html"),
    "unclosed tags": (b"<html>" + b"<td " * 100_000, "a.html"),
    "raised text": (b"<html><p>" + b"x<sup>1</sup>" * 10_000, "a.html"),
    "runs of a Word document": (word(body("<w:p>" + "<w:r><w:t>ab </w:t></w:r>" * 50_000 + "</w:p>")), "a.docx"),
    "a tag of megabytes": (word(body('<w:p w:a="' + "x" * 1_900_000 + '"/>')), "a.docx"),
    "attributes": (word(body("<w:p " + " ".join(f'a{n}="1"' for n in range(50_000)) + "/>")), "a.docx"),
    "scattered words": (
        page(" ".join(f"BT /F1 9 Tf {n * 37 % 600} {n * 53 % 780} Td (word) Tj ET" for n in range(4000))),
        "a.pdf",
    ),
    "one page again and again": (make.pdf([make.first_page()] * 60), "a.pdf"),
}


REFUSALS = {errors.NoTextInDocument, errors.DocumentTooLarge, errors.BrokenDocument}


@pytest.mark.parametrize("name", PATHOLOGICAL)
async def test_no_input_takes_more_than_linear_time(name: str) -> None:
    data, source = PATHOLOGICAL[name]
    try:
        await read(data, source)
    except errors.DocumentError as error:
        assert type(error) in REFUSALS  # noqa: PT017 - any of them is right


async def test_a_hundred_pages_of_one_paragraph_keep_their_offsets() -> None:
    numbers = ["".join("abcdefghij"[int(digit)] for digit in f"{number:03}") for number in range(100)]
    lines = [f"and {number} they went on to the next of the many pages of this endless" for number in numbers]
    document = await read(make.pdf([[make.text(60, 700, line)] for line in lines]), "a.pdf")
    assert [document.slice(span) for span in document.pages] == lines
    assert [span.number for span in document.pages] == list(range(1, 101))
    assert len(document.blocks) == 1


@pytest.mark.parametrize(
    ("module", "limit", "data", "source"),
    [
        (plain, "MAX_LINES", b"a\n" * 50, "a.txt"),
        (markdown, "MAX_LINES", b"a\n" * 50, "a.md"),
        (html, "MAX_TAGS", b"<html>" + b"<b>a</b>" * 50, "a.html"),
        (pieces, "MAX_PIECES", b"Some prose, with an end.\n\n" * 50, "a.txt"),
        (docx, "MAX_PIECES", word(body(text("Some prose.") * 50)), "a.docx"),
        (package, "MAX_ELEMENTS", word(body("<w:p/>" * 50)), "a.docx"),
        (pdf, "MAX_PAGES", make.pdf([make.first_page()] * 50), "a.pdf"),
        (pdf, "MAX_PAGE_CHARACTERS", SAMPLE, "a.pdf"),
    ],
)
async def test_every_limit_is_kept(
    module: object, limit: str, data: bytes, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await read(data, source) if limit != "MAX_ELEMENTS" else None
    monkeypatch.setattr(module, limit, 40)
    with pytest.raises(errors.DocumentTooLarge):
        await read(data, source)


async def test_past_the_limit_of_marks_markdown_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_MARKS", 3)
    document = await read(b"A **bold** [link](http://x.y) with `code`, \\* and &amp; in snake_case_name.", "a.md")
    assert document.text == "A bold link with `code`, * and & in snake_case_name."


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [b"a" * 50_000_000, b"word " * 10_000_000, b"a line of prose that goes on and on and comes to no end,\n" * 900_000],
)
async def test_fifty_megabytes_of_text_are_read_without_holding_the_event_loop(data: bytes) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(convert(data, source="a.txt", media_type=None, max_expanded_bytes=100_000_000))
    longest = 0.0
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before)
    assert len((await task).text) > 20_000_000
    assert longest < 5.0


HOSTILE = {
    "empty.txt": errors.EmptyDocument,
    "malformed.pptx": errors.UnsupportedDocument,
    "password.pdf": errors.EncryptedDocument,
    "random.bin": errors.UnsupportedDocument,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_documents_of_others(documents: Path, name: str) -> None:
    with pytest.raises(HOSTILE[name], match=name):
        await read((documents / "hostile" / name).read_bytes(), name)
