"""A result -> Markdown that shows what the document says and obeys none of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.state import HEADINGS

_SHOWN = 50  # entities of one type
_NAMED = 20  # things that are missing
_LONGEST = 200  # characters of what was found on an entity
_FOR_MACHINES = frozenset({"id", "name", "source", "licence", "confidence", "latitude", "longitude", "iso3"})

_JOINERS = "\u200c\u200d"  # without which Persian, Indic scripts and many emoji fall apart
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$^])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_BLOCK = re.compile(r"^([#+=:-]|\d+(?=[.)]))")
_CLOSING = re.compile(r"#$")
"""The end of a heading may repeat the signs at its beginning, which are not shown."""

_LINK = re.compile(r"(://|\bwww\.|\b(?:mailto|xmpp):|@)", re.IGNORECASE)


def markdown(result: Mapping[str, Any]) -> str:
    """Lay out `Result.to_dict()`: title, summary and its sources, entities and what was found on them, what is missing.

    Whatever comes from the document, from its name, from a model or from an API is shown as it is: it makes no
    headings, links, pictures or HTML.
    """
    parts = [_head(result), _summary(result), *_entities(result), _missing(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: object) -> str:
    """Return text on one line that no Markdown reader takes for markup, wherever in a line it stands.

    Control characters become spaces, those that change the direction of text too. Addresses are escaped, so that no
    links are made of them.
    """
    line = " ".join(_printable(str(text)).split())
    line = "".join(_ENTITIES.get(character, character) for character in _SPECIAL.sub(r"\\\1", line))
    line = _LINK.sub(lambda found: found[0].replace(".", r"\.").replace(":", r"\:").replace("@", "&#64;"), line)
    line = _CLOSING.sub(r"\\#", line)
    return _BLOCK.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() or each in _JOINERS else " " for each in text)


def _head(result: Mapping[str, Any]) -> str:
    source = escaped(result.get("source", ""))
    status = escaped(result.get("status", ""))
    lacks = ": something is missing, see below" if result.get("missing") else ""
    title = escaped(result.get("title") or result.get("source") or "Document")
    return f"# {title}\n\nSummary of {source}, revision {int(result.get('revision', 0))}, {status}{lacks}."


def _summary(result: Mapping[str, Any]) -> str:
    summary = result.get("summary")
    if not summary:
        return ""
    by_model = summary.get("method") == "llm"
    how = f"Written by {escaped(summary.get('model'))}." if by_model else "The document's own sentences."
    sentences = summary.get("sentences") or []
    if not sentences:
        return "## Summary\n\nNone: the document has no running text."
    lines = [
        f"{number}. {escaped(sentence.get('text', ''))} {_sources(result, sentence)}".rstrip()
        for number, sentence in enumerate(sentences, start=1)
    ]
    return "## Summary\n\n" + "\n".join(lines) + f"\n\n{how}"


def _sources(result: Mapping[str, Any], sentence: Mapping[str, Any]) -> str:
    if not sentence.get("supported", True):
        return "(not supported by the document)"
    evidence = sentence.get("evidence") or []
    pages = sorted(
        {
            int(page["number"])
            for page in result.get("pages") or []
            for span in evidence
            if page["start"] < span["end"] and span["start"] < page["end"]
        }
    )
    if pages:
        return f"(p. {', '.join(map(str, pages))})"
    if evidence:
        return "(characters " + ", ".join(f"{int(span['start'])} to {int(span['end'])}" for span in evidence) + ")"
    named = set(sentence.get("entities") or [])
    found = [each["enrichment"] for each in result.get("entities") or [] if each["id"] in named and each["enrichment"]]
    sources = dict.fromkeys(escaped((each.get("data") or {}).get("source") or each["source"]) for each in found)
    return f"({', '.join(sources)})" if sources else ""


def _entities(result: Mapping[str, Any]) -> list[str]:
    sections = []
    for type_, title in HEADINGS.items():
        found = [each for each in result.get("entities") or [] if each.get("type") == type_]
        if found:
            found.sort(key=lambda each: -len(each.get("mentions") or []))
            lines = [_entity(each) for each in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"- … and {len(found) - _SHOWN} more")
            sections.append(f"## {title}\n\n" + "\n".join(lines))
    return sections


def _entity(entity: Mapping[str, Any]) -> str:
    number = len(entity.get("mentions") or [])
    times = f" ({number} times)" if number > 1 else ""
    value = entity.get("value") or {}
    enrichment = entity.get("enrichment") or {}
    told = [" ".join(value.values())] if value else _told(enrichment.get("data") or {})
    details = ", ".join(told)
    details = details if len(details) <= _LONGEST else details[:_LONGEST] + "…"
    return f"- **{escaped(entity.get('text', ''))}**{times}" + (f": {escaped(details)}" if details else "")


def _told(data: Mapping[str, Any]) -> Sequence[str]:
    """Return what an API's answer says in plain values, for people."""
    return [
        f"{key} {value}" if isinstance(value, (int, float)) else str(value)
        for key, value in data.items()
        if key not in _FOR_MACHINES and isinstance(value, (str, int, float)) and not isinstance(value, bool) and value
    ]


def _missing(result: Mapping[str, Any]) -> str:
    missing = result.get("missing") or []
    if not missing:
        return ""
    names = {each["id"]: each["text"] for each in result.get("entities") or []}
    lines = [
        f"- {escaped(each['what'])} of {escaped(names.get(each['id'], each['id']))}: {escaped(each['why'])}"
        + (", is tried again" if each.get("retryable") else "")
        for each in missing[:_NAMED]
    ]
    if len(missing) > _NAMED:
        lines.append(f"- … and {len(missing) - _NAMED} more")
    return "## Missing\n\n" + "\n".join(lines)
