"""What a person has paused is left alone; and what a person asks for: status and history."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from machine.screen import Screen
from support import Machine, allowed, changes, until

from reconciler.state.folder import quiet

HEAD = "version: 1\nname: demo\nloop: {every: 1h}\n"


def worker(machine: Machine, text: str = "90410") -> Path:
    return machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d}}}}\n"
        f"processes: {{p: {{command: [sleep, '{text}']}}}}"
    )


def reconcile(machine: Machine, *argv: str | Path, status: int = 0) -> dict[str, Any]:
    done = machine.reconcile(*argv, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def shown(machine: Machine, spec: Path, ident: str, status: int = 0) -> dict[str, Any]:
    document = reconcile(machine, "--status", spec, status=status)
    (one,) = (one for one in document["resources"] if one["id"] == ident)
    return dict(one)


def test_paused_it_is_left_alone_by_every_pass(machine: Machine, looping: Any) -> None:
    spec = worker(machine)
    looping(spec)
    pid = machine.only("sleep 90410")
    until(lambda: not machine.steps(spec))
    said = reconcile(
        machine, "--pause", "process:p", spec, "--reason", "new disk", "--for", "2h", "--stop"
    )
    assert machine.running("sleep 90410") == []
    assert [one["id"] for one in said["paused"]] == ["process:p"]
    assert 7100 < said["paused"][0]["until"] - said["paused"][0]["since"] <= 7200
    report = machine.once(spec)
    assert report["steps"] == []
    assert "paused: new disk" in machine.plan(spec)["skipped"][0]["reason"]
    assert shown(machine, spec, "process:p")["state"] == "paused"
    # Until when stands beside it; that it was started before is no failed start.
    row = machine.reconcile("--status", spec).stdout.partition("  process:p ")[2].splitlines()[0]
    assert re.fullmatch(r" +paused +new disk \(by \w+\), until [-0-9]+ [0-9:]+", row), row
    assert machine.running("sleep 90410") == []
    # Its end does not matter to anybody: the loop starts it at once when it is resumed.
    assert reconcile(machine, "--resume", "process:p", spec)["resumed"][0]["reason"] == "new disk"
    until(lambda: machine.running("sleep 90410"))
    assert machine.running("sleep 90410") != [pid]
    assert shown(machine, spec, "process:p")["state"] == "ok"


def test_what_is_stopped_while_it_comes_up_has_not_failed(machine: Machine, looping: Any) -> None:
    spec = worker(machine, "90411")
    loop = looping(spec)
    until(lambda: machine.running("sleep 90411"))
    reconcile(machine, "--pause", "process:p", spec, "--stop")
    assert machine.running("sleep 90411") == []
    # It would have had to hold for half a second; a later pass tells whether it was missed.
    until(lambda: loop.events()[-1]["time"] + 1.5 < time.time())
    loop.full_pass()
    deeds = reconcile(machine, "--history", spec)["history"]
    assert {(deed["verb"], deed["result"]) for deed in deeds if deed["id"] == "process:p"} == {
        ("start", "done"),
        ("pause", "done"),
        ("stop", "done"),
    }
    # A single pass beside the loop says so, too.
    said = machine.reconcile("--once", spec).stdout
    assert "keeps it as declared" in said
    assert "skipped process:p: paused: no reason given" in said


def test_what_is_paused_is_not_counted_as_declared(machine: Machine) -> None:
    spec = worker(machine, "90412")
    off = f"{{path: {machine.base}/b, when: 'false'}}"
    text = spec.read_text().replace("directories: {", f"directories: {{b: {off}, ")
    assert "b: " in text
    spec.write_text(text)
    machine.once(spec)
    reconcile(machine, "--pause", "process:p", spec, "--stop")
    total = machine.plan(spec)["summary"]["resources"]
    words = f"Nothing to do: {total - 2} resources as declared, 1 paused, 1 skipped."
    words = words.replace("1 resources", "1 resource")
    for mode in ("--plan", "--once"):
        assert machine.reconcile(mode, spec).stdout.splitlines()[-1] == words


def test_a_pause_ends_by_itself(machine: Machine) -> None:
    spec = worker(machine, "90411")
    machine.reconcile("--pause", "process:*", spec, "--for", f"{allowed(4.0):.0f}s")
    assert machine.once(spec)["skipped"]
    until(lambda: machine.plan(spec)["skipped"] == [])
    machine.once(spec)
    assert machine.running("sleep 90411")
    # No pass looks at it any more.
    assert quiet(str(machine.state / "demo"))


def test_what_is_paused_can_be_resumed_when_the_spec_has_lost_it(machine: Machine) -> None:
    spec = worker(machine)
    reconcile(machine, "--pause", "process:p", spec)
    spec.write_text(f"{HEAD}directories: {{d: {{path: {machine.base}/d}}}}\n")
    assert len(reconcile(machine, "--resume", "process:p", spec)["resumed"]) == 1
    assert reconcile(machine, "--resume", "directory:*", spec)["resumed"] == []


def test_what_is_resumed_begins_anew(machine: Machine) -> None:
    gate = machine.base / "gate"
    spec = machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d}}}}\n"
        f"processes: {{p: {{command: test -e {gate} && exec sleep 90414, "
        "restart: {attempts: 1, backoff: {initial: 1h, max: 2h}}}}\n"
    )
    machine.once(spec, status=1)
    gate.touch()
    assert shown(machine, spec, "process:p", status=1)["state"] == "given up"
    assert "retry counter reset" in machine.reconcile("--resume", "process:p", spec).stdout
    assert shown(machine, spec, "process:p")["state"] == "differs"
    machine.once(spec)
    assert machine.running("sleep 90414")
    # Of a part, only that part is told.
    document = reconcile(machine, "--status", spec, "--only", "process:p")
    assert [one["id"] for one in document["resources"]] == ["process:p"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--pause", "process:x"], "did you mean 'process:p'?"),
        (["--pause", "directory:d", "--stop"], "--stop is for processes"),
        (["--pause", "process:p", "--for", "2"], "is not a duration"),
        (["--resume", "nothing"], "matches no resource"),
        (["--history", "--since", "yore"], "--since takes"),
        (["--pause", "process:p", "--status"], "not allowed with"),
    ],
)
def test_wrong_usage_is_told(machine: Machine, argv: list[str], words: str) -> None:
    done = machine.reconcile(*argv, worker(machine))
    assert done.returncode == 64
    assert words in done.stderr


def test_history_tells_what_was_done_and_by_whom(machine: Machine) -> None:
    spec = worker(machine, "90412")
    machine.once(spec)
    (pid,) = machine.running("sleep 90412")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.running("sleep 90412"))
    machine.once(spec)
    deeds = reconcile(machine, "--history", spec)["history"]
    assert [(deed["id"], deed["verb"], deed["result"]) for deed in deeds] == [
        ("directory:d", "create", "done"),
        ("process:p", "start", "done"),
        ("process:p", "start", "done"),
    ]
    assert {deed["by"] for deed in deeds} == {"program"}
    assert [deed["why"] for deed in deeds] == ["missing", "not running", "not running"]
    only = reconcile(machine, "--history", spec, "--only", "process:*", "--since", "1h")["history"]
    assert [deed["id"] for deed in only] == ["process:p", "process:p"]
    assert reconcile(machine, "--history", spec, "--since", "2099-01-01")["history"] == []
    assert "done start process:p: not running" in machine.reconcile("--history", spec).stdout


@pytest.mark.parametrize(
    ("before", "by"),
    [("", "person"), ("setsid -w", "program"), ("setsid -w {0}/cron {0}/run sh {0}/run", "cron")],
)
def test_who_typed_it_is_known_wherever_its_output_goes(
    machine: Machine, before: str, by: str
) -> None:
    shutil.copy("/bin/sh", machine.base / "cron")
    (machine.base / "run").write_text('"$@"; exit $?\n')  # The shell stays until it has ended.
    before = before.format(machine.base)
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    argv = " ".join(f"'{word}'" for word in machine.argv("--once", spec))
    assert (
        Screen(machine, "sh", "-c", f"{before} {argv} </dev/null >{machine.base}/said 2>&1").end()
        == 0
    )
    (deed,) = reconcile(machine, "--history", spec)["history"]
    assert deed["by"] == by


def test_status_tells_how_things_stand(machine: Machine, looping: Any) -> None:
    spec = machine.spec(
        f"{HEAD}directories: {{d: {{path: {machine.base}/d}}, e: {{path: {machine.base}/e}}}}\n"
        "processes:\n"
        "  bad: {command: exit 3, restart: {attempts: 1, backoff: {initial: 1h, max: 2h}}}\n"
        "  good: {command: [sleep, '90413']}\n"
        "sessions: {s: {when: 'false'}}\n"
    )
    machine.once(spec, status=1)
    (machine.base / "e").rmdir()
    states = {one["id"]: one for one in reconcile(machine, "--status", spec, status=1)["resources"]}
    assert {ident: one["state"] for ident, one in states.items()} == {
        "directory:d": "ok",
        "directory:e": "differs",
        "process:bad": "given up",
        "process:good": "ok",
        "session:s": "skipped",
    }
    assert states["process:bad"]["attempts"] == 1
    assert states["process:good"]["pids"] == machine.running("sleep 90413")
    assert abs(states["process:good"]["since"] - (machine.base / "d").stat().st_mtime) < 30
    text = machine.reconcile("--status", spec).stdout
    assert "no watchdog is running" in text
    loop = looping(spec)
    until(lambda: loop.names()[1:])
    alive = reconcile(machine, "--status", spec, status=1)["loop"]
    assert (alive["running"], alive["healthy"], alive["pid"]) == (True, True, loop.process.pid)


def test_status_changes_nothing(machine: Machine) -> None:
    spec = worker(machine)
    machine.once(spec)
    (machine.base / "d").rmdir()
    calls = "execve,rename,renameat2,unlink,unlinkat,mkdir,chmod,fchmod,chown,kill,flock,openat"
    trace = machine.traced(calls, *machine.argv("--status", spec))
    assert changes(trace) == []
