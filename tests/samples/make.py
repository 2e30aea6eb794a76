"""Writes the two samples that are no text, port-survey.pdf and pilot-handbook.docx, the same bytes every time.

Run it after a change: `python tests/samples/make.py`. The PDF has what makes PDFs hard: two columns, a paragraph that
goes on in the next column and one on the next page, words hyphenated at line ends, a running header, page numbers, a
footnote, a table without lines, and a stamp that runs up the margin.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent
COLUMN_CHARACTERS = 46
SIZE = 9
LINES = 15
CHARACTER = 0.6 * SIZE  # each character of Courier is 0.6 of its size wide

PROSE = """
The Port of Lisbon asked us in March 2024 to measure the depth of its berths and of the channel that leads to them. \
Teresa Albuquerque led the survey; Jonas Bakker of the University of Delft lent the echo sounder. The work took \
thirty-one days and cost 212,000 euros.

We found that the channel had silted up faster than the tables of 2016 foretold. At its narrowest place, below the \
bridge, it is 11.2 metres deep at low water, which is too little for the largest container ships. The loss is greatest \
where the river bends, and there the sediment is fine sand.

The silt comes from two sources. Winter floods carry it down the river from Spain, and the works at the northern quay \
have stirred up what had been at rest for decades. Which of the two weighs more cannot be said with certainty, but the \
samples that were taken in May hold hardly any of the minerals that are typical of the quay.

Our first recommendation is to dredge the bend every second year instead of every fourth, and to do it in autumn, \
before the floods. That would cost about 1.4 million euros a year, less than half of what the port lost in 2023 to \
ships that had to wait for high water.

