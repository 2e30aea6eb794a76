"""What stays of a thread that is pruned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.checkpointers.retention import Kept, kept, latest_only, newest, not_old


def checkpoints(*described: tuple[str, str | None], **more: object) -> list[Kept]:
    return [
        Kept(checkpoint_ns="", checkpoint_id=each, revision=revision, **more)  # type: ignore[arg-type]
        for each, revision in described
    ]


def ids(found: set[tuple[str, str]]) -> str:
    return "".join(sorted(checkpoint_id for _, checkpoint_id in found))


REVISIONS = checkpoints(("a", None), ("b", "1"), ("c", "1"), ("d", "2"), ("e", "2"), ("f", "2"), ("g", "3"), ("h", "3"))


def test_the_latest_and_the_last_of_every_revision_stay() -> None:
    assert ids(kept(REVISIONS, latest_only)) == "cfh"
    assert ids(kept(REVISIONS, newest(3))) == "cfgh"
    assert ids(kept(checkpoints(("a", None), ("b", None), ("c", None)), latest_only)) == "c"
    assert kept([], latest_only) == set()


def test_what_is_not_old_stays_and_so_does_an_old_latest() -> None:
    old, young = checkpoints(("a", None), ("b", None), old=True), checkpoints(("c", None), ("d", None))
    assert ids(kept([*old, *young], not_old)) == "cd"
    assert ids(kept(old, not_old)) == "b"


@pytest.mark.parametrize("count", [0, -1])
def test_keeping_none_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="name 1 or more"):
        newest(count)


def test_every_namespace_has_a_latest() -> None:
    inner = [Kept(checkpoint_ns="sub", checkpoint_id=each) for each in "ij"]
    assert kept([*REVISIONS, *inner], latest_only) >= {("", "h"), ("sub", "j")}


@pytest.mark.parametrize(
    ("root", "checkpoint_ns", "stays"),
    [
        ("a", "sub:1", False),  # the call was made under a checkpoint that goes
        ("c", "sub:1", True),
        ("h", "sub:1", True),
        ("z", "sub:1", True),  # which is not stored yet
        (None, "sub:1", True),
        ("a", "sub", True),  # a subgraph that outlives its calls
    ],
)
def test_a_subgraphs_call_goes_with_the_checkpoint_it_was_made_under(
    root: str | None, checkpoint_ns: str, stays: bool
) -> None:
    call = Kept(checkpoint_ns=checkpoint_ns, checkpoint_id="x", root=root)
    assert ((checkpoint_ns, "x") in kept([*REVISIONS, call], latest_only)) is stays


def test_ancestors_stay_where_state_is_stored_as_changes() -> None:
    chain = [
        Kept(checkpoint_ns="", checkpoint_id=each, parent_id=parent, delta=True)
        for each, parent in (("a", None), ("b", "a"), ("c", "a"), ("d", "c"))
    ]
    assert ids(kept(chain, latest_only)) == "acd"  # b is on another branch
    assert ids(kept(chain[1:], latest_only)) == "cd"  # a is gone already


@given(
    st.lists(
        st.builds(
            Kept,
            checkpoint_ns=st.sampled_from(["", "sub", "sub:1"]),
            checkpoint_id=st.sampled_from("abcdefgh"),
            revision=st.none() | st.sampled_from("12"),
            root=st.none() | st.sampled_from("abch"),
            old=st.booleans(),
        ),
        unique_by=lambda each: (each.checkpoint_ns, each.checkpoint_id),
    ),
    st.integers(1, 4),
)
def test_more_is_kept_the_more_is_asked_for(thread: list[Kept], count: int) -> None:
    least = kept(thread, latest_only)
    assert least <= kept(thread, newest(count)) <= kept(thread, newest(count + 1)) | least
    assert least <= kept(thread, not_old) <= {(each.checkpoint_ns, each.checkpoint_id) for each in thread}
    roots = [each.checkpoint_id for each in thread if not each.checkpoint_ns]
    assert not roots or ("", max(roots)) in least
