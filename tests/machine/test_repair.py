"""``--repair``: five steps, one command, on a corner of the real machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from looping import Looping
from receiver import Receiver
from support import LONG, Machine, freeze, late, until, within

NAMES = [
    "diagnose",
    "health and fixes",
    "watchdog running",
    "persistence in place",
    "final check",
]
HEAD = "version: 1\nname: demo\nloop: {every: 1h}\n"


def repaired(machine: Machine, spec: Path, status: int = 0) -> dict[str, Any]:
    done = machine.reconcile("--repair", spec, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == status, done.stdout + done.stderr
    assert [step["name"] for step in document["steps"]] == NAMES
    assert "internal error" not in done.stdout
    return document


def changed(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["verb"], one["id"]) for one in document["changed"]]


def small(machine: Machine, command: str = "[sleep, '90800']", more: str = "") -> Path:
    return machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d, mode: '0755'}}}}\n"
        f"processes: {{p: {{command: {command}, cwd: {machine.base}/d, "
        f"stop: {{timeout: 2s}}, restart: {{attempts: 2, retry_every: 1h}}}}}}\n{more}"
    )


def pid_of(machine: Machine, text: str = "sleep 90800") -> int:
    (pid,) = machine.running(text)
    return pid


def started(machine: Machine, text: str = "sleep 90800") -> int:
    """The same, once the shell that has become it has done all that it does before."""
    until(lambda: text in machine.ours().values())
    return pid_of(machine, text)


def test_it_brings_all_up_and_a_second_one_changes_nothing(machine: Machine) -> None:
    check = "checks: {c: {command: [test, -d, d], every: 1h}}\n"
    spec = small(machine, more=check.replace(" d]", f" {machine.base}/d]"))
    found = repaired(machine, spec)
    assert changed(found) == [("create", "directory:d"), ("start", "process:p")]
    assert found["found"] and not found["wrong"]
    assert [one["result"] for one in found["checks"]] == ["ok"]
    pid = pid_of(machine)
    done = machine.reconcile("--repair", spec)
    assert (done.returncode, pid_of(machine)) == (0, pid)
    lines = done.stdout.splitlines()
    for number, name in enumerate(NAMES, 1):
        (begin,) = (n for n, line in enumerate(lines) if line == f"[{number}/5] {name} ...")
        (end,) = (n for n, line in enumerate(lines) if line.startswith(f"[{number}/5] {name}: "))
        assert begin < end
        assert lines[end].endswith(" s]")
    assert lines[-2] == "Nothing was changed."
    assert lines[-1].startswith("All is well. [")
    assert machine.reconcile("--repair", spec, "-q").stdout == ""


def test_what_was_given_up_is_forgiven_and_what_is_paused_is_left_alone(machine: Machine) -> None:
    ready = machine.base / "ready"
    rc = machine.base / "rc"
    command = f"'test -e {ready} && exec sleep 90800'"
    spec = small(machine, command, f"blocks: {{b: {{path: {rc}, content: x}}}}\n")

    def given_up() -> bool:
        machine.reconcile("--once", spec)
        return "gave up" in str(machine.plan(spec)["skipped"])

    until(given_up)
    machine.reconcile("--pause", "block:b", spec, "--reason", "later")
    rc.write_text("")
    ready.touch()
    found = repaired(machine, spec, status=1)  # What is paused would change.
    assert [one["id"] for one in found["forgiven"]] == ["process:p"]
    assert found["forgiven"][0]["attempts"] >= 2
    assert "gave up" in str(found["found"])
    assert changed(found) == [("start", "process:p")]
    assert [(one["id"], one["reason"]) for one in found["paused"]] == [("block:b", "later")]
    assert rc.read_text() == ""
    # It works where it is pasted: on this spec, in this state directory.
    resume = shlex.split(found["paused"][0]["resume"])
    assert resume[1:] == ["--resume", "block:b", str(spec), "--state-dir", str(machine.state)]
    machine.reconcile("--resume", "block:b", spec)
    assert changed(repaired(machine, spec)) == [("create", "block:b")]


def test_a_step_that_fails_stops_nothing_and_the_rest_is_told_with_its_command(
    machine: Machine,
) -> None:
    (machine.base / "file").touch()
    spec = small(machine, more=f"blocks: {{b: {{path: {machine.base}/rc, content: x}}}}\n")
    text = spec.read_text()
    text = text.replace("directories: {", f"directories: {{x: {{path: {machine.base}/file/x}}, ")
    text = text.replace("processes: {", "processes: {ends: {command: 'false'}, ")
    spec.write_text(text)
    found = repaired(machine, spec, status=1)
    assert [step["result"] for step in found["steps"]][1] == "failed"
    verbs = changed(found)
    assert ("start", "process:p") in verbs and ("create", "block:b") in verbs
    wrong = {ident: one["mend"] for one in found["wrong"] for ident in one["ids"]}
    assert wrong.keys() == {"directory:x", "process:ends"}
    assert wrong["process:ends"]
    done = machine.reconcile("--repair", spec, "-q")
    assert done.returncode == 1
    assert "still wrong, most important first:" in done.stdout
    assert "fix it with: " in done.stdout


def test_steps_that_cannot_even_begin_do_not_keep_the_others_from_it(machine: Machine) -> None:
    spec = small(machine, more=f"blocks: {{b: {{path: {machine.base}/rc, content: x}}}}\n")
    machine.once(spec)
    lock = machine.state / "demo/lock"
    lock.unlink()
    lock.symlink_to("/dev/null")
    (machine.base / "d").chmod(0o700)
    found = repaired(machine, spec, status=1)
    errors = [step["error"] for step in found["steps"]]
    assert [error is None for error in errors] == [True, False, True, False, True]
    assert "cannot open the lock" in errors[1]
    assert [one["key"] for one in found["wrong"]] == ["directory:d"]


def test_a_process_that_a_signal_has_stopped_is_started_anew(machine: Machine) -> None:
    spec = small(machine)
    machine.once(spec)
    pid = pid_of(machine)
    freeze(pid)
    assert machine.steps(spec) == []  # It may be meant to be stopped.
    found = repaired(machine, spec)
    assert changed(found) == [("restart", "process:p")]
    assert "it is stopped (SIGSTOP)" in found["changed"][0]["why"]
    assert pid_of(machine) != pid


def test_beside_a_loop_that_is_well_the_loop_mends(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    ready = machine.base / "ready"
    ready.touch()
    spec = small(machine, f"'test -e {ready} && exec sleep 90800'")
    loop = looping(spec).up()
    pid = started(machine)
    ready.unlink()
    os.kill(pid, signal.SIGKILL)
    (machine.base / "d").chmod(0o700)
    until(lambda: "gave up" in machine.reconcile("--plan", spec).stdout)
    ready.touch()
    with within(20):
        found = repaired(machine, spec)
    assert found["forgiven"][0]["id"] == "process:p"
    assert set(changed(found)) <= {("update", "directory:d"), ("start", "process:p")}
    # It is asked, or was faster.
    assert found["by_loop"] or not found["changed"]

    def last() -> tuple[str, str]:
        steps = [one["step"] for one in loop.events() if "process:p" in str(one.get("step"))]
        return steps[-1]["verb"], steps[-1]["result"]

    until(lambda: last() == ("start", "done"))
    assert loop.process.poll() is None
    # What is stopped looks well to the loop.
    pid = started(machine)
    freeze(pid)
    found = repaired(machine, spec)
    assert changed(found) == [("restart", "process:p")]
    assert pid_of(machine) != pid
    assert changed(repaired(machine, spec)) == []
    # And a loop that is stopped is ended, although it has moved a moment ago.
    freeze(loop.pid)
    os.kill(pid_of(machine), signal.SIGKILL)
    until(lambda: not machine.running("sleep 90800"))
    found = repaired(machine, spec)
    assert changed(found) == [("start", "process:p")]
    assert not found["by_loop"]
    assert "is stopped by a signal" in str(found["steps"][1]["notes"])
    assert loop.process.wait(LONG) == -signal.SIGKILL


def test_a_pass_that_is_at_work_is_waited_for(machine: Machine) -> None:
    spec = small(machine)
    machine.once(spec)
    (machine.base / "d").chmod(0o700)
    with open(machine.state / "demo/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        repair = subprocess.Popen(
            machine.argv("--repair", spec, "--json"), env=machine.environ, cwd=machine.base,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert repair.stderr and repair.stdout
        with repair.stderr, repair.stdout:
            until(lambda: "[2/5]" in repair.stderr.readline())
            assert repair.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert repair.wait(LONG) == 0
            assert changed(json.loads(repair.stdout.read())) == [("update", "directory:d")]


def test_a_damaged_store_is_set_aside_and_said(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    spec = small(machine)
    machine.once(spec)
    store = machine.state / "demo/store.db"
    store.write_bytes(b"not a database " * 1000)
    found = repaired(machine, spec)
    assert "was set aside as" in found["store_set_aside"]
    assert [one["key"] for one in found["found"]] == ["store"]
    assert len(list(store.parent.glob("store.db.damaged-*"))) == 1
    assert repaired(machine, spec)["store_set_aside"] is None
    # Also where no pass would look.
    data = store.read_bytes()
    store.write_bytes(data[:4096] + b"nonsense" * ((len(data) - 4096) // 8))
    assert "was set aside as" in repaired(machine, spec)["store_set_aside"]
    loop = looping(spec).up()
    store.write_bytes(b"not a database " * 1000)
    found = repaired(machine, spec)
    assert "aside" in found["store_set_aside"]
    assert len(list(store.parent.glob("store.db.damaged-*"))) >= 2
    assert loop.process.poll() is None


def test_people_are_told_of_every_step(machine: Machine) -> None:
    receiver = Receiver()
    try:
        spec = small(
            machine,
            more="notify: {targets: {all: {url: 'json://"
            f"{receiver.where}/', on: [failed, report]}}}}}}\n",
        )
        repaired(machine, spec)

        def told() -> str:
            text = "\n".join(receiver.bodies())
            if "repair: all is well" in text:
                return text
            # A machine that is too slow for the time of a delivery makes good for it later.
            with contextlib.closing(sqlite3.connect(machine.state / "demo/store.db")) as base, base:
                base.execute("UPDATE outbox SET due = 0")
            machine.once(spec)
            return ""

        text = until(told)
    finally:
        receiver.down()
    # One by one, or several in one message: each is told, in order.
    expected = [
        words
        for number, name in enumerate(NAMES, 1)
        for words in (
            f"repair step {number} of 5 started: {name}",
            f"repair step {number} of 5 finished: {name}: ",
        )
    ]
    expected.append("repair: all is well")
    assert "2 changed: create directory:d, start" in text
    places = [text.find(words) for words in expected]
    assert -1 not in places and places == sorted(places), text


def test_what_a_check_asks_for_is_done_when_only_the_check_knows(machine: Machine) -> None:
    """The process runs and has no heartbeat: that it does not answer only a check can tell."""
    told, well = machine.base / "told", machine.base / "well"
    check = (
        f"checks: {{c: {{command: 'test -e {well}', every: 1h, failures: 3,\n"
        f"  on_failure: [restart process:p, 'run touch {told}', notify]}}}}\n"
    )
    spec = small(machine, f"'touch {well}; exec sleep 90800'", check)
    machine.reconcile("--once", spec)  # It may be asked before it is well.
    pid = started(machine)
    repaired(machine, spec)
    assert pid_of(machine) == pid
    assert not told.exists()
    well.unlink()
    # It has failed once only, and is asked again in an hour.
    machine.once(spec)
    assert pid_of(machine) == pid
    found = repaired(machine, spec)
    assert changed(found) == [("restart", "process:p"), ("update", "check:c")]
    assert found["changed"][0]["why"].startswith("check:c: exit status 1")
    assert pid_of(machine) != pid and told.exists()
    assert changed(repaired(machine, spec)) == []


def test_the_loop_starts_anew_what_does_not_answer(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    well = machine.base / "well"
    check = (
        f"checks: {{c: {{command: 'test -e {well}', every: 1h, failures: 3,\n"
        "  on_failure: [restart process:p, 'run false']}}\n"
    )
    spec = small(machine, f"'touch {well}; exec sleep 90800'", check)
    loop = looping(spec).up()
    pid = started(machine)
    well.unlink()
    found = repaired(machine, spec)
    assert found["by_loop"] and changed(found) == [("restart", "process:p")]
    assert pid_of(machine) != pid
    assert loop.process.poll() is None
    assert changed(repaired(machine, spec)) == []


def test_what_another_pass_of_the_loop_has_in_hand_is_waited_for(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    """The loop notices at once what repair has ended, and may be slow to start it."""
    slow, hooks = machine.base / "slow", machine.base / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import os, sys, time\nimport reconciler.core.apply\n"
        "apply = sys.modules['reconciler.core.apply']\n"
        "def act(runs, *more):\n"
        f"    if any(one.step.id == 'process:p' for one in runs) and os.path.exists('{slow}'):\n"
        "        time.sleep(2)\n"
        "    before(runs, *more)\n"
        "before, apply._act = apply._act, act\n"
    )
    spec = small(machine)
    loop = looping(spec, PYTHONPATH=str(hooks)).up()
    pid = machine.only("sleep 90800")
    freeze(pid)
    slow.touch()
    found = repaired(machine, spec)
    assert found["by_loop"] and changed(found) == [("restart", "process:p")]
    assert pid_of(machine) != pid
    assert loop.process.poll() is None


def test_what_nobody_has_started_is_not_waited_for(machine: Machine) -> None:
    """A check that is about nothing that was started now does not become well by itself."""
    lines = "disk: {command: ['false']}, other: {command: ['false'], needs: [process:q]}"
    spec = small(machine, more=f"checks: {{{lines}}}\n")
    more = "processes: {q: {command: [sleep, '90801']}, "
    spec.write_text(spec.read_text().replace("processes: {", more))
    machine.reconcile("--once", spec, "--only", "process:q")
    found = repaired(machine, spec, status=1)
    assert ("start", "process:p") in changed(found)
    assert {one["key"] for one in found["wrong"]} >= {"check:disk", "check:other"}
    assert not late(found["steps"][4]["seconds"], 30)


def test_a_check_that_only_tells_is_left_to_a_person(machine: Machine) -> None:
    check = f"checks: {{c: {{queue: {{path: {machine.base}/d, max_count: 0}}}}}}\n"
    spec = small(machine, more=check)
    machine.once(spec)
    pid = pid_of(machine)
    (machine.base / "d/x").touch()
    found = repaired(machine, spec, status=1)
    assert changed(found) == [] and pid_of(machine) == pid
    (wrong,) = found["wrong"]
    assert (wrong["key"], wrong["by"]) == ("check:c", "person")
    assert wrong["mend"] == f"ls -ltr {machine.base}/d | head -n 20"
