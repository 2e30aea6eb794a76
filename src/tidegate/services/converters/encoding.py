"""Which characters the bytes of a text stand for."""

from __future__ import annotations

import codecs
import re

from tidegate.services.converters.characters import slices

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with theirs
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# A declared name reaches codecs.lookup() only if it is one of these: "punycode" is quadratic, "utf-7" is a way to
# hide text from whoever looked at the bytes, "unicode_escape" and "idna" are no encodings of documents.
_DECLARABLE = re.compile(
    r"utf-?(8|16|32)([-_]?[lb]e)?|us-ascii|ascii|latin-?\d+|(x-)?mac[-_]?\w+|(windows|cp|ibm|x-cp)-?\d+"
    r"|iso[-_]?8859[-_]\d+(-[ei])?|iso-2022-(jp|kr)|koi8[-_]?[rtu]|gb2312|gbk|gb18030|hz-gb-2312|big5(-?hkscs)?"
    r"|shift[-_]?jis|sjis|euc[-_]?(jp|kr)|ks_c_5601-1987|tis-620",
    re.IGNORECASE,
)
_META_CHARSET = re.compile(rb"""<meta\b[^<>]{0,500}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{1,40})""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""^\s{0,200}<\?xml\b[^<>]{0,200}?encoding\s{0,20}=\s{0,20}["']([\w.:-]{1,40})""")
_CONTROLS = bytes([*range(9), 11, *range(14, 27), *range(28, 32), 127])
_C1_CONTROL = re.compile("[\u0080-\u0084\u0086-\u009f]")
_DOUBLY_ENCODED = re.compile(
    "[\u00c2-\u00df][\u0080-\u00bf]|[\u00e0-\u00ef][\u0080-\u00bf]{2}|[\u00f0-\u00f4][\u0080-\u00bf]{3}"
)
_ASCII = bytes(range(32, 127))
_SAMPLE_BYTES = 64 * 1024


def is_binary(data: bytes) -> bool:
    """Whether more than one byte in a hundred is a control character that no text has."""
    if data.startswith(tuple(mark for mark, _ in _BYTE_ORDER_MARKS)) or _wide(data):
        return False
    return (len(data) - len(data.translate(None, _CONTROLS))) * 100 > len(data)


def decode(data: bytes, *, declared: str | None = None) -> str:
    """Return the text; line endings and control characters are left as they are.

    The order of trust: a byte order mark; UTF-16 that shows by its zero bytes; UTF-8 that decodes, since text in
    another encoding hardly ever does; the `declared` encoding, which the bytes of an HTML page may hold themselves;
    UTF-8 with a few damaged bytes; the likeliest by charset-normalizer; Windows-1252.
    """
    for mark, marked in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _unspoilt(data[len(mark) :].decode(marked, "replace"))
    if wide := _wide(data):
        return data.decode(wide, "replace")
    name = _codec(declared)
    if name and name.startswith(("iso2022", "hz")):  # made of ASCII bytes, so that UTF-8 would decode them too
        return data.decode(name, "replace")
    try:
        return _unspoilt(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    try:
        # Surrogates in UTF-8, as some databases write them (CESU-8, UTR #26): pairs count, halves are damage.
        return data.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    except UnicodeDecodeError:
        pass
    if name:
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            pass  # the declaration is wrong, as declarations often are
    lenient = data.decode("utf-8", "replace")
    sample = lenient[: 16 * _SAMPLE_BYTES]
    damaged = sample.count("\ufffd")
    intact = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", sample)))
    if intact > 10 * damaged:
        return _unspoilt(lenient)
    return data.decode(_likeliest(data), "replace")


def declared_in_html(data: bytes) -> str | None:
    """Return the encoding that an HTML page names in its first 4 KB, where browsers look for it too."""
    found = _XML_ENCODING.search(data[:4096]) or _META_CHARSET.search(data[:4096])
    return found[1].decode("ascii", "replace") if found else None


def _wide(data: bytes) -> str | None:
    """Recognise UTF-16 of mostly Western text without a mark: every other byte is zero."""
    sample = data[: _SAMPLE_BYTES & ~1]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if half >= 2 and odd > 0.4 * half and even < 0.02 * half:
        return "utf-16-le"
    if half >= 2 and even > 0.4 * half and odd < 0.02 * half:
        return "utf-16-be"
    return None


def _codec(declared: str | None) -> str | None:
    if not declared or not _DECLARABLE.fullmatch(declared.strip()):
        return None
    try:
        name = codecs.lookup(declared.strip()).name
    except LookupError:
        return None
    # Pages that say Latin-1 or ASCII are written in Windows-1252 (WHATWG Encoding Standard, section 4.2).
    return "cp1252" if name in {"iso8859-1", "ascii"} else name


def _likeliest(data: bytes) -> str:
    from charset_normalizer import from_bytes

    first = re.search(rb"[\x80-\xff]", data)
    start = data.rfind(b"\n", 0, first.start()) + 1 if first else 0
    start = max(start, first.start() - 1024 if first else 0)
    end = data.find(b"\n", start + _SAMPLE_BYTES, start + 2 * _SAMPLE_BYTES)
    found = from_bytes(data[start : end if end > 0 else start + _SAMPLE_BYTES])
    matches = [match for match in found if _ASCII.decode(match.encoding, "replace") == _ASCII.decode()]  # no EBCDIC
    if not matches:
        return "cp1252"
    # Western text is often as plausible in cp1250 (measured: French, German and Swedish paragraphs tie, and cp1250
    # wins the tie), Central European text is not in cp1252; so the far more common of the two is preferred.
    for match in matches:
        if match.chaos <= matches[0].chaos + 0.005 and "cp1252" in match.could_be_from_charset:
            return "cp1252"
    return matches[0].encoding


def _unspoilt(text: str) -> str:
    """Mend text that was UTF-8, was read as Latin-1, and was written as UTF-8 again.

    The proof is a C1 control character, which no text has on purpose: `â\\x80\\x93` was a dash.
    """
    if text.isascii() or not any(_C1_CONTROL.search(part) for part in slices(text)):
        return text
    return "".join(_DOUBLY_ENCODED.sub(_once_encoded, part) for part in slices(text))


def _once_encoded(found: re.Match[str]) -> str:
    try:
        return found[0].encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return found[0]
