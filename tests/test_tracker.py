"""What is remembered while the store cannot be read, and of what did not hold."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler import kinds
from reconciler.cli.call_state import CallState
from reconciler.cli.main import usual
from reconciler.core.messages import moment
from reconciler.core.model import Observation, Outcome, Plan, Step
from reconciler.core.restart_policy import Hold
from reconciler.host.clock import Clock
from reconciler.state import tracker as tracking
from reconciler.state.restarts import SOON, RestartTracker
from reconciler.state.store import Store
from reconciler.state.store.journal import Noted
from reconciler.state.tracker import Tracker
from reconciler.undo.journal import PassJournal


def test_what_is_paused_stays_so_while_the_store_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    told: list[str] = []
    store = Store(str(folder), Clock(), False)
    store.pauses.pause("process:p", "new disk", None, "me")

    def paused() -> dict[str, str]:
        tracker = Tracker((), kinds.get, store, told.append, set(), lambda: "me", str, {}, {})
        return dict(tracker.past().paused)

    assert paused() == {"process:p": "new disk (by me)"}
    (folder / "store.db").write_bytes(b"no store at all, but long enough to be looked at" * 50)
    store.close()
    assert paused() == {"process:p": "new disk (by me)"}
    assert "cannot use the store" in told[0]


def test_a_pause_says_until_when_it_is(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "demo"), Clock(), False)
    store.pauses.pause("process:p", "", 4e9, "me")
    tracker = Tracker((), kinds.get, store, print, set(), lambda: "me", str, {}, {})
    assert tracker.past().paused == {"process:p": f"no reason given (by me), until {moment(4e9)}"}


@pytest.mark.parametrize("flush", [0.0, 3600.0])
def test_a_step_that_did_not_hold_is_one_deed_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: float
) -> None:
    monkeypatch.setattr(tracking, "_FLUSH", flush)
    store = Store(str(tmp_path / "demo"), Clock(), True)
    kept = Tracker((), kinds.get, store, print, set(), lambda: "me", str, {}, {})
    step = Step("process:p", "start", (), (), "not running", ())
    for outcome in (
        Outcome(step, "done"),
        Outcome(replace(step, id="process:q"), "done"),
        Outcome(step, "failed", "it has ended"),
        # Another try is another deed.
        Outcome(replace(step), "done"),
        Outcome(replace(step), "failed", "it was never there"),
    ):
        kept.ended([outcome])
    kept.flush()
    assert [(deed.id, deed.result) for deed in store.history.since(0.0)] == [
        ("process:q", "done"),
        ("process:p", "failed"),
        ("process:p", "done"),
        ("process:p", "failed"),
    ]
    store.close()


def test_starts_that_were_not_written_down_count_once_the_store_takes_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "demo"), Clock(), True)

    def count(version: str, least: int) -> int:
        store.attempts.begun("process:p", version, least, store.base.clock.monotonic())
        return store.attempts.all()["process:p"].count

    assert [count("v1", 0), count("v1", 0), count("v1", 0)] == [0, 1, 2]
    assert count("v1", 7) == 7  # Four of them were lost.
    assert count("v1", 1) == 8
    assert count("v2", 0) == 0  # Another program begins at the beginning.


def test_only_what_has_been_healthy_for_long_enough_is_forgiven(tmp_path: Path) -> None:
    spec = compiled(tmp_path, "processes: {p: {command: [/bin/x], restart: {healthy_after: 60s}}}")
    store, now = Store(str(tmp_path / "demo"), Clock(), True), [1000.0]
    version = kinds.get("process").version(spec.resources[0].want)
    for _ in range(2):
        store.attempts.begun("process:p", version, 0, store.base.clock.monotonic())
    by_id = {"process:p": spec.resources[0]}
    tracker = RestartTracker(by_id, kinds.get, store.attempts, set(), {}, lambda: now[0])
    plan = Plan("demo", "spec.yaml", "host", 1)

    def unproven(seconds: float) -> set[str]:
        now[0] += seconds
        tracker.learn(plan, ["process:p"])
        tracker.write()
        tracker.written()
        return tracker.unproven() | store.attempts.all().keys()

    assert unproven(10) == {"process:p"}
    assert unproven(45) == {"process:p"}
    assert unproven(10) == set()


@pytest.mark.parametrize("was", ["boot = 'another'", "at = at + 1000"])
def test_what_was_started_at_no_known_time_is_healthy_from_now_on(tmp_path: Path, was: str) -> None:
    spec = compiled(tmp_path, "processes: {p: {command: [/bin/x]}}")
    store = Store(str(tmp_path / "demo"), Clock(), True)
    version = kinds.get("process").version(spec.resources[0].want)
    for _ in range(2):
        store.attempts.begun("process:p", version, 0, store.base.clock.monotonic())
    with store.base.change() as base:
        base.execute(f"UPDATE attempts SET {was}")
    by_id = {"process:p": spec.resources[0]}
    clock = store.base.clock.monotonic
    tracker = RestartTracker(by_id, kinds.get, store.attempts, set(), {}, clock)
    tracker.learn(Plan("demo", "spec.yaml", "host", 1), ["process:p"])
    tracker.write()
    since = store.attempts.all()["process:p"].since
    assert since is not None and 0 <= since < 60


def test_whether_the_try_after_giving_up_has_failed_is_looked_at_at_once(tmp_path: Path) -> None:
    policy = "restart: {attempts: 1, retry_every: 1h, healthy_after: 60s}"
    spec = compiled(tmp_path, f"processes: {{p: {{command: [/bin/x], {policy}}}}}")
    store, now = Store(str(tmp_path / "demo"), Clock(), True), [1000.0]
    version = kinds.get("process").version(spec.resources[0].want)
    for _ in range(2):
        store.attempts.begun("process:p", version, 0, store.base.clock.monotonic())
    by_id = {"process:p": spec.resources[0]}
    tracker = RestartTracker(by_id, kinds.get, store.attempts, set(), {}, lambda: now[0])
    begun = (Step("process:p", "start", (), (), "not running", ()),)
    assert tracker.due(Plan("demo", "spec.yaml", "host", 1, begun)) == SOON
    later = tracker.due(Plan("demo", "spec.yaml", "host", 1))
    assert later is not None and 59 < later <= 60


def test_what_lives_on_of_what_ended_at_once_holds_its_next_start_for_good(tmp_path: Path) -> None:
    spec = compiled(tmp_path, "processes: {p: {command: [/bin/x]}}")
    store = Store(str(tmp_path / "demo"), Clock(), True)
    version = kinds.get("process").version(spec.resources[0].want)
    store.attempts.begun("process:p", version, 1, store.base.clock.monotonic())
    store.attempts.failed("process:p", True)
    by_id = {"process:p": spec.resources[0]}
    clock = store.base.clock.monotonic
    tracker = RestartTracker(by_id, kinds.get, store.attempts, set(), {}, clock)
    lives_on = {"process:p": "pid 7 of it is left"}
    assert tracker.holds(lives_on) == {
        "process:p": Hold("not started again: pid 7 of it is left", True)
    }
    assert not tracker.holds()["process:p"].final
    assert tracker.due(Plan("demo", "spec.yaml", "host", 1), lives_on) is None


def test_of_what_cannot_be_looked_at_no_condition_is_over() -> None:
    known = {("process:p", "memory", "process:p"): 7.0}

    def over(seen: dict[str, Observation[Any]], declared: Collection[str]) -> int:
        begun, gone = tracking._conditions(known, seen, declared)
        assert begun == []
        return len(gone)

    assert over({"process:p": Observation(unknown="no answer")}, {"process:p"}) == 0
    assert over({}, {"process:p"}) == 0  # A pass over others.
    assert over({"process:p": Observation(1)}, {"process:p"}) == 1
    assert over({}, ()) == 1


def test_a_loop_learns_the_patterns_that_its_passes_have_compiled() -> None:
    options = usual(["--once", "nowhere.yaml"])
    assert options is not None
    re.purge()  # Where others have filled it, one more takes the place of another.
    state = CallState(options)
    state.forked(lambda blocks: None, None)  # type: ignore[arg-type]
    re.compile("only (this|pass)", re.DOTALL)
    learned = state.learned()
    assert [flags for pattern, flags in learned.patterns if pattern == "only (this|pass)"] == [16]
    re.purge()
    state.learn_from(learned)
    state.forked(lambda blocks: None, None)  # type: ignore[arg-type]
    re.compile("only (this|pass)", re.DOTALL)
    assert not state.learned().patterns


class LongNotes:
    """The journal of a pass that takes more room than there is."""

    def rows(self, goes_on: bool = False) -> Noted:
        return {"notes": {"process:p": os.urandom(1 << 20).hex()}, "ended": True}

    def definitions(self) -> dict[str, Any]:
        return {"process:p": {}}

    not_noted = staticmethod(PassJournal.not_noted)


def test_what_there_is_no_room_for_in_the_journal_keeps_nothing_else_from_being_written(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path / "demo"), Clock(), True)
    with store.base.change() as base:
        (pages,) = base.execute("PRAGMA page_count").fetchone()
        base.execute(f"PRAGMA max_page_count = {pages + 20}")
    told: list[str] = []
    kept = Tracker((), kinds.get, store, told.append, set(), lambda: "me", str, {}, {})
    notes: Any = LongNotes()
    kept.journal = notes
    kept.ended([Outcome(Step("process:p", "start", (), (), "not running", ()), "done")])
    kept.flush(last=True)
    assert [(deed.id, deed.result) for deed in store.history.since(0.0)] == [("process:p", "done")]
    assert store.journal.definition("process:p") == {}
    (number,) = store.journal.passes()
    ((ident, note),) = store.journal.notes(number).items()
    assert (ident, "no room" in note["why"], note["ended"]) == ("process:p", True, True)
    assert [one.endswith("what was done can perhaps not be undone") for one in told] == [True]
