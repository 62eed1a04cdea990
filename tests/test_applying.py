"""What becomes of the steps of a plan when the host has moved meanwhile, or one of them fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.core.apply import apply
from reconciler.core.model import ABSENT, Observation, Outcome, Plan, Spec
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan
from reconciler.host import Host
from reconciler.kinds.process.observed import ProcessState

Ended = dict[str, tuple[str, str]]


class Pass:
    """A spec whose plan is made, and then carried out."""

    def __init__(self, folder: Path, text: str) -> None:
        self.spec: Spec = compiled(folder, text)
        self.host = Host("demo", str(folder / "state"))
        seen = observe(self.spec.resources, kinds.get, self.host)
        self.plan: Plan = make_plan(self.spec, self.spec.resources, seen, kinds.get, "host")

    def applied(self, **more: Any) -> Ended:
        """How each step has ended, by its name."""
        found: list[Outcome] = []
        report = apply(self.plan, self.spec, kinds.get, self.host, found.append, **more)
        return {
            one.step.id.partition(":")[2]: (one.result, one.error or "") for one in report.outcomes
        }


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Pass]:
    return lambda text: Pass(tmp_path, text.replace("BASE", str(tmp_path)))


DIRECTORIES = """
directories:
  above: {path: BASE/a, mode: "0750"}
  below: {path: BASE/a/b}
  other: {path: BASE/z}
