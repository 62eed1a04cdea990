"""What a plan makes of looks at resources that need one another. No host is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.core.model import ABSENT, Observation, Outcome, Past, Plan, Report, Spec
from reconciler.core.plan import _demands, chosen, ending, make_plan, to_look_at_again
from reconciler.core.restart_policy import Hold

TEXT = """
directories:
  above: {path: /srv/a}
  below: {path: /srv/a/b}
  deep: {path: /srv/a/b/c}
  other: {path: /srv/z}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return compiled(tmp_path, TEXT)


def planned(spec: Spec, past: Past | None = None, **seen: Observation[Any]) -> Plan:
    found = {one.id: seen.get(one.id.partition(":")[2], ABSENT) for one in spec.resources}
    return make_plan(spec, spec.resources, found, kinds.get, "host", past or Past())


def ids(remarks: Any) -> list[str]:
    return [one.id.partition(":")[2] for one in remarks]


@pytest.mark.parametrize(
    ("seen", "where", "why"),
    [
        (Observation(unknown="no answer"), "unknown", "which is unknown: no answer"),
        (Observation(failing="exit status 1"), "failing", "which fails: exit status 1"),
    ],
)
def test_what_needs_it_waits_and_all_else_is_planned(
    spec: Spec, seen: Observation[Any], where: str, why: str
) -> None:
    plan = planned(spec, above=seen)
    assert "above" in ids(getattr(plan, where))
    assert ids(plan.steps) == ["other"] or ids(plan.steps) == ["above", "other"]
    assert ids(plan.skipped) == ["below", "deep"]
    assert all(why in one.reason for one in plan.skipped)


def test_what_is_not_known_as_a_whole_or_has_not_ended_is_not_built_on(spec: Spec) -> None:
    plan = planned(spec, above=Observation(ABSENT.state, unsure="a folder"))
    assert ids(plan.unknown) == ["above"]
    assert ids(plan.skipped) == ["below", "deep"]
    plan = planned(spec, above=Observation(ABSENT.state, ending="pid 7 is being stopped"))
    assert ids(plan.skipped) == ["below", "deep"]


def test_what_is_paused_is_left_alone_and_hinders_nobody(spec: Spec) -> None:
    plan = planned(spec, Past(paused={"directory:above": "moving (by ann)"}))
    assert [one.reason for one in plan.skipped] == ["paused: moving (by ann)"]
    assert ids(plan.steps) == ["below", "deep", "other"]


def test_what_is_held_waits_with_all_that_needs_it(spec: Spec) -> None:
    hold = Hold("4 failed starts, next in 5 s", final=True)
    plan = planned(spec, Past(holds={"directory:above": hold}))
    assert ids(plan.held) == ["above"]
    assert plan.given_up == ("directory:above",)
    assert ids(plan.skipped) == ["below", "deep"]
    assert ids(plan.steps) == ["other"]


def test_a_fault_of_ours_in_one_leaves_the_others(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = kinds.get("directory")
    real = kind.actions

    def faulty(resource: Any, *more: Any) -> Any:
        if resource.id == "directory:above":
            raise ZeroDivisionError
        return real(resource, *more)

    monkeypatch.setattr(type(kind), "actions", lambda self, *more: faulty(*more))
    plan = planned(spec)
    assert ids(plan.unknown) == ["above"]
    assert ids(plan.skipped) == ["below", "deep"]
    assert ids(plan.steps) == ["other"]


def test_a_part_has_all_that_it_needs_and_nothing_else(spec: Spec) -> None:
    assert ids(chosen(spec, ["directory:deep"])) == ["above", "below", "deep"]
    assert ids(chosen(spec, ["directory:o*"])) == ["other"]
    with pytest.raises(KeyError, match="nothing"):
        chosen(spec, ["directory:deep", "nothing"])


def test_ids_are_not_matched_one_by_one(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("reconciler.core.plan.is_matched")  # It would be called for each with each.
    every = [one.id for one in spec.resources]
    assert chosen(spec, every) == spec.resources


def test_ends_come_in_reverse_and_wait_for_those_that_need_them(spec: Spec) -> None:
    ended = ending(spec.resources)
    assert ids(ended) == [*reversed(ids(spec.resources))]
    needs = {one.id.partition(":")[2]: one.needs for one in ended}
    assert "directory:below" in needs["above"]
    assert needs["deep"] == ()
    assert not any(one.present for one in ended)


def test_what_has_failed_is_tried_once_in_a_pass(spec: Spec, tmp_path: Path) -> None:
    text = TEXT + "permissions: {p: {path: /srv/a/b, mode: '0700'}}\n"
    spec = compiled(tmp_path, text)
    (step, *_) = planned(spec).steps
    done = Outcome(step, "done", None, 0.0)
    seen = [one.id for one in spec.resources]
    report = Report(planned(spec), (done,))
    assert to_look_at_again(seen, spec.resources, report, kinds.get) == ["permission:p"]
    other = replace(step, id="permission:p")
    failed = Outcome(other, "failed", "denied", 0.0)
    report = Report(planned(spec), (done, failed))
    assert to_look_at_again(seen, spec.resources, report, kinds.get) == []


def test_of_two_that_are_absent_already_none_waits_for_the_other_at_the_end(tmp_path: Path) -> None:
    text = "directories: {a: {path: /srv/a, state: absent}, b: {path: /srv/a/b, state: absent}}"
    spec = compiled(tmp_path, text)
    assert [one.needs for one in spec.resources] == [(), ("directory:b",)]
    assert [one.needs for one in ending(spec.resources)] == [(), ()]


def test_what_is_paused_asks_nobody_to_be_started_anew() -> None:
    seen = {"check:c": Observation[Any](failing="no answer", demands=("process:p",))}
    assert _demands(seen, Past()) == {"process:p": {"check:c": "check:c: no answer"}}
    assert _demands(seen, Past(paused={"check:c": "moving (by ann)"})) == {}


def test_what_is_about_to_change_below_it_is_not_told_of_yet(spec: Spec) -> None:
    """The note is about what was seen, which is another thing once what it needs is made."""
    odd = Observation(note="an odd one")
    assert ids(planned(spec, above=odd).notes) == ["above"]
    assert ids(planned(spec, below=odd).notes) == []
