"""Order and difference, for whatever they are given."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.base.text import printable
from reconciler.core.attributes import Attributes
from reconciler.core.model import diff
from reconciler.core.order import Cycle, in_order

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=3), unique=True, max_size=12)


@st.composite
def acyclic(draw: st.DrawFn) -> tuple[list[str], dict[str, list[str]]]:
    names = draw(NAMES)
    hidden = draw(st.permutations(names))
    before = {
        name: draw(st.lists(st.sampled_from(hidden[:at]), max_size=3)) if at else []
        for at, name in enumerate(hidden)
    }
    return names, before


@given(acyclic())
def test_order_respects_what_comes_before_and_keeps_the_rest(
    graph: tuple[list[str], dict[str, list[str]]],
) -> None:
    names, before = graph
    ordered = in_order(names, before)
    assert sorted(ordered) == sorted(names)
    assert in_order(names, before) == ordered
    for name in names:
        assert all(ordered.index(other) < ordered.index(name) for other in before[name])
    if not any(before.values()):
        assert ordered == names


@given(st.integers(2, 8))
def test_a_circle_is_named_whole(size: int) -> None:
    names = [f"n{at}" for at in range(size)]
    with pytest.raises(Cycle) as caught:
        in_order(names, {name: [names[(at + 1) % size]] for at, name in enumerate(names)})
    circle = caught.value.ids
    assert circle[0] == circle[-1]
    assert set(circle) == set(names)
    for name, after in itertools.pairwise(circle):
        assert names[(names.index(name) + 1) % size] == after


MODES = st.none() | st.sampled_from(["0755", "0700", "0644"])
OWNERS = st.none() | st.sampled_from(["root", "me"])
ATTRIBUTES = st.builds(Attributes, MODES, OWNERS, OWNERS)


@given(ATTRIBUTES, ATTRIBUTES)
def test_the_difference_is_empty_exactly_when_all_that_is_asked_holds(
    wanted: Attributes, have: Attributes
) -> None:
    holds = all(getattr(have, name) == value for name, value in wanted.asks().items())
    assert (diff(wanted, have) == ()) == holds
    assert diff(wanted, wanted) == ()
    assert diff(None, None) == ()
    assert diff(wanted, None)[0].field == "state"
    assert [change.want for change in diff(None, have)] == ["absent"]


@given(st.text(st.characters(), max_size=60), st.integers(10, 50))
def test_what_is_printable_is_one_line_of_safe_characters(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert printable(shown, 1000) == shown