"""


def test_what_somebody_else_has_done_meanwhile_is_dropped_without_a_word(
    made: Callable[[str], Pass], tmp_path: Path
) -> None:
    one = made(DIRECTORIES)
    (tmp_path / "z").mkdir()
    ended = one.applied()
    assert ended["other"] == ("dropped", "")
    assert (ended["above"][0], ended["below"][0]) == ("done", "done")


def test_what_was_planned_for_another_host_is_not_done(
    made: Callable[[str], Pass], tmp_path: Path
) -> None:
    one = made(DIRECTORIES)
    (tmp_path / "a").mkdir(0o700)  # A directory that is to be changed, and was to be made.
    ended = one.applied()
    result, words = ended["above"]
    assert result == "dropped" and "the host has changed since the plan" in words
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert ended["below"][0] == "dropped"  # It needs the other one.
    assert not (tmp_path / "a" / "b").exists()
    assert ended["other"][0] == "done"


def test_what_cannot_be_looked_at_any_more_fails_alone(
    made: Callable[[str], Pass], tmp_path: Path
) -> None:
    one = made(DIRECTORIES)
    (tmp_path / "a").write_text("a person's file")
    ended = one.applied()
    assert ended["above"][0] == "failed" and "cannot look at it any more" in ended["above"][1]
    assert ended["below"][0] == "skipped" and "directory:above" in ended["below"][1]
    assert ended["other"][0] == "done"
    assert (tmp_path / "a").read_text() == "a person's file"


def test_what_does_not_help_has_failed_and_nothing_is_built_on_it(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = made(DIRECTORIES)
    real = one.host.files.make_directory

    def idle(path: str, *attributes: Any) -> None:
        if not path.endswith("/a"):
            real(path, *attributes)

    monkeypatch.setattr(one.host.files, "make_directory", idle)
    ended = one.applied()
    assert ended["above"][0] == "failed" and "no effect: " in ended["above"][1]
    assert ended["below"][0] == "skipped"
    assert not (tmp_path / "a").exists()
    assert ended["other"][0] == "done"


@pytest.mark.parametrize(("most", "waves"), [(64, [["c", "a"], ["b"]]), (2, [["c"], ["b"], ["a"]])])
def test_of_a_batch_some_are_begun_at_once_and_what_comes_after_others_behind_them(
    made: Callable[[str], Pass],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    waves: list[list[str]],
) -> None:
    """``after`` is about the order alone: it says nothing of what must be well."""
    one = made(
        "processes:\n  c: {command: /bin/c}\n  b: {command: /bin/b, after: [process:c]}\n"
        "  a: {command: /bin/a}\n"
    )
    begun: list[list[str]] = []

    def act(runs: Any, stage: int, host: Host) -> None:
        begun.append([run.step.id.partition(":")[2] for run in runs])

    monkeypatch.setattr("reconciler.core.apply._AT_ONCE", most)
    monkeypatch.setattr("reconciler.core.apply._act", act)
    one.applied()
    assert list(map(sorted, begun[: len(waves)])) == list(map(sorted, waves)), begun


def test_what_must_end_before_a_start_and_cannot_be_ended_lets_nothing_start(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made("processes: {a: {command: /bin/a}}")
    acted: list[Any] = []
    monkeypatch.setattr(
        type(kinds.get("process")), "awaits", lambda *_: [HostError("it cannot be ended")]
    )
    monkeypatch.setattr("reconciler.core.apply._act", lambda runs, *_: acted.extend(runs))
    assert one.applied()["a"] == ("failed", "it cannot be ended")
    assert acted == []


@pytest.mark.parametrize(
    ("alone", "age", "text", "looks"),
    [
        (True, 0.0, "processes: {a: {command: /bin/a}}", 1),
        (True, 1.0, "processes: {a: {command: /bin/a}}", 2),  # It takes its time to get its turn.
        (False, 0.0, "processes: {a: {command: /bin/a}}", 2),  # Another pass has been at it.
        (True, 0.0, "directories: {a: {path: BASE/a}}", 2),
    ],
)
def test_what_was_looked_at_a_moment_ago_is_not_looked_at_again(
    made: Callable[[str], Pass],
    monkeypatch: pytest.MonkeyPatch,
    alone: bool,
    age: float,
    text: str,
    looks: int,
) -> None:
    one = made(text)
    seen = observe(one.spec.resources, kinds.get, one.host)
    looked: list[str] = []
    acted: list[Any] = []

    def looking(resources: Any, *more: Any) -> Any:
        looked.extend(resource.id for resource in resources)
        return observe(resources, *more)

    monkeypatch.setattr(one.host.clock, "monotonic", lambda: 100.0)
    monkeypatch.setattr("reconciler.core.apply.observe", looking)
    monkeypatch.setattr("reconciler.core.apply._act", lambda runs, *_: acted.extend(runs))
    one.applied(settle=False, turn=lambda ids: alone, lately=(100.0 - age, seen))
    assert len(acted) == 1
    assert len(looked) == looks  # One of them is behind the step.


def test_what_the_look_was_not_about_is_looked_at(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made("processes: {a: {command: /bin/a}}")
    running = Observation(ProcessState(running=1), pending=None)
    monkeypatch.setattr("reconciler.core.apply.observe", lambda *_: {"process:a": running})
    now = one.host.clock.monotonic()
    assert one.applied(settle=False, turn=lambda ids: True, lately=(now, {}))["a"][0] == "dropped"


def test_what_is_well_again_is_not_started_anew(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made("processes: {a: {command: /bin/a}}")
    (step,) = one.plan.steps
    step = replace(step, verb="restart", demanded=("process:a",), of=("process:a",))
    one.plan = replace(one.plan, steps=(step,))
    acted: list[Any] = []
    monkeypatch.setattr("reconciler.core.apply._act", lambda runs, *_: acted.extend(runs))
    assert one.applied()["a"] == ("dropped", "recovered since the plan was made")
    assert acted == []


def test_once_it_is_to_stop_nothing_more_is_begun(
    made: Callable[[str], Pass], tmp_path: Path
) -> None:
    one = made(DIRECTORIES)
    ended = one.applied(stopping=(tmp_path / "a").is_dir)
    assert ended["above"][0] == "done"
    rest = [ended[name] for name in ("below", "other") if not (tmp_path / "z").exists()]
    assert rest and all(result == "skipped" for result, _ in rest)
    assert not (tmp_path / "z").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_step_that_may_not_be_done_fails_alone(
    made: Callable[[str], Pass], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir(0o500)
    one = made("directories: {b: {path: BASE/a/b}, other: {path: BASE/z}}")
    ended = one.applied()
    assert (ended["b"][0], ended["other"][0]) == ("failed", "done")


@dataclass(frozen=True)
class Noted:
    """An action that is noted, and fails."""

    name: str

    def describe(self) -> str:
        return self.name

    def run(self, host: Host) -> None:
        host.measured.setdefault("done", []).append(self.name)
        raise HostError(f"{self.name} has failed")


def test_behind_an_action_that_failed_no_other_of_its_step_is_done(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = (Noted("first"), Noted("second"))
    monkeypatch.setattr(type(kinds.get("directory")), "actions", lambda *asked: actions)
    one = made(DIRECTORIES)
    ended = one.applied()
    assert ended["above"] == ("failed", "first has failed")
    assert one.host.measured["done"] == ["first", "first"]  # Of the other one, too.


def test_each_entry_of_a_tree_stands_alone(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in "bcd":
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name).chmod(0o700)
    one = made("permissions: {p: {path: BASE/tree, recursive: true, dir_mode: '0750'}}")
    real = one.host.files.set_below

    def refusing(top: str, path: str, *more: Any) -> None:
        if path.endswith("/c"):
            raise HostError("not this one")
        real(top, path, *more)

    monkeypatch.setattr(one.host.files, "set_below", refusing)
    ended = one.applied()
    assert ended["p"][0] == "failed" and "not this one" in ended["p"][1]
    modes = {name: (tmp_path / "tree" / name).stat().st_mode & 0o777 for name in "bcd"}
    assert modes == {"b": 0o750, "c": 0o700, "d": 0o750}


def test_a_fault_in_the_look_at_one_leaves_all_others_known(
    made: Callable[[str], Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(kinds.get("directory"))
    real = kind.observe

    def faulty(self: Any, resources: Any, host: Host) -> Any:
        if any(one.id == "directory:above" for one in resources):
            raise ZeroDivisionError
        return real(self, resources, host)

    monkeypatch.setattr(kind, "observe", faulty)
    plan = made(DIRECTORIES).plan
    assert [one.id for one in plan.unknown] == ["directory:above"]
    assert [one.id for one in plan.steps] == ["directory:other"]


@pytest.mark.parametrize("settle", [False, True])
@pytest.mark.parametrize("pending", ["not ready yet (pid 9)", None])
def test_what_somebody_else_has_started_is_not_ready_before_it_was_asked(
    made: Callable[[str], Pass],
    monkeypatch: pytest.MonkeyPatch,
    pending: str | None,
    settle: bool,
) -> None:
    one = made("processes: {a: {command: /bin/a}, b: {command: /bin/b, needs: [process:a]}}")
    running = Observation(ProcessState(1, "current"), pending=pending)

    def looked(resources: Any, *more: Any) -> dict[str, Any]:
        return {r.id: running if r.name == "a" or acted else ABSENT for r in resources}

    acted: list[Any] = []
    monkeypatch.setattr("reconciler.core.apply.observe", looked)
    monkeypatch.setattr("reconciler.core.apply._act", lambda runs, *_: acted.extend(runs))
    monkeypatch.setattr(
        "reconciler.core.proving.proved", lambda outcomes, *_: [o for o, _ in outcomes]
    )
    ended = one.applied(settle=settle)
    assert ended["a"] == ("dropped", "")
    if pending:
        assert ended["b"] == ("skipped", "needs process:a, which is not ready yet")
        assert acted == []
    else:
        assert ended["b"] == ("done", "")
