"""What stays of a thread that is pruned."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.checkpointers.retention import Kept, Links, age, ancestors, kept, latest_only, newest, younger


def checkpoints(*described: tuple[str, int | None], **more: Any) -> list[Kept]:
    return [Kept(checkpoint_ns="", checkpoint_id=each, revision=revision, **more) for each, revision in described]


def ids(found: set[tuple[str, str]]) -> str:
    return "".join(sorted(checkpoint_id for _, checkpoint_id in found))


REVISIONS = checkpoints(("a", None), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 2), ("g", 3), ("h", 3))


def test_the_latest_and_of_every_revision_what_published_it_and_its_last_stay() -> None:
    assert ids(kept(REVISIONS, latest_only)) == "bcdfgh"
    assert ids(kept(REVISIONS, newest(4))) == "bcdefgh"
    assert ids(kept(checkpoints(("a", None), ("b", None), ("c", None)), latest_only)) == "c"
    assert kept([], latest_only) == set()


def test_what_is_young_stays_and_so_does_an_old_latest() -> None:
    old, young = checkpoints(("a", None), ("b", None), age=9.0), checkpoints(("c", None), ("d", None), age=-1.0)
    assert ids(kept([*old, *young], younger(8.5))) == "cd"
    assert ids(kept(old, younger(8.5))) == "b"
    assert ids(kept(old, younger(9.0))) == "ab"
    assert age("2026-01-01T00:00:00+00:00", 1767225610.0) == age("2026-01-01T00:00:00", 1767225610.0) == 10.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_what_is_no_age_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no age"):
        younger(seconds)


def test_what_is_on_its_way_stays_and_what_was_overtaken_goes() -> None:
    written_on = [Kept("", each, stored=False) for each in ("bb", "i")]
    assert ids(kept([*REVISIONS, *written_on], newest(100))) == "abcdefghi"
    assert ids(kept(written_on, latest_only)) == "bbi"  # nothing is known yet that could have overtaken it


@pytest.mark.parametrize("count", [0, -1])
def test_keeping_none_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="keep at least 1"):
        newest(count)


def test_every_namespace_has_a_latest() -> None:
    inner = [Kept(checkpoint_ns="sub", checkpoint_id=each) for each in "ij"]
    assert kept([*REVISIONS, *inner], latest_only) >= {("", "h"), ("sub", "j")}


@pytest.mark.parametrize(
    ("root", "checkpoint_ns", "stays"),
    [
        ("e", "sub:1", False),  # the call was made under a checkpoint that goes
        ("c", "sub:1", True),
        ("h", "sub:1", True),
        ("z", "sub:1", True),  # which is not stored yet
        (None, "sub:1", True),
        ("e", "sub", True),  # a subgraph that outlives its calls
    ],
)
def test_a_subgraphs_call_goes_with_the_checkpoint_it_was_made_under(
    root: str | None, checkpoint_ns: str, stays: bool
) -> None:
    call = Kept(checkpoint_ns=checkpoint_ns, checkpoint_id="x", root=root)
    assert ((checkpoint_ns, "x") in kept([*REVISIONS, call], latest_only)) is stays


def test_ancestors_stay_where_state_is_stored_as_changes() -> None:
    links = {
        each: Links(parent, {"log", "more"}, holds)
        for each, parent, holds in (
            ("a", None, ()),
            ("b", "a", ("log", "more")),
            ("c", "b", ("log",)),
            ("d", "b", ()),  # on another branch
            ("e", "c", ()),
        )
    }
    assert ancestors("e", links) == {"b", "c"}
    assert ancestors("b", links) == set()
    assert ancestors("e", {each: links[each] for each in "ae"}) == set()  # the others are gone already
    assert ancestors("e", {**links, "b": Links("e", (), ())}) == {"b", "c", "e"}  # forged
    chain = checkpoints(*((each, None) for each in "abcde"))
    assert ids(kept(chain, latest_only, lambda each: ancestors(each.checkpoint_id, links))) == "bce"


@given(
    st.lists(
        st.builds(
            Kept,
            checkpoint_ns=st.sampled_from(["", "sub", "sub:1"]),
            checkpoint_id=st.sampled_from("abcdefgh"),
            revision=st.none() | st.integers(1, 2),
            root=st.none() | st.sampled_from("abch"),
            age=st.floats(0, 9),
            stored=st.booleans(),
        ),
        unique_by=lambda each: (each.checkpoint_ns, each.checkpoint_id),
    ),
    st.integers(1, 4),
)
def test_more_is_kept_the_more_is_asked_for(thread: list[Kept], count: int) -> None:
    least = kept(thread, latest_only)
    assert least <= kept(thread, newest(count)) <= kept(thread, newest(count + 1)) | least
    assert least <= kept(thread, younger(5.0)) <= {(each.checkpoint_ns, each.checkpoint_id) for each in thread}
    roots = [each.checkpoint_id for each in thread if not each.checkpoint_ns and each.stored]
    assert not roots or ("", max(roots)) in least
