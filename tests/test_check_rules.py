"""When a check is due, and what is said of it after one more verdict."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.base.values import ProbeHistory, due_in
from reconciler.watchdog.probes import heard, places


def said(**fields: Any) -> ProbeHistory:
    values = {"version": "v", "result": "ok", "failures": 0, "acted": 0, "reason": "",
              "since": 500.0, "wall": 1000.0}  # fmt: skip
    return ProbeHistory(**{**values, **fields})


@pytest.mark.parametrize(
    ("before", "wall", "left"),
    [
        (None, 1000, 0),
        (said(age=20.0), 1000, 40),
        (said(age=70.0), 1000, 0),
        # The wall clock may jump as it likes.
        (said(age=20.0), 9e9, 40),
        (said(age=20.0), 0, 40),
        # Before this boot there is only the wall clock; set back, it is due.
        (said(), 1020, 40),
        (said(), 1070, 0),
        (said(), 900, 0),
        (said(age=20.0, version="w"), 1000, 0),
    ],
)
def test_due(before: ProbeHistory | None, wall: float, left: float) -> None:
    assert due_in(before, "v", 60.0, wall) == left


def test_heard() -> None:
    seen = []
    last: ProbeHistory | None = None
    for at, ok in enumerate((True, False, False, False, True, False)):
        last = heard(last, "v", ok, str(at), 2, float(at))
        seen.append((last.result, last.failures, last.since))
    assert seen == [
        ("ok", 0, 0.0), ("shaky", 1, 1.0), ("failing", 2, 2.0), ("failing", 3, 2.0),
        ("ok", 0, 4.0), ("shaky", 1, 5.0),
    ]  # fmt: skip
    # Something was done about it, and it still fails.
    again = heard(said(result="failing", failures=0, acted=1), "v", False, "x", 2, 9.0)
    assert (again.result, again.failures, again.acted, again.since) == ("failing", 1, 1, 500.0)
    other = heard(said(result="failing", failures=5), "w", False, "x", 2, 9.0)
    assert (other.result, other.failures, other.since) == ("shaky", 1, 9.0)


@pytest.mark.parametrize(
    ("numbers", "shares"),
    [
        ({}, {}),
        ({"": 3}, {"": 3}),
        ({"": 20}, {"": 8}),
        ({"": 1, "bob": 8}, {"": 1, "bob": 7}),
        ({"": 20, "bob": 20}, {"": 4, "bob": 4}),
        # With more users than places each has one all the same.
        ({f"u{n}": 9 for n in range(10)}, {f"u{n}": 1 for n in range(10)}),
    ],
)
def test_places_are_shared_by_user(numbers: dict[str, int], shares: dict[str, int]) -> None:
    assert places(numbers) == shares