Our second recommendation is to leave the lower channel alone. It is deep enough, and dredging it would endanger the \
oyster beds near Seixal, on which forty families live.
"""
HYPHENATED = {"certainty,": ("cer-", "tainty,"), "faster": ("fas-", "ter")}


def main() -> None:
    """Write both samples."""
    (FOLDER / "port-survey.pdf").write_bytes(pdf([first_page(), second_page()]))
    write_docx(FOLDER / "pilot-handbook.docx")


def first_page() -> list[str]:
    """Return the drawing operators of the first page."""
    lines = wrapped(PROSE)
    return [
        text(60, 770, "Port survey 2024", size=7),
        text(60, 740, "Depth of the Berths and the Channel of Lisbon", size=14, bold=True),
        text(60, 716, "1 Summary", size=11, bold=True),
        *column(60, 700, lines[:LINES]),
        *column(330, 700, lines[LINES : 2 * LINES]),
        text(60, 90, "1 Low water means the lowest tide that astronomy foretells, not that of a storm.", size=7),
        text(300, 40, "1"),
        f"BT /F1 12 Tf 0 1 -1 0 30 300 Tm ({escaped('Received 4 July 2024')}) Tj ET",
    ]


def second_page() -> list[str]:
    """Return the drawing operators of the second page."""
    rows = [
        ("Berth", "Depth 2016", "Depth 2024"),
        ("Alcantara", "12.0 m", "11.6 m"),
        ("Santa Apolonia", "10.1 m", "9.2 m"),
    ]
    return [
        text(60, 770, "Port survey 2024", size=7),
        *column(60, 740, wrapped(PROSE)[2 * LINES :]),
        text(60, 560, "2 Figures", size=11, bold=True),
        *(
            text(60 + 130 * place, 540 - 12 * number, cell)
            for number, cells in enumerate(rows)
            for place, cell in enumerate(cells)
        ),
        text(60, 490, "Table 1. Depth of the berths at low water."),
        text(300, 40, "2"),
    ]


def wrapped(prose: str) -> list[str]:
    """Wrap paragraphs into column lines, all but the first indented, and hyphenate words that do not fit."""
    lines: list[str] = []
    for number, content in enumerate(prose.strip("\n").split("\n\n")):
        line = "  " if number else ""
        for word in content.split():
            start, rest = HYPHENATED.get(word, ("", word))
            if len(line) + len(word) <= COLUMN_CHARACTERS:
                line += word + " "
            elif start and len(line) + len(start) <= COLUMN_CHARACTERS:
                lines.append(line + start)
                line = rest + " "
            else:
                lines.append(line.rstrip())
                line = word + " "
        lines.append(line.rstrip())
    return lines


def column(left: float, top: float, lines: list[str]) -> list[str]:
    """Draw lines below one another."""
    drawn = []
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        drawn.append(text(left + indent * CHARACTER, top - 12 * number, line.strip()))
    return drawn


def text(left: float, baseline: float, content: str, size: float = SIZE, *, bold: bool = False) -> str:
    """Draw one line."""
    return f"BT /F{2 if bold else 1} {size} Tf {left:.1f} {baseline:.1f} Td ({escaped(content)}) Tj ET"


def escaped(content: str) -> str:
    """Escape what has a meaning inside a PDF string."""
    return content.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def pdf(pages: list[list[str]]) -> bytes:
    """Return a PDF of these pages; see ISO 32000-1, annex H, for the smallest one."""
    kids = " ".join(f"{5 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier-Bold >>",
    ]
    for number, operators in enumerate(pages):
        drawing = "\n".join(operators)
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
            f" /Contents {6 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(drawing)} >>\nstream\n{drawing}\nendstream")
    written = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(written))
        written += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    start = len(written)
    written += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return f"{written}startxref\n{start}\n%%EOF\n".encode("ascii")


def write_docx(path: Path) -> None:
    """Write a Word document with headings, a numbered list, a table, a content control, a footnote and a deletion."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    body = "".join(
        [
            paragraph("Handbook for Pilots", style="Title"),
            paragraph("Boarding", style="Heading1"),
            paragraph(
                "A pilot boards every ship of more than 60 metres at the outer buoy, three miles off Girdle Ness."
            ),
            "<w:p><w:r><w:t>The fee is </w:t></w:r><w:del><w:r><w:delText>£400</w:delText></w:r></w:del>"
            '<w:r><w:rPr><w:b/></w:rPr><w:t xml:space="preserve">£450 </w:t></w:r>'
            "<w:r><w:t>for each ship.</w:t></w:r></w:p>",
            f"<w:sdt><w:sdtContent>{paragraph('Captain Liv Aasen decides in doubt.')}</w:sdtContent></w:sdt>",
            paragraph("Steps", style="Heading2"),
            paragraph("Call the ship on channel 12.", numbered=True),
            paragraph("Check the ladder before you climb.", numbered=True),
            "<w:tbl>"
            + row("Ship", "Length", "Pilots")
            + row("Solveig", "142 m", "2")
            + row("Kittiwake", "71 m", "1")
            + "</w:tbl>",
            paragraph("Table 1. Pilots for each ship.", style="Caption"),
        ]
    )
    parts = {
        "[Content_Types].xml": f'{head}<Types xmlns="{package}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
        'ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/'
        'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'{head}<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'{head}<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'{head}<w:styles xmlns:w="{word}">'
        + "".join(
            f'<w:style w:type="paragraph" w:styleId="{key}"><w:name w:val="{name}"/></w:style>'
            for key, name in [
                ("Title", "Title"),
                ("Heading1", "heading 1"),
                ("Heading2", "heading 2"),
                ("Caption", "caption"),
            ]
        )
        + "</w:styles>",
        "word/footnotes.xml": f'{head}<w:footnotes xmlns:w="{word}"><w:footnote w:id="1">'
        f"{paragraph('Fees were last raised in April 2023.')}</w:footnote></w:footnotes>",
        "docProps/core.xml": f'{head}<cp:coreProperties xmlns:cp="{package}/metadata/core-properties" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Pilot handbook</dc:title></cp:coreProperties>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def paragraph(content: str, *, style: str = "", numbered: bool = False) -> str:
    """Return a paragraph of WordprocessingML."""
    styled = f'<w:pStyle w:val="{style}"/>' if style else ""
    number = '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>' if numbered else ""
    return f"<w:p><w:pPr>{styled}{number}</w:pPr><w:r><w:t>{content}</w:t></w:r></w:p>"


def row(*cells: str) -> str:
    """Return a table row of WordprocessingML."""
    return "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in cells) + "</w:tr>"


if __name__ == "__main__":
    main()
