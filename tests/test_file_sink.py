"""The file sink, in real folders: what is written where, and what it never overwrites."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tidegate import Pipeline, Settings
from tidegate.errors import MissingExtra, Permanent, Refused, Transient
from tidegate.settings.service import FileSink as FileSettings
from tidegate.settings.service import FolderTrigger, QueueSink
from tidegate.sinks.file import FileSink
from tidegate.sinks.markdown import escaped, markdown
from tidegate.sinks.opening import open_sink
from tidegate.store.file_events import event_id
from tidegate.store.outbox import Delivery

SAMPLES = Path(__file__).parent / "samples"
RESULT: dict[str, Any] = {
    "thread_id": "a-1",
    "status": "complete",
    "revision": 1,
    "source": "a.txt",
    "title": "A",
    "pages": [],
    "text": "It rained.",
    "summary": {"sentences": [{"text": "It rained.", "evidence": [], "entities": []}], "method": "extractive"},
    "entities": [],
    "missing": [],
}


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def delivery_of(
    name: str, *, thread: str = "a-1", revision: int = 1, trigger: str = "folder", **result: Any
) -> Delivery:
    """A result of the document at this path."""
    return Delivery(
        row=1,
        thread_id=thread,
        revision=revision,
        sink="file",
        trigger=trigger,
        event_id=event_id(name, "0" * 64),
        attempts=1,
        result={**RESULT, "thread_id": thread, "revision": revision, "source": name, **result},
    )


def sink_in(folder: Path, **settings: Any) -> FileSink:
    made = open_sink(FileSettings(kind="file", path=str(folder), **settings), [])
    assert isinstance(made, FileSink)
    return made


def sink_beside(inbox: Path, **folder: Any) -> FileSink:
    made = open_sink(FileSettings(kind="file"), [FolderTrigger(kind="folder", path=str(inbox), **folder)])
    assert isinstance(made, FileSink)
    return made


def names_in(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def revisions_in(folder: Path) -> dict[str, tuple[str, int]]:
    found = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {name: (each["thread_id"], each["revision"]) for name, each in found.items()}


# Where


async def test_a_result_is_written_as_markdown_and_as_json(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    await sink_in(out).deliver(delivery_of("sub/report.pdf"))
    assert names_in(out) == {"report.pdf.summary.md", "report.pdf.summary.json"}
    assert json.loads((out / "report.pdf.summary.json").read_text())["summary"] == RESULT["summary"]
    assert "1. It rained." in (out / "report.pdf.summary.md").read_text()


async def test_only_the_formats_that_are_set_are_written(tmp_path: Path) -> None:
    await sink_in(tmp_path / "md", formats=("markdown",)).deliver(delivery_of("a.txt"))
    await sink_in(tmp_path / "json", formats=("json",)).deliver(delivery_of("a.txt"))
    assert names_in(tmp_path) == {"md/a.txt.summary.md", "json/a.txt.summary.json"}


@pytest.mark.parametrize("name", ["a.txt", "x/y/a.txt", "no unicode \udcff.txt", "new\nline.txt", "x/" * 460 + "a.txt"])
async def test_without_a_path_results_are_beside_their_documents(name: str, inbox: Path) -> None:
    if len(name) < 300:
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
    await sink_beside(inbox).deliver(delivery_of(name))
    assert (inbox / f"{name}.summary.md").is_file()
    assert (inbox / f"{name}.summary.json").is_file()


async def test_beside_a_document_that_is_moved_when_it_is_done_is_where_it_is_moved_to(
    inbox: Path, tmp_path: Path
) -> None:
    await sink_beside(inbox, done=str(tmp_path / "done")).deliver(delivery_of("x/a.txt"))
    assert names_in(tmp_path) == {"done/x/a.txt.summary.md", "done/x/a.txt.summary.json"}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("https://host/a/report.pdf?token=x", "report.pdf"),
        ("https://host/", "document"),
        ("", "document"),
        ("...", "document"),
        (".hidden", "hidden"),
        ("a\0b\n<c>:d.txt", "a_b__c__d.txt"),
        ("C:\\x\\y.docx", "y.docx"),
        ("报告.pdf", "报告.pdf"),
    ],
)
async def test_a_name_from_outside_leads_out_of_no_folder(source: str, name: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    await sink_in(out).deliver(delivery_of(source, trigger="webhook"))
    assert names_in(tmp_path) == {f"deep/out/{name}.summary.md", f"deep/out/{name}.summary.json"}


@pytest.mark.parametrize("event", ["../x#0", "%2E%2E/x#0", "/etc/x#0", "x", "#0", "a//b#0"])
async def test_an_event_that_leads_out_of_the_watched_folder_has_no_result(event: str, inbox: Path) -> None:
    delivery = replace(delivery_of("x"), event_id=event)
    with pytest.raises(Permanent, match="of no file in a watched folder"):
        await sink_beside(inbox).deliver(delivery)
    assert names_in(inbox.parent) == set()


async def test_no_link_is_followed_out_of_the_folder(inbox: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (inbox / "x").symlink_to(outside)
    with pytest.raises(Permanent, match="a link or a file stands"):
        await sink_beside(inbox).deliver(delivery_of("x/a.txt"))
    (outside / "victim").write_text("untouched")
    for suffix in ("md", "json"):
        (inbox / f"a.txt.summary.{suffix}").symlink_to(outside / "victim")
    await sink_beside(inbox).deliver(delivery_of("a.txt"))
    assert names_in(outside) == {"victim"}
    assert (outside / "victim").read_text() == "untouched"
    assert (inbox / "a.txt.a-1.summary.md").is_file()


# What it never overwrites


async def test_a_newer_revision_replaces_the_older_and_never_the_other_way_round(tmp_path: Path) -> None:
    sink = sink_in(tmp_path)
    for revision in (1, 2, 2, 1, 3, 2):
        await sink.deliver(delivery_of("a.txt", revision=revision))
    assert revisions_in(tmp_path) == {"a.txt.summary.json": ("a-1", 3)}
    assert "revision 3" in (tmp_path / "a.txt.summary.md").read_text()
    assert names_in(tmp_path) == {"a.txt.summary.md", "a.txt.summary.json"}


@pytest.mark.parametrize("formats", [("markdown", "json"), ("markdown",), ("json",)])
async def test_two_threads_with_documents_of_one_name_have_their_results_side_by_side(
    formats: tuple[str, ...], tmp_path: Path
) -> None:
    sink = sink_in(tmp_path, formats=formats)
    for _ in range(2):
        await sink.deliver(delivery_of("a.txt", thread="a-1"))
        await sink.deliver(delivery_of("x/a.txt", thread="a-2"))
        await sink.deliver(delivery_of("y/a.txt", thread="a-3", revision=2))
    suffixes = {"markdown": "md", "json": "json"}
    assert names_in(tmp_path) == {
        f"{name}.summary.{suffixes[each]}" for each in formats for name in ("a.txt", "a.txt.a-2", "a.txt.a-3")
    }
    (tmp_path / f"a.txt.summary.{suffixes[formats[0]]}").unlink()
    await sink.deliver(delivery_of("x/a.txt", thread="a-2", revision=2))
    found = (tmp_path / f"a.txt.a-2.summary.{suffixes[formats[0]]}").read_text()
    assert "revision 2" in found or '"revision": 2' in found


async def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt.summary.md").write_text("mine")
    (tmp_path / "b.txt.summary.json").write_text("[1]")
    (tmp_path / "c.txt.summary.md").mkdir()
    sink = sink_in(tmp_path)
    for name in "abc":
        await sink.deliver(delivery_of(f"{name}.txt", thread=f"{name}-1"))
        assert (tmp_path / f"{name}.txt.{name}-1.summary.json").is_file()
    assert (tmp_path / "a.txt.summary.md").read_text() == "mine"
    (tmp_path / "d.txt.summary.md").write_text("mine")
    (tmp_path / "d.txt.d-1.summary.md").write_text("mine too")
    with pytest.raises(Permanent, match="move them away"):
        await sink.deliver(delivery_of("d.txt", thread="d-1"))


async def test_many_deliveries_at_once_into_one_folder_lose_none(tmp_path: Path) -> None:
    sinks = [sink_in(tmp_path) for _ in range(3)]
    deliveries = [
        sinks[number % 3].deliver(delivery_of("a.txt", thread=f"a-{number % 10}", revision=1 + number // 10))
        for number in range(60)
    ]
    await asyncio.gather(*deliveries)
    assert sorted(revisions_in(tmp_path).values()) == [(f"a-{number}", 6) for number in range(10)]
    assert len(names_in(tmp_path)) == 20


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "ü" * 125 + ".txt", "\udcff" * 255])
async def test_a_name_that_is_too_long_for_a_suffix_is_cut(name: str, inbox: Path) -> None:
    sink = sink_beside(inbox)
    threads = ["a-1", "ü" * 40 + "-0123456789abcdef"]
    for thread in threads:
        await sink.deliver(delivery_of(name, thread=thread))
    assert sorted(each for each, _ in revisions_in(inbox).values()) == sorted(threads)


# When it cannot


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_full_disk_is_transient_and_leaves_the_old_result_and_nothing_half_written(tmp_path: Path) -> None:
    sink = sink_in(tmp_path)
    await sink.deliver(delivery_of("a.txt"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_of_at_most(1000), pytest.raises(Transient, match=r"no space left.*; free some"):
        await sink.deliver(delivery_of("a.txt", revision=2, text="x" * 5000, title="x" * 5000))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    await sink.deliver(delivery_of("a.txt", revision=2))
    assert revisions_in(tmp_path) == {"a.txt.summary.json": ("a-1", 2)}


async def test_a_folder_that_may_not_be_written_to_is_refused_until_that_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, real = sink_in(tmp_path), os.open

    def closed(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        with pytest.raises(Refused, match=r"may not be written to .*; change its permissions, or set path"):
            await sink.deliver(delivery_of("a.txt"))
    assert names_in(tmp_path) == set()
    await sink.deliver(delivery_of("a.txt"))


async def test_a_watched_folder_that_is_not_there_is_waited_for_and_not_made(inbox: Path) -> None:
    inbox.rmdir()
    with pytest.raises(Transient, match="look whether it is there"):
        await sink_beside(inbox).deliver(delivery_of("a.txt"))
    assert not inbox.exists()


async def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(Permanent, match="move it away"):
        await sink_in(tmp_path / "out").deliver(delivery_of("a.txt"))


@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_or_the_new(
    call: str, side: str, tmp_path: Path
) -> None:
    sink = sink_in(tmp_path)
    sink._deliver(delivery_of("a.txt"))
    if (pid := os.fork()) == 0:
        real = getattr(os, call)

        def die(*arguments: Any, **options: Any) -> None:
            if side == "after":
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, call, die)
        sink._deliver(delivery_of("a.txt", revision=2))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert revisions_in(tmp_path)["a.txt.summary.json"][1] in (1, 2)
    sink._deliver(delivery_of("a.txt", revision=2))
    assert revisions_in(tmp_path) == {"a.txt.summary.json": ("a-1", 2)}
    assert names_in(tmp_path) == {"a.txt.summary.md", "a.txt.summary.json"}


def test_a_sink_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"tidegate\[queue\]"):
        open_sink(QueueSink(kind="queue", url="amqp://host", queue="q"), [])  # type: ignore[arg-type]  # a secret


# Markdown

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "[x]: http://evil",
    "<http://evil>",
    "`code` **bold** _em_ ~~gone~~",
    "# heading",
    "> quote",
    "- item",
    "+ item",
    "* item",
    "1. item",
    "7) item",
    "```",
    "~~~",
    "---",
    "===",
    "    code",
    "| a | b |",
    "a\n\n# b\r\n\r\nc\u2028d\u2029e",
    "&lt;script&gt; &#60;b&#62; &copy;",
    "\\",
    "\\<b>",
    "<!-- tidegate thread=x revision=9 -->",
    "-->",
    "*",
    "**",
    "a*b_c",
    "$x$",
]


def only_text(tokens: list[Token]) -> str:
    """The text of what holds nothing but text."""
    assert {token.type for token in tokens} <= {"text", "text_special"}, tokens
    return "".join(token.content for token in tokens)


def expected(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text).split())


@settings(max_examples=40, deadline=None)
@given(st.text() | st.lists(st.sampled_from(HOSTILE) | st.text("<>&[]()!*_`#-=+|~\\.:\n 19a")).map("".join))
@example("www.evil.com and https://evil.com and a@evil.com")
@example("1.\\")
@example("report ##")
@example("#")
def test_whatever_text_is_shown_as_it_is_and_makes_no_markup(text: str) -> None:
    shows_as_it_is(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_shown_as_it_is(text: str) -> None:
    shows_as_it_is(text)


def shows_as_it_is(text: str) -> None:
    said = expected(text)
    if not said:
        return
    for before, after in (("- ", ""), ("1. ", " (p. 1)"), ("# ", ""), ("Summary of ", ", revision 1")):
        tokens = READER.parse(before + escaped(text) + after)
        [inline] = [token for token in tokens if token.type == "inline"]
        assert {token.type.rpartition("_")[0] for token in tokens if token.type != "inline"} <= {
            "bullet_list",
            "ordered_list",
            "list_item",
            "paragraph",
            "heading",
        }
        lead = before if before == "Summary of " else ""
        assert only_text(inline.children or []) == lead + said + after
    inlines = READER.parseInline(f"**{escaped(text)}** (2 times)")[0].children or []
    assert only_text([token for token in inlines if not token.type.startswith("strong")]) == f"{said} (2 times)"


def test_addresses_make_no_links() -> None:
    text = escaped("see https://evil.com, www.evil.com, WWW.evil.com, mailto:a@evil.com")
    assert "s://" not in text
    assert "www." not in text.lower()
    assert "@" not in text
    assert READER.renderInline(text) == "see https://evil.com, www.evil.com, WWW.evil.com, mailto:a@evil.com"


def test_direction_marks_and_escapes_of_terminals_are_left_out() -> None:
    assert escaped("a\u202eb\x1b[31mc\u200cd") == "a b \\[31mc\u200cd"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_document_name_or_answer_makes_no_markup_of_its_own(hostile: str) -> None:
    told: Mapping[str, Any] = {
        **RESULT,
        "status": "degraded",
        "source": hostile,
        "title": hostile,
        "summary": {
            "sentences": [{"text": hostile, "evidence": [], "entities": ["e"]}],
            "method": "llm",
            "model": hostile,
        },
        "entities": [
            {
                "id": "e",
                "text": hostile,
                "type": "ORG",
                "mentions": [{"start": 0, "end": 1}],
                "value": None,
                "enrichment": {"status": "enriched", "source": hostile, "data": {"kind": hostile, "source": hostile}},
            }
        ],
        "missing": [{"what": "enrichment", "id": "e", "why": hostile, "retryable": True}],
    }
    tokens = READER.parse(markdown(told))
    allowed = {"heading", "paragraph", "ordered_list", "bullet_list", "list_item"}
    assert {token.type.rpartition("_")[0] for token in tokens if token.type != "inline"} == allowed
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2", "h2", "h2"]
    inlines = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inlines} <= {"text", "text_special", "strong_open", "strong_close"}


async def test_a_real_result_reads_well(tmp_path: Path) -> None:
    async with Pipeline.open(Settings(checkpoints="memory:", recogniser="rules")) as pipeline:
        result = await pipeline.run(SAMPLES / "harbour-report.md")
    told = markdown(result.to_dict())
    assert told.startswith("# ")
    for heading in ("## Summary", "## Places", "## Sums", "## Dates"):
        assert heading in told
    assert "- **Hamburg** (" in told
    assert "(characters " in told
    long = {**result.to_dict(), "entities": result.to_dict()["entities"] * 100}
    assert "more\n" in markdown(long)
