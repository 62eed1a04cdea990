"""One pass is enough, also where some of its steps make what others are about."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import Machine, ends_before_it_is_proved, until, within


def spec(machine: Machine, text: str) -> Path:
    return machine.spec(
        text.replace("D/", f"{machine.base}/t/").replace("D,", f"{machine.base}/t,")
    )


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def passed(machine: Machine, path: Path) -> list[tuple[str, str, str]]:
    """A pass that ends well, and leaves nothing to be done."""
    report = machine.once(path)
    machine.converged(path)
    assert report["summary"]["changes"] == len(report["steps"])
    return [(step["id"], step["verb"], step["result"]) for step in report["steps"]]


CASES = {
    "a folder below a glob": (
        'directories: {a: {path: D/x}}\npermissions: {p: {path: "D/*", mode: "0700"}}\n',
        ["directory:a", "permission:p"],
        {"x": "0700"},
    ),
    "parents that nobody declares": (
        "directories: {a: {path: D/x/y}}\n"
        'permissions: {p: {path: D, file_mode: "0640", dir_mode: "0750", recursive: true}}\n',
        ["directory:a", "permission:p"],
        {"x": "0750", "x/y": "0750", "": "0750"},
    ),
    "a file of its own": (
        'blocks: {b: {path: D/f, content: hi}}\npermissions: {p: {path: D/f, mode: "0600"}}\n',
        ["block:b", "permission:p"],
        {"f": "0600"},
    ),
    "a file below": (
        "blocks: {b: {path: D/y/f, content: hi}}\ndirectories: {a: {path: D/y}}\n"
        'permissions: {p: {path: D, file_mode: "0640", dir_mode: "0750", recursive: true}}\n',
        # Planned before the folder was there, and once more behind it.
        ["directory:a", "block:b", "permission:p"],
        {"": "0750", "y": "0750", "y/f": "0640"},
    ),
}


@pytest.mark.parametrize(("text", "steps", "modes"), CASES.values(), ids=CASES)
def test_what_is_about_new_things_is_done_in_the_same_pass(
    machine: Machine, text: str, steps: list[str], modes: dict[str, str]
) -> None:
    top = machine.base / "t"
    top.mkdir(mode=0o755)
    found = passed(machine, spec(machine, text))
    assert [ident for ident, _, _ in found] == steps
    assert {result for _, _, result in found} == {"done"}
    assert {name: mode(top / name) for name in modes} == modes


AGED = {
    "moved": "move, to: D/out",
    "archived": 'archive, to: "D/out/x.tar.gz"',
}


@pytest.mark.parametrize("action", AGED.values(), ids=AGED)
def test_what_a_retention_puts_somewhere_is_seen_to_in_the_same_pass(
    machine: Machine, action: str
) -> None:
    path = spec(
        machine,
        "directories: {o: {path: D/out}, i: {path: D/in}}\n"
        'permissions: {p: {path: "D/out/*", mode: "0600"}}\n'
        f"retention: {{r: {{path: D/in, older_than: 1h, action: {action}}}}}\n",
    )
    machine.once(path)
    old = machine.base / "t/in/old"
    old.touch()
    old.chmod(0o644)
    os.utime(old, (1, 1))
    passed(machine, path)
    (made,) = (machine.base / "t/out").iterdir()
    assert mode(made) == "0600"


def test_an_age_rule_sees_what_another_one_has_moved_there(machine: Machine) -> None:
    path = spec(
        machine,
        "directories: {o: {path: D/out}, i: {path: D/in}}\n"
        "retention:\n"
        "  r: {path: D/in, older_than: 1h, action: move, to: D/out}\n"
        "  s: {path: D/out, older_than: 1d, action: delete}\n",
    )
    machine.once(path)
    old = machine.base / "t/in/old"
    old.touch()
    os.utime(old, (1, 1))
    found = passed(machine, path)
    assert [ident for ident, _, _ in found] == ["retention:r", "retention:s"]
    assert not any((machine.base / "t/out").iterdir())


RULES = (
    "directories: {i: {path: D/in}, m: {path: D/mid}, o: {path: D/out}}\n"
    "retention:\n"
    "  a: {path: D/out, older_than: 1d, action: delete%s}\n"
    "  b: {path: D/mid, older_than: 1h, action: move, to: D/out}\n"
    "  c: {path: D/in, older_than: 1h, action: move, to: D/mid}\n"
)


def aged(machine: Machine, *names: str) -> None:
    for name in names:
        path = machine.base / "t" / name
        path.touch()
        os.utime(path, (1, 1))


def test_age_rules_that_have_acted_do_what_others_have_made_due(machine: Machine) -> None:
    """Each is planned before the one that gives it more to do."""
    path = spec(machine, RULES % "")
    machine.once(path)
    aged(machine, "in/x", "in/y", "mid/z", "out/v")
    passed(machine, path)
    assert [file for file in (machine.base / "t").rglob("*") if file.is_file()] == []


def test_the_brake_of_an_age_rule_counts_for_the_whole_pass(machine: Machine) -> None:
    path = spec(machine, RULES % ", max_files_per_pass: 2")
    machine.once(path)
    aged(machine, "in/x", "in/y", "mid/z", "out/v")
    report = machine.once(path)
    left = sorted(file.name for file in (machine.base / "t").rglob("*") if file.is_file())
    assert left == ["x", "y"]
    (note,) = report["notes"]
    assert note["reason"] == "2 files more due, for the next passes (max_files_per_pass)"
    assert [step["id"] for step in machine.plan(path)["steps"]] == ["retention:a"]


def test_rules_that_move_files_to_one_another_come_to_an_end(machine: Machine) -> None:
    path = spec(
        machine,
        "directories: {i: {path: D/in}, o: {path: D/out}}\n"
        "retention:\n"
        "  a: {path: D/in, older_than: 1h, action: move, to: D/out}\n"
        "  b: {path: D/out, older_than: 1h, action: move, to: D/in}\n",
    )
    machine.once(path)
    aged(machine, "in/x")
    assert len(machine.once(path)["steps"]) < 8


def test_more_than_one_step_does_is_done_in_the_same_pass(machine: Machine, tmp_path: Path) -> None:
    hook = tmp_path / "sitecustomize.py"
    hook.write_text("import reconciler.kinds.retention.resource as r\nr._MOST = 100\n")
    machine.environ["PYTHONPATH"] = str(tmp_path)
    path = spec(
        machine,
        "directories: {i: {path: D/in}}\n"
        "retention: {r: {path: D/in, older_than: 1h, action: delete}}\n",
    )
    machine.once(path)
    aged(machine, *(f"in/{number}" for number in range(110)))
    (note,) = machine.plan(path)["notes"]
    assert note["reason"] == "10 files more due, for further steps"
    assert len(passed(machine, path)) == 2
    assert list((machine.base / "t/in").iterdir()) == []


def test_the_loop_does_not_wait_for_its_next_pass(machine: Machine, looping: Any) -> None:
    (machine.base / "t").mkdir()
    text, _, _ = CASES["a file of its own"]
    loop = looping(spec(machine, "loop: {every: 1h}\n" + text)).up()
    until(lambda: mode(machine.base / "t/f") == "0600")
    assert loop.passes() == 1


def test_what_needs_a_step_that_failed_is_not_tried_behind_it(machine: Machine) -> None:
    top = machine.base / "t"
    top.mkdir()
    (top / "x").write_text("in the way")
    path = spec(
        machine,
        "directories: {a: {path: D/x/y}, b: {path: D/z}}\n"
        'permissions: {p: {path: "D/z", mode: "0700"}, q: {path: D/x/y, mode: "0700"}}\n',
    )
    report = machine.once(path, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    results |= {one["id"]: "unknown" for one in report["unknown"]}
    assert results["directory:b"] == "done" and results.get("directory:a") != "done"
    assert "permission:q" not in {i for i, result in results.items() if result == "done"}
    assert mode(top / "z") == "0700"


def test_what_needs_a_check_that_fails_is_left(machine: Machine) -> None:
    well = machine.base / "well"
    path = machine.spec(
        f"checks: {{c: {{command: 'test -e {well}', every: 1s}}}}\n"
        "processes: {p: {command: [sleep, '90930'], needs: ['check:c'], state: absent}}\n"
    )
    machine.once(path, status=1)
    path.write_text(path.read_text().replace(", state: absent", ""))
    plan = machine.plan(path)
    assert plan["steps"] == []
    (skipped,) = plan["skipped"]
    assert skipped["id"] == "process:p"
    assert skipped["reason"].startswith("needs check:c, which fails: exit status 1")
    machine.once(path, status=1)
    assert machine.running("sleep 90930") == []
    well.touch()

    def starts() -> bool:
        machine.reconcile("--once", path)
        return bool(machine.running("sleep 90930"))

    until(starts)


def test_what_needs_a_process_waits_whether_that_has_held(machine: Machine, tmp_path: Path) -> None:
    number = machine.base / "bad"
    hook = ends_before_it_is_proved("process:bad", number)
    (tmp_path / "sitecustomize.py").write_text(hook)
    machine.environ["PYTHONPATH"] = str(tmp_path)
    path = machine.spec(
        "processes:\n"
        f"  bad: {{command: 'echo $$ >{number}; exec sleep 0.1'}}\n"
        "  good: {command: [sleep, '90931']}\n"
        "  of_bad: {command: [sleep, '90932'], needs: ['process:bad']}\n"
        "  of_good: {command: [sleep, '90933'], needs: ['process:good']}\n"
    )
    report = machine.once(path, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    assert results == {
        "process:bad": "failed",
        "process:good": "done",
        "process:of_bad": "skipped",
        "process:of_good": "done",
    }
    (skipped,) = (step for step in report["steps"] if step["id"] == "process:of_bad")
    assert skipped["error"] == "needs process:bad, which failed or was not done"
    assert machine.running("sleep 90932") == [] and machine.running("sleep 90933")


def test_what_nobody_needs_is_not_waited_for_one_by_one(machine: Machine) -> None:
    names = [f"  p{at}: {{command: [sleep, '9094{at}']}}\n" for at in range(8)]
    path = machine.spec("processes:\n" + "".join(names))
    with within(8 * 0.5):
        machine.once(path)
        # Each has half a second to hold, all at the same time.


@pytest.mark.root
def test_what_fails_is_tried_once_in_a_pass(machine: Machine) -> None:
    """Also where another step has made something, for which it is otherwise looked at again."""
    held = machine.base / "held"
    held.touch(0o644)
    if subprocess.run(["chattr", "+i", held], capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        spec = machine.spec(
            f"directories: {{d: {{path: {machine.base}/d}}}}\n"
            f"permissions: {{p: {{path: {held}, mode: '0600'}}}}\n"
        )
        report = machine.once(spec, status=1)
    finally:
        subprocess.run(["chattr", "-i", held], check=True)
    results = [(step["id"], step["result"]) for step in report["steps"]]
    assert results == [("directory:d", "done"), ("permission:p", "failed")]


def test_what_needs_a_step_that_was_overtaken_is_done_behind_it(machine: Machine) -> None:
    """A move takes away one of the files that a permission is about."""
    path = spec(
        machine,
        "directories: {o: {path: D/out}, i: {path: D/in}}\n"
        "retention: {r: {path: D/in, older_than: 1h, action: move, to: D/out}}\n"
        "permissions:\n"
        "  p: {path: D/in, recursive: true, file_mode: '0640', after: ['retention:r']}\n"
        "processes: {w: {command: [sleep, '90934'], needs: ['permission:p']}}\n",
    )
    source = machine.base / "t/in"
    source.mkdir(parents=True)
    for name in ("old", "young"):
        (source / name).touch(0o600)
    os.utime(source / "old", (1, 1))
    found = passed(machine, path)
    assert [each for each in found if each[2] != "done"] == []
    assert {ident for ident, _, _ in found} >= {"retention:r", "permission:p", "process:w"}
    assert mode(source / "young") == "0640" and machine.running("sleep 90934")


def test_what_needs_a_step_that_others_overtook_is_done_behind_it(
    machine: Machine, tmp_path: Path
) -> None:
    """Nothing else is done in that pass, and the host is moved right before the step."""
    top = machine.base / "t"
    top.mkdir()
    for name in ("a", "b"):
        (top / name).touch(0o600)
    path = spec(
        machine,
        "permissions: {p: {path: D, recursive: true, file_mode: '0640'}}\n"
        "processes: {w: {command: [sleep, '90935'], needs: ['permission:p']}}\n",
    )
    # The second look is the one before the step.
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import os, reconciler.kinds.permission as kind\n"
        "seen, looks = kind.KIND.observe, []\n"
        "def observe(*given):\n"
        "    looks.append(0)\n"
        f"    if len(looks) == 2: os.remove('{top}/a')\n"
        "    return seen(*given)\n"
        "type(kind.KIND).observe = lambda self, *given: observe(*given)\n"
    )
    machine.environ["PYTHONPATH"] = str(tmp_path)
    machine.reconcile("--once", path, "--json")
    del machine.environ["PYTHONPATH"]
    machine.converged(path)
    assert mode(top / "b") == "0640" and machine.running("sleep 90935")


def test_no_mode_is_set_on_what_is_to_go(machine: Machine) -> None:
    top = machine.base / "t"
    (top / "gone").mkdir(parents=True, mode=0o755)
    (top / "stays").mkdir(mode=0o755)
    path = spec(
        machine,
        "directories: {g: {path: D/gone, state: absent}}\n"
        "permissions:\n"
        "  p: {path: 'D/*', mode: '0700'}\n"
        "  q: {path: D, recursive: true, dir_mode: '0700', exclude: [stays]}\n",
    )
    (gone, *rest) = machine.plan(path)["steps"]
    assert gone["id"] == "directory:g"
    assert "gone" not in str(rest) and machine.plan(path)["notes"] == []
    found = passed(machine, path)
    assert {result for _, _, result in found} == {"done"}
    assert not (top / "gone").exists() and mode(top / "stays") == "0700"
