"""Which checkpoints of a thread stay when it is pruned: pure rules, the same for every saver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

REVISION = "revision"
"""The channel whose value, a whole number, counts what was published: see `tidegate.nodes.conclude`."""


class Kept(NamedTuple):
    """A checkpoint as far as the rules look at it.

    `age` is in seconds; `root` is the checkpoint of the outer graph that a subgraph's was made under. One that is not
    `stored` is only known by what tasks wrote on it, as they may before it is stored itself. (A tuple: a thread may
    have 100,000.)
    """

    checkpoint_ns: str
    checkpoint_id: str
    revision: int | None = None
    age: float = 0.0
    root: str | None = None
    stored: bool = True


Rule = Callable[[Sequence[Kept]], Iterable[Kept]]
"""The stored checkpoints of one namespace, oldest first -> those to keep besides what is always kept."""

BuiltOn = Callable[[Kept], Iterable[str]]
"""The IDs of the ancestors without which a checkpoint's delta channels would lose their values."""


def age(ts: str, now: float) -> float:
    """Return the seconds since a checkpoint's `ts`.

    Raises:
        ValueError: it is no time.
    """
    made = datetime.fromisoformat(ts)
    return now - (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()


def deletes_all(strategy: str) -> bool:
    """Read one of LangGraph's strategies: `delete` leaves nothing of a thread, `keep_latest` what it goes on from.

    Raises:
        ValueError: there is no such strategy.
    """
    if strategy not in {"keep_latest", "delete"}:
        raise ValueError(f"no strategy {strategy!r} for pruning; use 'keep_latest' or 'delete'")
    return strategy == "delete"


def latest_only(checkpoints: Sequence[Kept]) -> Iterable[Kept]:
    """Keep no more than what is always kept."""
    return ()


def newest(count: int) -> Rule:
    """Keep this many of the newest.

    Raises:
        ValueError: it is not a positive number.
    """
    if count < 1:
        raise ValueError(f"cannot keep the last {count} checkpoints of a thread; keep at least 1, or delete the thread")
    return lambda checkpoints: checkpoints[-count:]


def younger(seconds: float) -> Rule:
    """Keep those that are no older than this.

    Raises:
        ValueError: it is no age.
    """
    if not seconds >= 0:
        raise ValueError(f"{seconds} seconds are no age; give 0 or more")
    return lambda checkpoints: (each for each in checkpoints if each.age <= seconds)


def all_of(rules: Sequence[Rule]) -> Rule:
    """Keep what each of the rules keeps; all there is if there are none."""
    return lambda checkpoints: set(checkpoints).intersection(*(rule(checkpoints) for rule in rules))


def kept(thread: Iterable[Kept], rule: Rule, built_on: BuiltOn = lambda _: ()) -> set[tuple[str, str]]:
    """Return namespace and ID of what stays of a thread.

    In every namespace that is the latest stored checkpoint, so that an unfinished thread goes on, and what is newer,
    which is on its way; of every revision the checkpoint that published it, and the last one, since in between a
    backfill may be at work; what the rule says; and what those are built on. The namespace of a subgraph's call goes
    with the checkpoint that the call was made under.
    """
    stays: set[tuple[str, str]] = set()
    roots: dict[str, bool] = {}  # which checkpoints of the outer graph there are, and whether they stay: "" sorts first
    for checkpoint_ns, found in groupby(sorted(thread), key=attrgetter("checkpoint_ns")):
        known = list(found)
        stored = [each for each in known if each.stored]
        if not stored:
            stays.update(each[:2] for each in known)
            continue
        latest = stored[-1]
        # A call's namespace ends in its task's ID after a ":"; one without outlives the call.
        if ":" in checkpoint_ns and not roots.get(latest.root or "", True):
            continue
        numbered = [each for each in stored if each.revision is not None]
        first = {each.revision: each for each in reversed(numbered)}
        last = {each.revision: each for each in numbered}
        chosen = {each.checkpoint_id: each for each in (latest, *first.values(), *last.values(), *rule(stored))}
        ids = {above for each in chosen.values() for above in built_on(each)}.union(chosen)
        if not checkpoint_ns:
            roots = {each.checkpoint_id: each.checkpoint_id in ids for each in stored}
        ids.update(each.checkpoint_id for each in known if each.checkpoint_id > latest.checkpoint_id)
        stays.update((checkpoint_ns, checkpoint_id) for checkpoint_id in ids)
    return stays


class Links(NamedTuple):
    """What ties a checkpoint to its ancestors: which delta channels it has, and which channels it holds whole."""

    parent_id: str | None = None
    delta: Collection[str] = ()
    holds: Collection[str] = ()


def described(
    at: tuple[str, str],
    checkpoint: Mapping[str, Any],
    metadata: Mapping[str, Any],
    links: Links,
    *,
    revision: object,
    now: float,
) -> tuple[Kept, Links]:
    """Return what the rules look at of a checkpoint; `at` is namespace and ID, and its `links` lack the delta channels.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: it is none.
    """
    root = metadata.get("parents", {}).get("")
    seen = Kept(*at, revision if type(revision) is int else None, age(checkpoint["ts"], now), root)
    counted = metadata.get("counters_since_delta_snapshot", {}).keys()
    return seen, links._replace(delta=counted & checkpoint["channel_versions"].keys())


def doomed(thread: Mapping[Kept, Links], rule: Rule) -> list[Kept]:
    """Return the checkpoints of a thread that need not be kept."""
    links: dict[str, dict[str, Links]] = {}
    for each, link in thread.items():
        links.setdefault(each.checkpoint_ns, {})[each.checkpoint_id] = link
    stays = kept(thread, rule, lambda each: ancestors(each.checkpoint_id, links[each.checkpoint_ns]))
    return [each for each in thread if each[:2] not in stays]


def ancestors(checkpoint_id: str, links: Mapping[str, Links]) -> set[str]:
    """Return what a checkpoint is built on: its ancestors, back to those that hold the channels that it lacks."""
    at = links[checkpoint_id]
    missing = set(at.delta).difference(at.holds)
    found: set[str] = set()
    while missing and (parent_id := at.parent_id) is not None:
        if parent_id not in links or parent_id in found:  # a forged chain may lead back into itself
            break
        found.add(parent_id)
        at = links[parent_id]
        missing.difference_update(at.holds)
    return found
