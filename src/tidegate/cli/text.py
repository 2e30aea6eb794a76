"""Results as text for people."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from tidegate.graph.result import Result
from tidegate.state import HEADINGS, Enrichment, Entity, Sentence, none_found

_WIDTH = 100
_SHOWN = 8  # entities of one type
_NAMED = 5  # entities that miss the same
_BY_MODEL = {"extraction": "names", "summary": "summary"}
_SHORT = 60  # characters of an answer's value
_FOR_MACHINES = frozenset({"id", "name", "source", "licence", "confidence", "why", "latitude", "longitude", "iso3"})
_PASSWORD = re.compile(r"(://[^:/?#@]*:(?=[^/@]*@)|password=)[^@&]+")


def result_text(result: Result, options: Mapping[str, str], *, doubt_not_found: bool = False) -> str:
    """Lay out a result: outcome, summary with its sources, entities with what enrichment found, what is missing.

    `doubt_not_found` says what may be wrong, and helps, where an API knows nothing of a document.
    """
    doubt = _doubt(result, options) if doubt_not_found else ""
    parts = [_head(result), _summary(result), _entities(result), _missing(result), doubt, _commands(result, options)]
    return "\n\n".join(part for part in parts if part)


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Align columns by their longest cell."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_json(value: Any) -> None:
    """Print for machines."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def printable(text: str) -> str:
    """Return one line that cannot steer a terminal: documents are untrusted."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def _head(result: Result) -> str:
    revision = f", revision {result.revision}" if result.revision else ""
    title = printable(result.title)
    why = f" ({result.reason})" if result.reason else ""
    return f"{title}\n{'=' * min(len(title), _WIDTH)}\n{result.status}{revision}{why}"


def _summary(result: Result) -> str:
    if result.summary is None:
        return ""
    how = (
        "extractive: the document's own sentences"
        if result.summary.method == "extractive"
        else f"by {result.summary.model}"
    )
    if not result.summary.sentences:
        return "Summary: none, the document has no running text"
    unsupported = sum(not sentence.supported for sentence in result.summary.sentences)
    doubt = f"; {unsupported} of {len(result.summary.sentences)} sentences not supported" if unsupported else ""
    lines = [f"Summary ({how}{doubt})"]
    for number, sentence in enumerate(result.summary.sentences, start=1):
        text = f"{printable(sentence.text)} {_source(result, sentence)}".rstrip()
        lines.append(textwrap.fill(text, _WIDTH, initial_indent=f"{number:>3}. ", subsequent_indent="     "))
    return "\n".join(lines)


def _source(result: Result, sentence: Sentence) -> str:
    if not sentence.supported:
        return "[not supported by the document]"
    pages = sorted(
        {
            page.number
            for page in (result.document.pages if result.document else ())
            for span in sentence.evidence
            if page.start < span.end and span.start < page.end
        }
    )
    if pages:
        return f"[p. {', '.join(map(str, pages))}]"
    if sentence.evidence:
        return f"[{', '.join(f'{span.start}-{span.end}' for span in sentence.evidence)}]"
    records = [result.enrichments[key] for key in sentence.entities if key in result.enrichments]
    sources = dict.fromkeys(str((record.data or {}).get("source") or record.source) for record in records)
    return f"[{', '.join(map(printable, sources))}]" if sources else ""


def _entities(result: Result) -> str:
    sections: list[str] = []
    for type_, title in HEADINGS.items():
        of_type = [entity for entity in result.entities if entity.type == type_]
        if not of_type:
            continue
        shown = _SHOWN if len(of_type) > _SHOWN + 1 else len(of_type)
        of_type.sort(key=lambda entity: -len(entity.mentions))
        lines = [f"{title} ({len(of_type)})", *(_entity(entity, result.enrichments) for entity in of_type[:shown])]
        if len(of_type) > shown:
            lines.append(f"  … and {len(of_type) - shown} more; --json has them all")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _entity(entity: Entity, enrichments: Mapping[str, Enrichment]) -> str:
    times = f" x{len(entity.mentions)}" if len(entity.mentions) > 1 else ""
    name = f"{printable(entity.text)}{times}"
    notes = [" ".join(entity.value.values())] if entity.value else []
    record = enrichments.get(entity.id)
    if record is not None and record.data is not None:
        notes.append(printable(_facts(record.data)))
    elif record is not None and (record.visits or record.status in ("failed", "deferred")):
        notes.append(f"({record.status.replace('_', ' ')})")
    return _cut(f"  {name:<32}  {'  '.join(notes)}".rstrip())


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _facts(data: Mapping[str, Any]) -> str:
    """Say in a few words what an API answered: its short plain values, less what only machines read."""
    words = []
    for key, value in data.items():
        if key in _FOR_MACHINES or key.endswith("_code") or isinstance(value, bool):
            continue
        if isinstance(value, str) and value and len(value) <= _SHORT:
            words.append(value)
        elif isinstance(value, (int, float)):
            words.append(f"{key} {value:,}")
    if data.get("confidence") in ("medium", "low"):
        words.insert(0, f"perhaps {words.pop(0)}" if words else "perhaps")
    return ", ".join(words)


def _missing(result: Result) -> str:
    if not result.missing:
        return ""
    names = {entity.id: entity.text for entity in result.entities}
    alike: dict[tuple[str, str, bool], list[str]] = {}
    for item in result.missing:
        alike.setdefault((item.what, item.why, item.retryable), []).append(printable(names.get(item.id, item.id)))
    lines = [f"Missing ({len(result.missing)})"]
    for (what, why, retryable), of in alike.items():
        some = ", ".join(of[:_NAMED]) + (f" and {len(of) - _NAMED} more" if len(of) > _NAMED else "")
        subject = f"enrichment of {some}" if what == "enrichment" else f"{_BY_MODEL[what]} by the model"
        text = f"{subject}: {why}{'' if retryable else ' (final)'}"
        lines.append(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def _doubt(result: Result, options: Mapping[str, str]) -> str:
    if not (unknown := none_found(result.enrichments)):
        return ""
    text = (
        f"Enrichment answered 'not found' for all {unknown} names. A server does so, too, under a path that it does "
        f"not have: is enrichment.url right? Once it is, `{command('forget', '--not-found', options=_where(options))}` "
        "drops these answers, and `tidegate run DOCUMENT --fresh` asks again."
    )
    return textwrap.fill(text, _WIDTH)


def resume_command(thread_id: str, options: Mapping[str, str]) -> str:
    """Return what to type to go on with a thread under the same options."""
    return command("resume", thread_id, options=options)


def command(*words: str, options: Mapping[str, str]) -> str:
    """Return what to type to do something under the same options; a password in a URL is left out."""
    given = (f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in _without_passwords(options).items())
    return " ".join(["tidegate", *map(shlex.quote, words), *given])


def when_to_retry(result: Result) -> str:
    """Say when what a result lacks may be had, or what is in the way until somebody removes it."""
    if result.held_open:
        return held_open(result.held_open)
    return f"the service may be tried again in {result.retry_in or 0.0:,.0f} s"


def held_open(circuits: Sequence[str]) -> str:
    """Say that circuits are held open by hand, and how to let them go."""
    return "; ".join(f"{name} is held open until `tidegate circuits --reset {name}`" for name in circuits)


def _without_passwords(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options as they may be shown."""
    return {name: _PASSWORD.sub(r"\1PASSWORD", value) for name, value in options.items()}


def _where(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if name == "checkpoints"}


def _commands(result: Result, options: Mapping[str, str]) -> str:
    options = _without_passwords(options)
    where = "".join(f" --{name} {shlex.quote(value)}" for name, value in options.items() if name == "checkpoints")
    thread = shlex.quote(result.thread_id)
    lines = [f"thread   {result.thread_id}"]
    if options.get("checkpoints") == "memory:":
        return f"{lines[0]}, kept in memory and so gone with this process"
    if result.status != "complete" and result.retry_in is not None:
        when = f"   ({when_to_retry(result)})" if result.retry_in else ""
        policy = {"when_open": "wait"} if result.status == "waiting" else {}
        lines.append(f"resume   {resume_command(result.thread_id, {**policy, **options})}{when}")
    lines.append(f"inspect  tidegate show {thread}{where}")
    return "\n".join(lines)
