"""Who supervises the loop hears of it only while its passes come to an end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import Machine, compiled, until

from reconciler import kinds
from reconciler.cli.call_state import Learned
from reconciler.core.model import Outcome, Plan, Spec, Step
from reconciler.core.observe import Snapshot
from reconciler.host import filesystems
from reconciler.host.clock import Clock
from reconciler.watchdog.backlog import PATIENCE, Backlog, depending
from reconciler.watchdog.glance import is_as_declared
from reconciler.watchdog.loop import Watchdog
from reconciler.watchdog.passes import Passes, Teller
from reconciler.watchdog.settling import Settling


class Ear:
    """Stands for the supervisor, the pulse and the log; counts the signs of life."""

    longest_silence = 1.0

    def __init__(self) -> None:
        self.alives = 0
        self.events: list[str] = []

    def alive(self, now: float) -> None:
        self.alives += 1

    def event(self, name: str, *words: Any, **fields: Any) -> None:
        self.events.append(name)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None


def test_a_pass_that_comes_to_no_end_is_no_sign_of_life(machine: Machine) -> None:
    broken = True

    def look(spec: Spec, host: Any, only: Any) -> Snapshot:
        if broken:
            raise RuntimeError("no end")
        return Snapshot(spec, Plan(spec.name, spec.path, "host", 0), {})

    ear: Any = Ear()
    reports: list[str] = []
    told: list[list[str]] = []
    learned = Learned(frozenset(), {}, frozenset(), {}, (), (), {})
    session: Any = SimpleNamespace(
        clock=Clock(),
        get_kind=kinds.get,
        facts=lambda: None,
        folder=lambda spec: str(machine.base),
        load_isolated=lambda patience: SimpleNamespace(
            child=SimpleNamespace(descriptor=-1, left=0.0), collect=lambda: spec
        ),
        known=lambda spec: spec,
        recover=lambda spec: None,
        host=lambda spec: SimpleNamespace(forget=lambda: None),
        look=look,
        learn=lambda look, host: None,
        learned=lambda: learned,
        learn_from=lambda learned: None,
        forked=lambda write, stops: None,
        handed_over=list,
        reports_untold=lambda reports: None,
        post=lambda spec, told: ear,
        reports=lambda woken, told: ear,
        report=reports.append,
        tell=lambda look, outcomes, last=None: told.append(list(reports)),
        terminal=ear,
        said={},
        tracker=lambda spec, writes: SimpleNamespace(said=dict),
        clean=str,
    )
    spec = Spec("demo", "/nowhere/spec.yaml", ())
    watchdog = Watchdog(session, spec, ear, ear, ear)

    def full_pass() -> None:
        watchdog.full_pass(False)
        if watchdog.left() is not None:  # The spec is loaded first.
            assert [part for part in watchdog.parts if part.tend(()) and part.due() is None]
            watchdog.full_pass(False)
        assert watchdog.left() is None
        passes = watchdog.parts[0]
        until(lambda: passes.tend(passes.descriptors()) or watchdog.left() is not None)

    full_pass()
    watchdog.moved()
    assert ear.alives == 0
    # People hear of it at once, and not with every pass.
    full_pass()
    ((first,),) = told
    assert first.startswith("this pass came to no end: internal error: RuntimeError: no end at ")
    assert ear.events == ["error"]
    broken = False
    full_pass()
    watchdog.moved()
    assert ear.alives == 1
    assert reports[1:] == ["passes come to their end again"]


def test_a_start_that_did_not_hold_is_told_by_one_pass(tmp_path: Path) -> None:
    """Of those that have looked at the same time."""
    spec = compiled(tmp_path, "processes: {p: {command: [sleep, '9'], ready: {log: up}}}")
    (resource,) = spec.resources
    settling = Settling(Clock())
    step = Step(resource.id, "start", (), (), "not running", ())
    for _ in range(2):
        settling.add(Outcome(step, "done"), resource)
        assert [settling.told([resource.id]) for _ in range(2)] == [set(), {resource.id}]
        settling.proved(Outcome(step, "failed"))
        assert settling.due() is None


class Still(Clock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_look_whether_it_has_held_is_called_for_once(tmp_path: Path) -> None:
    """The loop sleeps while that is under way; should it come to nothing, another one follows."""
    (resource,) = compiled(tmp_path, "processes: {p: {command: [sleep, '9']}}").resources
    clock = Still()
    settling = Settling(clock)
    step = Step(resource.id, "start", (), (), "not running", ())
    settling.add(Outcome(step, "done"), resource)
    for _ in range(2):
        wait = settling.due()
        assert wait is not None and wait > 0.1 and settling.tend(()) == []
        clock.now += wait
        assert settling.due() == 0
        assert [settling.tend(()) for _ in range(2)] == [[resource.id], []]
    settling.proved(Outcome(step, "done"))
    assert settling.due() is None


def test_what_ended_after_its_time_had_held(tmp_path: Path) -> None:
    """However late the pass comes that looks whether it has."""
    (resource,) = compiled(tmp_path, "processes: {p: {command: [sleep, '9']}}").resources
    clock = Still()
    settling = Settling(clock)
    step = Step(resource.id, "start", (), (), "not running", ())
    settling.add(Outcome(step, "done"), resource)
    wait = settling.due()
    assert wait is not None and wait > 0
    # An end of an earlier one, and one within its time: it has failed.
    for end in (99.0, 100.0 + wait / 2):
        settling.held({resource.id: end})
        assert settling.due() is not None
    settling.held({resource.id: 100.0 + wait})
    assert settling.told([resource.id]) == {resource.id}
    assert settling.due() is None


def test_what_needs_what_another_pass_is_at_is_left_and_looked_at_again(tmp_path: Path) -> None:
    """What that one has seen of it was seen in the midst of it."""
    text = "processes:\n" + "".join(
        f"  {name}: {{command: [sleep, '9'], needs: [{needs}]}}\n"
        for name, needs in (
            ("a", ""),
            ("b", "process:a"),
            ("c", "process:b"),
            ("d", ""),
            ("e", "process:d, process:c"),
            ("f", "process:d"),
        )
    )
    by_id = {one.id: one for one in compiled(tmp_path, text).resources}
    steps = list(by_id)
    found = depending({"process:a", "process:x"}, steps, by_id)
    assert found == {f"process:{name}": {"process:a"} for name in "bce"}
    # What it would not have done itself was as it should be.
    assert not depending({"process:a"}, steps[1:], by_id)
    assert not depending({"process:f"}, steps, by_id)

    busy = {"process:a"}
    begun: list[set[str]] = []

    class Still(Clock):
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Still()
    passes: Any = SimpleNamespace(
        of_others=lambda one: busy, room=lambda: True, idle=False, about=lambda ids: set()
    )
    backlog = Backlog(clock, passes, lambda ids: begun.append(set(ids)), lambda: False)
    backlog.take(by_id)
    backlog.behind(found)
    for _ in range(2):
        assert backlog.due() is None
        backlog.tend(())
        clock.now += 2 * PATIENCE
    assert not begun
    busy.clear()
    assert backlog.due() == 0.0
    backlog.tend(())
    clock.now += 2 * PATIENCE
    for _ in range(2):
        backlog.tend(())
        assert begun == [set(found)]
        assert backlog.due() is None


def test_a_pass_hears_at_its_turn_whether_another_one_has_been_there(machine: Machine) -> None:
    """What it has seen before that may be otherwise by then."""

    def work(teller: Teller, only: Sequence[str], stopping: Any) -> list[Any]:
        if only == ["first"]:
            until((machine.base / "go").exists)
        else:
            teller.turn({"a"})
            return []
        return [teller.turn({ident}) for ident in ("a", "b", "b")]

    passes = Passes(Clock(), work, lambda *_: None, lambda one: None, lambda: "news")
    first, second = passes.begin(("first",)), passes.begin(("second",))

    def ended(one: Any) -> bool:
        passes.tend(passes.descriptors())
        return one.result is not None

    until(lambda: ended(second))
    (machine.base / "go").touch()
    until(lambda: ended(first))
    # At the second one it has been itself, which is no other look either.
    assert first.result == [("news", False), ("news", True), ("news", False)]
    until(lambda: passes.tend(passes.descriptors()) == () and passes.idle)
    third = passes.begin(("first",))
    until(lambda: ended(third))
    assert third.result[0] == ("news", True)  # It began behind all of them.
    passes.close()


def test_a_loop_looks_at_nothing_itself_that_lies_on_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would stand when that does not answer; a child that looks can be ended."""
    spec: Any = SimpleNamespace(resources=(), empty=False, last_good=False, metrics=None)
    looked: list[object] = []
    context: Any = SimpleNamespace(
        folder=lambda spec: "/state", is_silent=lambda spec: looked.append(spec)
    )
    for on_server in (True, False):
        monkeypatch.setattr(filesystems, "leads_to_server", lambda path, on=on_server: on)
        assert not is_as_declared(context, spec, lambda some: True)
    assert looked == [spec]
