"""What a policy forbids is refused with all the rest of the plan, in every mode."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver
from support import Machine, compiled, until

from reconciler import kinds
from reconciler.config.errors import SpecError
from reconciler.core.model import Past
from reconciler.core.observe import judged, observe
from reconciler.host import Host

HEAD = "version: 1\nname: demo\n"
EMPTY = "directories: {e: {path: BASE/empty, state: absent}}"


def old(folder: Path, *names: str) -> Path:
    """A folder with files of these names that were written two days ago."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
        os.utime(folder / name, (time.time() - 172_800,) * 2)
    return folder


def rule(path: Path, action: str = "action: delete") -> str:
    return f"retention: {{old: {{path: {path}, older_than: 1d, {action}}}}}\n"


def unknown(report: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["reason"] for one in report["unknown"]}


def refused(machine: Machine, spec: Path, *options: str) -> dict[str, str]:
    """What a plan and a pass say that they refuse; nothing of either is done."""
    done = machine.reconcile("--plan", spec, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    report = machine.once(spec, *options, status=1)
    assert report["steps"] == []
    found = unknown(report)
    assert all("refused by the policy (" in reason for reason in found.values())
    for ident, reason in found.items():
        assert f"? unknown {ident}: {reason}" in done.stdout
    return found


def test_too_many_deletions_refuse_all_of_the_plan(machine: Machine) -> None:
    folder = old(machine.base / "logs", "a", "b", "c")
    text = rule(folder) + f"directories: {{new: {{path: {machine.base}/new}}}}\n"
    spec = machine.spec(f"{HEAD}policy: {{max_deletes: 2}}\n{text}")
    found = refused(machine, spec)
    assert found == {
        "retention:old": "refused by the policy (max_deletes: 2, and it deletes 3): "
        f"would delete 3 files from {folder}"
    }
    (skipped,) = machine.once(spec, status=1)["skipped"]
    assert skipped["id"] == "directory:new"
    assert skipped["reason"] == "refused with retention:old, which the policy forbids: missing"
    assert sorted(os.listdir(folder)) == ["a", "b", "c"]
    assert not (machine.base / "new").exists()
    # A part of it that keeps to it is done.
    machine.once(spec, "--only", "directory:new")
    machine.once(machine.spec(f"{HEAD}policy: {{max_deletes: 3}}\n{text}"))
    assert os.listdir(folder) == []
    machine.converged(spec)


@pytest.mark.parametrize(
    ("policy", "text", "gone"),
    [
        ("protect: [BASE/logs/a]", "RULE, action: delete}}", "retention:old"),
        ("protect: ['BASE/lo*']", "RULE, action: move, to: BASE/other}}", "retention:old"),
        (
            "protect: [BASE/logs]",
            "RULE, action: archive, to: BASE/other/a.tar.gz}}",
            "retention:old",
        ),
        ("protect: ['~/emp*']", EMPTY, "directory:e"),
        ("protect: [BASE/empty]", EMPTY, "directory:e"),
        ("protect: ['BASE/**']", "RULE, action: rotate, keep: 1}}", "retention:old"),
        ("deny: [delete]", "RULE, action: delete}}", "retention:old"),
        ("deny: [delete]", EMPTY, "directory:e"),
        ("max_deletes: 0", EMPTY, "directory:e"),
        ("deny: [create]", "directories: {n: {path: BASE/new}}", "directory:n"),
        ("deny: [update]", "directories: {e: {path: BASE/empty, mode: '0711'}}", "directory:e"),
    ],
)  # fmt: skip
def test_what_it_forbids(policy: str, text: str, gone: str, tmp_path: Path) -> None:
    old(tmp_path / "logs", "a", "b")
    for name in ("empty", "other"):
        (tmp_path / name).mkdir(mode=0o700)
    text = text.replace("RULE", "retention: {old: {path: BASE/logs, older_than: 1d")
    for forbidden in (True, False):
        head = f"policy: {{{policy}}}\n" if forbidden else ""
        spec = compiled(tmp_path, f"{head}{text}\n".replace("BASE", str(tmp_path)))
        host = Host("demo", str(tmp_path / "state"))
        seen = observe(spec.resources, kinds.get, host)
        plan, _ = judged(spec, spec.resources, seen, kinds.get, host, Past())
        assert [one.id for one in plan.unknown] == ([gone] if forbidden else [])
        assert [one.id for one in plan.steps] == ([] if forbidden else [gone])


def test_what_is_no_more_declared_is_protected_by_its_id(machine: Machine) -> None:
    lines = "keep: {schedule: '@daily', command: 'true'}, go: {schedule: '@daily', command: a}"
    machine.once(machine.spec(f"{HEAD}cron: {{{lines}}}\n"))
    spec = machine.spec(f"{HEAD}policy: {{protect: ['cron:ke*']}}\ncron:\n")
    assert set(refused(machine, spec)) == {"cron:keep"}
    assert (machine.crontab_text() or b"").count(b"@daily") == 2


def test_a_stop_and_an_uninstall_are_refused_too(machine: Machine) -> None:
    mark = f"sleep {machine.mark}"
    text = f"processes:\n  w: {{command: [sleep, '{machine.mark}']}}\n"
    text += f"  v: {{command: [sleep, '1{machine.mark}']}}\n"
    spec = machine.spec(f"{HEAD}policy: {{protect: ['process:w']}}\n{text}")
    machine.once(spec)
    (pid,) = machine.running(f"{mark}")[:1]
    for words in (("--uninstall",), ("--pause", "process:*", "--stop")):
        done = machine.reconcile(*words, spec)
        assert done.returncode == 1
        assert "refused by the policy (protect: process:w)" in done.stdout + done.stderr
    machine.reconcile("--resume", "process:*", spec)
    assert machine.running(f"sleep 1{machine.mark}")
    assert pid in machine.running(mark)
    # It is started again as before, and a new definition of it is no end.
    os.kill(pid, 9)
    until(lambda: pid not in machine.running(mark))
    until(lambda: machine.once(spec)["steps"] == [])
    assert machine.running(mark)
    absent = machine.spec(spec.read_text().replace("w: {", "w: {state: absent, "))
    assert set(refused(machine, absent)) == {"process:w"}
    assert "process:w" in machine.reconcile("--status", absent).stdout
    found = machine.reconcile("--diagnose", absent)
    assert "refused by the policy" in found.stdout, found.stdout + found.stderr
    repaired = machine.reconcile("--repair", absent)
    assert repaired.returncode == 1, repaired.stdout + repaired.stderr
    assert machine.running(mark)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


def test_a_loop_tells_it_once_and_keeps_what_runs(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    folder = old(machine.base / "logs", "a", "b")
    url_file = machine.base / "hook"
    url_file.write_text(f"json://{receiver.where}/\n")
    url_file.chmod(0o600)
    mark = f"sleep {machine.mark}"
    head = f"{HEAD}loop: {{every: 300ms}}\n"
    head += f"notify: {{targets: {{hook: {{url_file: {url_file}}}}}}}\n"
    text = f"processes: {{w: {{command: [sleep, '{machine.mark}']}}}}\n"
    spec = machine.spec(head + text)
    machine.once(spec)
    machine.spec(f"{head}policy: {{max_deletes: 1}}\n{text}{rule(folder)}")
    loop = looping(spec)
    until(receiver.bodies)
    (pid,) = machine.running(mark)
    os.kill(pid, 9)
    until(lambda: machine.running(mark) not in ([], [pid]))
    passes = loop.passes()
    until(lambda: loop.passes() > passes + 3)
    refusals = [body for body in receiver.bodies() if "refused by the policy" in body]
    assert len(refusals) == 1, receiver.bodies()
    assert "max_deletes: 1, and it deletes 2" in refusals[0]
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_what_is_wrong_with_a_policy(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("policy: {deny: [delete]}\n")
    for text, words in {
        "policy: {deny: [delte]}": "did you mean 'delete'?",
        "policy: {max_delete: 3}": "did you mean 'max_deletes'?",
        "policy: {max_deletes: -1}": "is outside 0 to",
        "policy: {protect: [proces:w]}": "did you mean 'process'?",
        "policy: {protect: [x]}": "is neither a path nor an id",
        "policy: {}": "policy forbids nothing",
        "policy: [delete]": "policy needs fields",
        "include: [more.yaml]": "'policy' belongs into the main file only",
    }.items():
        with pytest.raises(SpecError) as caught:
            compiled(tmp_path, f"{HEAD}{text}\n")
        (problem,) = caught.value.problems
        assert words in f"{problem.message} {problem.hint}"
        assert problem.line == (3 if "include" not in text else 1)
