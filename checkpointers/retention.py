"""Which checkpoints of a thread stay when it is pruned: pure rules, without a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint as far as the rules look at it.

    `revision` is the value of the channel of that name, None where there is none; `root` is the checkpoint of the outer
    graph that a subgraph's was made under; `delta` says that its state is stored as changes to its ancestors'; `old`
    that it is older than what is asked for.
    """

    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None = None
    revision: str | None = None
    root: str | None = None
    delta: bool = False
    old: bool = False


def deletes_all(strategy: str) -> bool:
    """Read one of LangGraph's strategies: `delete` leaves nothing of a thread, `keep_latest` what it goes on from.

    Raises:
        ValueError: there is no such strategy.
    """
    if strategy not in {"keep_latest", "delete"}:
        raise ValueError(f"no strategy {strategy!r} for pruning; use 'keep_latest' or 'delete'")
    return strategy == "delete"


Rule = Callable[[Sequence[Kept]], Iterable[Kept]]
"""The checkpoints of one namespace, oldest first -> those to keep besides the latest and the last of each revision."""


def latest_only(checkpoints: Sequence[Kept]) -> Iterable[Kept]:
    """Keep no more than what is always kept."""
    return ()


def newest(count: int) -> Rule:
    """Keep this many of the newest.

    Raises:
        ValueError: it is not a positive number.
    """
    if count < 1:
        raise ValueError(f"cannot keep the last {count} checkpoints; the last one always stays, so name 1 or more")
    return lambda checkpoints: checkpoints[-count:]


def not_old(checkpoints: Sequence[Kept]) -> Iterable[Kept]:
    """Keep what is not `old`."""
    return (each for each in checkpoints if not each.old)


def kept(thread: Iterable[Kept], rule: Rule) -> set[tuple[str, str]]:
    """Return namespace and ID of what stays of a thread.

    The latest checkpoint of every namespace does, so that an unfinished thread goes on, and the last of every revision.
    So do the ancestors of what stays where state is stored as changes to them. The namespace of a subgraph's call goes
    with the checkpoint that the call was made under.
    """
    stays: set[tuple[str, str]] = set()
    by_namespace = groupby(sorted(thread, key=lambda each: (each.checkpoint_ns, each.checkpoint_id)), _namespace)
    roots: dict[str, bool] = {}  # which checkpoints of the outer graph there are, and whether they stay: "" sorts first
    for checkpoint_ns, found in by_namespace:
        checkpoints = list(found)
        # A call's namespace ends in its task's ID after a ":"; one without outlives the call.
        if ":" in checkpoint_ns and not roots.get(checkpoints[-1].root or "", True):
            continue
        revisions = {each.revision: each for each in checkpoints if each.revision is not None}
        chosen = {each.checkpoint_id for each in (checkpoints[-1], *revisions.values(), *rule(checkpoints))}
        if any(each.delta for each in checkpoints):
            chosen |= _ancestors(chosen, checkpoints)
        if not checkpoint_ns:
            roots = {each.checkpoint_id: each.checkpoint_id in chosen for each in checkpoints}
        stays |= {(checkpoint_ns, checkpoint_id) for checkpoint_id in chosen}
    return stays


def _namespace(checkpoint: Kept) -> str:
    return checkpoint.checkpoint_ns


def _ancestors(of: set[str], checkpoints: Sequence[Kept]) -> set[str]:
    parents = {each.checkpoint_id: each.parent_id for each in checkpoints}
    found: set[str] = set()
    for checkpoint_id in of:
        above = parents[checkpoint_id]
        while above in parents and above not in found:
            found.add(above)
            above = parents[above]
    return found
