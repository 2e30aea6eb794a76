"""The converters: what comes out of each format, and what holds for whatever comes out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import subprocess
import sys
import textwrap
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import make
from tidegate.errors import DocumentError
from tidegate.services.converters import convert, encoding, plain
from tidegate.services.converters.characters import clean, tidy
from tidegate.state import Document

SAMPLES = Path(__file__).parent / "samples"
NAMES = sorted(path.name for path in SAMPLES.iterdir() if path.suffix != ".py" and path.is_file())
LIMIT = 50_000_000


async def read(path: Path, media_type: str | None = None) -> Document:
    return await convert(path.read_bytes(), source=path.name, media_type=media_type, max_expanded_bytes=LIMIT)


async def read_text(text: str, source: str = "a.txt") -> Document:
    data = text.encode("utf-8", "surrogatepass")
    return await convert(data, source=source, media_type=None, max_expanded_bytes=LIMIT)


def blocks(document: Document, kind: str | None = None) -> list[str]:
    return [document.slice(block) for block in document.blocks if kind in {None, block.kind}]


def outline(document: Document) -> list[tuple[int, str]]:
    return [(block.level, document.slice(block)) for block in document.blocks if block.kind == "heading"]


def check(document: Document, data: bytes) -> None:
    """Hold a document to what `state` promises of every one."""
    text = document.text
    assert document.id == hashlib.sha256(data).hexdigest()
    assert text == "\n\n".join(blocks(document))
    for block in document.blocks:
        inside = document.slice(block)
        assert (inside.rstrip() if block.kind == "code" else inside.strip()) == inside != ""
        assert "\n\n" not in inside
        assert bool(block.level) == (block.kind == "heading")
        assert block.kind != "heading" or "\n" not in inside
        assert block.kind == "code" or not any(line != line.strip() or "  " in line for line in inside.split("\n"))
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text if character != "\n")
    assert text == unicodedata.normalize("NFC", text)
    assert text == clean(text)
    text.encode("utf-8")
    assert document.title
    assert "\n" not in document.title
    if document.pages:
        assert document.pages[0].start == 0
        assert document.pages[-1].end == len(text)
        for before, after in itertools.pairwise(document.pages):
            assert before.number < after.number
            assert text[before.end : after.start].strip() == ""


@pytest.mark.parametrize("name", NAMES)
async def test_every_sample_keeps_what_is_promised_of_documents(name: str) -> None:
    data = (SAMPLES / name).read_bytes()
    document = await read(SAMPLES / name)
    check(document, data)
    assert document == await read(SAMPLES / name), "the same bytes give the same document"
    assert document.converter.split("/")[0] in {"text", "markdown", "html", "pdf", "docx"}


async def test_markdown_loses_its_marks_and_keeps_its_structure() -> None:
    document = await read(SAMPLES / "harbour-report.md")
    assert document.title == "Harbour report, autumn 2025"
    assert outline(document) == [
        (1, "Harbour report, autumn 2025"),
        (2, "What was decided"),
        (2, "What it costs to wait"),
        (2, "What is still open"),
    ]
    assert "Rotterdam | 29,000 | 61,000 t | €21 million" in blocks(document, "table")[0].split("\n")
    assert len(blocks(document, "list_item")) == 3
    assert (
        "Delegates from Hamburg, Bergen and Aberdeen agreed to share the cost of a common shore-power standard, the "
        "first of its kind between three countries that are not all in the European Union." in document.text
    )
    assert document.media_type == "text/markdown"


async def test_a_letter_keeps_its_address_its_table_and_its_lists() -> None:
    document = await read(SAMPLES / "ferry-notice.txt")
    assert document.title == "NOTICE TO PASSENGERS"
    assert outline(document) == [(1, "NOTICE TO PASSENGERS"), (2, "1. Refunds")]
    assert "Nordvik Lines\nQuay Street 4\nAberdeen AB11 5RE" in blocks(document, "paragraph")
    assert blocks(document, "table") == [
        "Passenger | Low season | High season\n"
        "Adult | £58 | £84\n"
        "Child under 12 | £21 | £30\n"
        "Car with driver | £145 | £210"
    ]
    assert blocks(document, "list_item")[0] == (
        "a passport or an identity card that is valid for three more months, also on day trips;"
    )
    assert "new security checks that the Norwegian Coastal Administration has ordered." in document.text
    assert blocks(document, "paragraph")[-1] == "Yours faithfully,\nKari Lunde"


async def test_html_loses_navigation_scripts_footer_and_what_is_hidden() -> None:
    document = await read(SAMPLES / "council-minutes.html")
    for gone in ("Home", "All minutes", "must not be read", "margin", "hidden", "Copyright"):
        assert gone not in document.text
    assert document.title == "Minutes of the harbour committee, 9 January 2025"
    assert outline(document) == [(1, "Harbour committee"), (2, "Present"), (2, "Dredging"), (2, "Spending")]
    assert blocks(document, "table") == ["Purpose | Sum\nLights | £12,000\nBuoys | £7,500"]
    assert blocks(document, "caption") == [
        "The channel at low water, seen from the north.",
        "Spending of the committee in pounds",
    ]
    assert blocks(document, "list_item") == [
        "Councillor Fiona Mackay (chair)",
        "Marcus Okafor, harbour master",
        "with his deputy, Euan Reid",
    ]
    assert blocks(document, "code") == ["tide  height\n06:10   3.9\n12:24   0.8"]
    assert "since 2021. Dredging it would cost £1.8 million; the work could begin in September." in document.text
    assert "from a company in Rotterdam or Antwerp.\nDecided without a vote." in document.text


async def test_a_pdf_is_read_column_by_column_and_paragraphs_run_on_over_columns_and_pages() -> None:
    document = await read(SAMPLES / "port-survey.pdf")
    assert document.title == "Depth of the Berths and the Channel of Lisbon"
    assert outline(document) == [
        (1, "Depth of the Berths and the Channel of Lisbon"),
        (2, "1 Summary"),
        (2, "2 Figures"),
    ]
    prose = [" ".join(paragraph.split()) for paragraph in make.PROSE.strip().split("\n\n")]
    assert blocks(document, "paragraph") == [
        *prose[:-1],
        "1 Low water means the lowest tide that astronomy foretells, not that of a storm.",
        prose[-1],
    ]
    assert blocks(document, "table") == [
        "Berth | Depth 2016 | Depth 2024\nAlcantara | 12.0 m | 11.6 m\nSanta Apolonia | 10.1 m | 9.2 m"
    ]
    assert blocks(document, "caption") == ["Table 1. Depth of the berths at low water."]
    first, second = document.pages
    assert document.slice(first).endswith("It is deep enough, and")
    assert document.slice(second).startswith("dredging it would endanger")
    for gone in ("Port survey 2024", "Received"):
        assert gone not in document.text, "headers, page numbers and stamps are no text"


async def test_a_word_document_keeps_headings_lists_and_tables_in_order_and_loses_deletions() -> None:
    document = await read(SAMPLES / "pilot-handbook.docx")
    assert document.title == "Pilot handbook"
    assert [(block.kind, document.slice(block)) for block in document.blocks] == [
        ("heading", "Handbook for Pilots"),
        ("heading", "Boarding"),
        (
            "paragraph",
            "A pilot boards every ship of more than 60 metres at the outer buoy, three miles off Girdle Ness.",
        ),
        ("paragraph", "The fee is £450 for each ship."),
        ("paragraph", "Captain Liv Aasen decides in doubt."),
        ("heading", "Steps"),
        ("list_item", "Call the ship on channel 12."),
        ("list_item", "Check the ladder before you climb."),
        ("table", "Ship | Length | Pilots\nSolveig | 142 m | 2\nKittiwake | 71 m | 1"),
        ("caption", "Table 1. Pilots for each ship."),
        ("paragraph", "Fees were last raised in April 2023."),
    ]


def test_the_generated_samples_are_what_their_script_writes(tmp_path: Path) -> None:
    assert make.pdf([make.first_page(), make.second_page()]) == (SAMPLES / "port-survey.pdf").read_bytes()
    make.write_docx(tmp_path / "a.docx")
    assert (tmp_path / "a.docx").read_bytes() == (SAMPLES / "pilot-handbook.docx").read_bytes()


async def test_hard_wrapped_lines_without_blank_lines_become_paragraphs() -> None:
    first = "The council met in the old town hall and talked about the bridge for three hours. " * 3 + "It agreed."
    second = (
        "On the following day the mayor travelled to the capital to ask for money. " * 3 + "She came back with less."
    )
    wrapped = [textwrap.wrap(paragraph, 72) for paragraph in (first, second)]
    assert all(len(lines[-1]) < 50 for lines in wrapped), "a full last line would not show that a paragraph ends"
    assert blocks(await read_text("\n".join(wrapped[0] + wrapped[1]))) == [first, second]


async def test_headings_and_captions_in_the_midst_of_a_sentence_are_put_behind_it() -> None:
    before = (
        "The old pier was built of oak and stood for eighty years, until the storms of the nineties came and the sea"
    )
    after = (
        "took its head away, which the people of the town have never forgotten since they had paid for it themselves."
    )
    document = await read_text(f"{before}\nHarbour history\nThe Pier\n{after}")
    assert [(block.kind, document.slice(block)) for block in document.blocks] == [
        ("paragraph", f"{before} {after}"),
        ("paragraph", "Harbour history"),
        ("paragraph", "The Pier"),
    ]


async def test_infobox_lines_are_a_table_and_no_prose() -> None:
    rows = ["Full name Jon Berg", "Date of birth 26 June 1968", "Height 1.91 m", "1986-1990 Watford 63 (9)"]
    prose = "Jon Berg was born in Bergen and played as a forward from 1986 to 2005 for many clubs in two countries."
    document = await read_text("\n".join(["Jon Berg", *rows, *textwrap.wrap(prose, 60)]))
    assert [block.kind for block in document.blocks] == ["heading", "table", "paragraph"]
    assert blocks(document)[1:] == ["\n".join(rows), prose]


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("the impor-\ntant question is important", "the important question is important"),
        ("a well-\nknown man", "a well-known man"),
        ("the season of 2004-\n05", "the season of 2004-05"),
        ("they came—\nand went", "they came—and went"),
    ],
)
async def test_a_hyphen_at_the_end_of_a_line_goes_only_if_the_document_knows_the_word_without_it(
    broken: str, mended: str
) -> None:
    assert blocks(await read_text(broken)) == [mended]


async def test_a_layout_table_is_no_table() -> None:
    page = (
        "<html><table border=0><tr><td></td><td>•</td><td>Expand the number of markets that we serve;</td></tr></table>"
        "<table><tr><td><p>Basis for Opinion</p><p>We conducted our audit with care.</p></td></tr></table>"
        "<table border=0><tr><td>Cash</td><td colspan=3>$</td><td>16,058</td></tr>"
        "<tr><td>Loss</td><td>(2,184</td><td>)</td></tr></table></html>"
    )
    document = await read_text(page, "a.html")
    assert [(block.kind, document.slice(block)) for block in document.blocks] == [
        ("list_item", "Expand the number of markets that we serve;"),
        ("heading", "Basis for Opinion"),
        ("paragraph", "We conducted our audit with care."),
        ("table", "Cash | $16,058\nLoss | (2,184)"),
    ]


async def test_a_paragraph_that_a_page_number_cuts_in_html_is_joined() -> None:
    page = "<html><p>Another market is that of touch-</p><p>5</p><hr><p>screen video devices.</p><p>6</p></html>"
    assert blocks(await read_text(page, "a.html")) == ["Another market is that of touch-screen video devices."]


async def test_footnote_marks_go_and_units_stay() -> None:
    page = (
        "<p>It measures 5 m<sup>2</sup>.<sup><a href='#n1'>[1]</a></sup> The 1<sup>st</sup> of them.<sup>(2)</sup></p>"
    )
    assert blocks(await read_text(page, "a.html")) == ["It measures 5 m2. The 1st of them."]


async def test_text_that_looks_like_markdown_survives_html() -> None:
    line = "5 * 3 * 2, snake_case_name, [brackets](round), # hash, 1. one, a|b, `tick`, <tag>, &amp; \\ ~~x~~"
    escaped = line.replace("&", "&amp;").replace("<", "&lt;")
    assert blocks(await read_text(f"<html><p>{escaped}</p></html>", "a.html")) == [line]


async def test_front_matter_gives_the_title_and_is_no_text() -> None:
    document = await read_text('---\ntitle: "A year"\ntags: [x]\n---\n\nText of it.\n', "a.md")
    assert (document.title, document.text) == ("A year", "Text of it.")


ENCODED = (
    "Die schöne Frau isst Käse für 3,50 €. Sie sagte: „Das war köstlich!“ und lächelte – dann ging sie über die Brücke."
)


@pytest.mark.parametrize("name", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
async def test_the_encoding_of_a_text_is_found(name: str) -> None:
    document = await convert(ENCODED.encode(name), source="a.txt", media_type=None, max_expanded_bytes=LIMIT)
    assert document.text == ENCODED


async def test_utf_16_without_a_mark_is_found() -> None:
    for name in ("utf-16-le", "utf-16-be"):
        data = ENCODED.encode(name)
        document = await convert(data, source="a.txt", media_type=None, max_expanded_bytes=LIMIT)
        assert document.text == ENCODED


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", "windows-1251"),
        ("いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ。", "shift_jis"),
        ("東京は日本の首都です。", "iso-2022-jp"),
    ],
)
async def test_a_declared_encoding_is_believed(text: str, name: str) -> None:
    data = text.encode(name)
    declared = await convert(data, source="a.txt", media_type=f'text/plain; charset="{name}"', max_expanded_bytes=LIMIT)
    assert declared.text == text
    page = f"<html><head><meta charset={name}></head><p>".encode() + data
    assert (await convert(page, source="a", media_type="text/html", max_expanded_bytes=LIMIT)).text == text


async def test_a_declaration_that_is_wrong_or_absurd_is_not_believed() -> None:
    for name in ("utf-16", "ascii", "utf-7", "idna", "punycode", "unicode_escape", "no-such"):
        document = await convert(
            ENCODED.encode(), source="a.txt", media_type=f"text/plain; charset={name}", max_expanded_bytes=LIMIT
        )
        assert document.text == ENCODED


async def test_text_that_was_encoded_twice_is_mended() -> None:
    spoilt = "It cost £300 – too much.".encode().decode("latin-1")
    assert (await read_text(f"{spoilt} {spoilt}")).text == "It cost £300 – too much. It cost £300 – too much."
    assert (await read_text("Â£5 and â are let alone")).text == "Â£5 and â are let alone"


async def test_the_type_is_told_by_the_bytes_and_not_by_what_is_said() -> None:
    pdf = (SAMPLES / "port-survey.pdf").read_bytes()
    page = (SAMPLES / "council-minutes.html").read_bytes()
    for data, expected in ((pdf, "application/pdf"), (page, "text/html"), (b"Just text, as it is.", "text/plain")):
        for source, said in (("a.docx", None), ("a.pdf", "text/plain"), ("a.txt", "application/octet-stream")):
            document = await convert(data, source=source, media_type=said, max_expanded_bytes=LIMIT)
            assert document.media_type == expected


async def test_of_two_claims_the_more_precise_one_counts() -> None:
    for source, said, expected in [
        ("https://host/README.md?raw=1", "text/plain; charset=utf-8", "text/markdown"),
        ("README", "text/markdown", "text/markdown"),
        ("README.md", None, "text/markdown"),
        ("notes.txt", None, "text/plain"),
    ]:
        document = await convert(b"# Head\n\nText of it.", source=source, media_type=said, max_expanded_bytes=LIMIT)
        assert document.media_type == expected


async def test_a_title_that_is_a_file_name_is_passed_over() -> None:
    page = "<html><head><title>glxz-10k_20211231.htm</title></head><h1>Annual report</h1><p>Text.</p></html>"
    assert (await read_text(page, "a.html")).title == "Annual report"


async def test_pdfs_at_the_same_time_do_not_disturb_each_other() -> None:
    alone = await read(SAMPLES / "port-survey.pdf")
    together = await asyncio.gather(*(read(SAMPLES / "port-survey.pdf") for _ in range(12)))
    assert together == [alone] * 12


async def test_the_event_loop_does_not_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    original = plain.convert

    def noting(text: str, *, source: str) -> object:
        threads.append(threading.current_thread())
        return original(text, source=source)

    monkeypatch.setattr(plain, "convert", noting)
    await read_text("Some text.")
    assert threads
    assert threading.current_thread() not in threads


def test_importing_the_converters_imports_no_parser() -> None:
    script = (
        "import sys, tidegate.services.converters;"
        "print(*[n for n in ('pypdfium2', 'html_to_markdown', 'markdown_it', 'charset_normalizer', 'xml.etree', 'docx')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


WORDS = "the of and harbour report council money paid in year port ship ferry board said plan old new river".split()
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=8, max_size=40).map(
    lambda words: " ".join(words).capitalize() + "."
)
PARAGRAPHS = st.lists(st.lists(SENTENCES, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=5)


@given(paragraphs=PARAGRAPHS, width=st.integers(60, 120))
@settings(max_examples=50, deadline=None)
def test_unwrapping_undoes_wrapping(paragraphs: list[str], width: int) -> None:
    wrapped = "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)
    assert [piece.text for piece in plain.convert(wrapped, source="a").pieces] == paragraphs


MARKUP = st.text("ab C.1 -*#|_`[]()<>&;:!\"'\\/=\n\t\r\f\x00\x85\u200b\ud800é\u0301–•", max_size=200)


@given(text=st.text(max_size=200) | MARKUP, suffix=st.sampled_from(["txt", "md", "html"]), wrap=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_the_text_it_is_refused_or_the_document_keeps_its_promises(text: str, suffix: str, wrap: bool) -> None:
    data = (f"<html><p>{text}</p></html>" if wrap else text).encode("utf-8", "surrogatepass")
    with contextlib.suppress(DocumentError):
        check(asyncio.run(convert(data, source=f"a.{suffix}", media_type=None, max_expanded_bytes=LIMIT)), data)


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("e\u0301", "é"),
        ("a\r\nb\rc\x85d\u2028e\x0cf", "a\nb\nc\nd\ne\nf"),
        ("so\xadft\u200b \ufeffcore\x00\x07", "soft core"),
        ("user\u202etxt.exe\U000e0041\U000e0042", "usertxt.exe"),
        ("half\ud800 a pair", "half\ufffd a pair"),
        ("\uf0b7 item", "• item"),
        ("e" + "\u0301" * 100, "é" + "\u0301" * 29),
        ("\u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f52c", "\u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f52c"),
    ],
)
def test_cleaning_leaves_what_is_seen(given: str, cleaned: str) -> None:
    assert clean(given) == cleaned


@given(text=st.text() | MARKUP)
@settings(max_examples=100, deadline=None)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert tidy(tidy(text)) == tidy(text)


@given(data=st.binary(max_size=300), declared=st.none() | st.sampled_from(["utf-8", "cp1252", "shift_jis", "x"]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_decode_to_some_text(data: bytes, declared: str | None) -> None:
    assert isinstance(encoding.decode(data, declared=declared), str)


async def test_an_encyclopedia_article_without_blank_lines(documents: Path) -> None:
    document = await read(documents / "norwich-city.txt")
    check(document, (documents / "norwich-city.txt").read_bytes())
    assert document.title == "Iwan Roberts"
    prose = blocks(document, "paragraph")
    assert prose[0].startswith(
        "Iwan Wyn Roberts (born 26 June 1968) is a Welsh former professional footballer who played"
    )
    assert prose[0].endswith("amassed fifteen caps between 1989 and 2001, without scoring.")
    for whole in (
        "In November 1993 he was signed by the Second Division club Leicester City for £300,000.[19][30]",
        'There were crowd chants about him being a "waste of money" and Roberts remembers that someone wrote to the '
        'Eastern Daily Press and described him as "the worst ever to wear a Norwich shirt"',
        "he played an important part in one of the club's best-ever seasons.",
        "the 1993–94 play-off final, which Leicester won 2–1 against Derby.[31]",
    ):
        assert any(whole in paragraph for paragraph in prose)
    tables = blocks(document, "table")
    assert "Date of birth 26 June 1968" in tables[0]
    assert "2002–03 [55] First Division 43 7 3 0 1 0 — 47 7" in tables[2]
    assert {"Club career", "Personal life", "International career"} <= {text for _, text in outline(document)}
    assert len([item for item in blocks(document, "list_item") if item[0].isdigit()]) >= 95
    assert not any("Full name" in paragraph or "Apps" in paragraph for paragraph in prose)


async def test_a_page_of_a_novel(documents: Path) -> None:
    document = await read(documents / "book-war-and-peace-1p.txt")
    assert [block.kind for block in document.blocks] == ["heading"] + ["paragraph"] * 12
    assert document.title == "CHAPTER I"
    assert "With these words she greeted Prince Vasili Kuragin, a man of high rank and importance," in document.text


async def test_an_annual_report_in_html(documents: Path) -> None:
    document = await read(documents / "example-10k.html")
    check(document, (documents / "example-10k.html").read_bytes())
    headings = [text for _, text in outline(document)]
    for heading in ("ITEM 1. BUSINESS", "Products and Services", "ITEM 11. EXECUTIVE COMPENSATION", "SIGNATURES"):
        assert heading in headings
    balance = next(table for table in blocks(document, "table") if table.startswith("ASSETS"))
    assert "Cash and cash equivalents | $16,058,714 | $5,993,388" in balance.split("\n")
    assert "Expand the number of markets we serve;" in blocks(document, "list_item")
    assert any("content on touch-screen video devices" in paragraph for paragraph in blocks(document, "paragraph"))
    assert not any(paragraph.isdigit() for paragraph in blocks(document, "paragraph")), "page numbers"
    assert any(
        "we redeemed all 23,271,667 shares of our common stock" in text for text in blocks(document, "paragraph")
    )


async def test_a_paper(documents: Path) -> None:
    document = await read(documents / "layout-parser-paper-fast.pdf")
    assert document.title == "LayoutParser: A Unified Toolkit for Deep Learning Based Document Image Analysis"
    assert [text for _, text in outline(document)] == [document.title, "1 Introduction"]
    assert "complicate the easy reuse of important innovations by a wide audience." in document.text
    assert "including document image classification [11, 37], layout detection [38, 22]," in document.text
    assert "arXiv" not in document.text
    assert "Z. Shen et al." not in document.text
    assert [item[:2] for item in blocks(document, "list_item")] == ["1.", "2.", "3.", "4."]
    assert len(document.pages) == 2


async def test_a_page_with_quotations(documents: Path) -> None:
    document = await read(documents / "DA-1p.pdf")
    assert outline(document) == [(1, "MAIN GAME"), (2, "CREATURES"), (3, "Abomination"), (3, "Arcane Horror")]
    assert (
        "There, perched atop the spire of the village chantry, stood the mage. But he was human no longer."
        in blocks(document, "paragraph")
    )


async def test_a_memo(documents: Path) -> None:
    document = await read(documents / "fake-memo.pdf")
    assert blocks(document)[1] == (
        "There were 20,000 bottles of water, 10,000 blankets, and 200 laptops delivered on January 23, 2023. "
        "A total of 3 trucks were used for 15 hours."
    )
    assert blocks(document)[-1] == "Best Regards,\nMallori"


async def test_a_handbook_whose_headings_have_no_style(documents: Path) -> None:
    document = await read(documents / "handbook-1p.docx")
    assert document.title == "CHAPTER 1 – INTRODUCTION"
    assert [text for _, text in outline(document)][-3:] == [
        "A. PURPOSE",
        "B. ROLE OF THE UNITED STATES TRUSTEE",
        "C. STATUTORY DUTIES OF A STANDING TRUSTEE",
    ]


async def test_a_leaflet_in_two_columns_whose_structure_is_invalid(documents: Path) -> None:
    document = await read(documents / "hostile" / "invalid-structure.pdf")
    check(document, (documents / "hostile" / "invalid-structure.pdf").read_bytes())
    assert document.title.startswith("GAO-23-106826, Cybersecurity: Launching")
    for whole in (
        "provide a good foundation for establishing a more comprehensive strategy. However, not all of the desirable",
        "ONCD will work with federal agencies to develop a plan",
        "the need for increased investments in privacy-preserving technology.",
        "(e.g., resources, investments, and risk management). It was also unclear which official",
    ):
        assert whole in document.text
    assert "Page 1" not in document.text
    assert "1.2: Scale public-private collaboration" in blocks(document, "list_item")


async def test_odd_encodings(documents: Path) -> None:
    page = await read(documents / "hostile" / "cp1252.html")
    assert "L'été était très chaud cette année. J'ai acheté un café au lait pour 3,50 €." in page.text
    assert (await read(documents / "hostile" / "utf-16.txt")).text.startswith("This is a test document")
