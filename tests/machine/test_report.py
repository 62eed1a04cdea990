"""A report that sums up a period, from the loop and from single passes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from looping import Looping
from receiver import Receiver
from stored import stored
from support import Machine, allowed, passed, until

from reconciler import __version__


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


def told(machine: Machine, receiver: Receiver, every: str, on: str = "report") -> Path:
    old = machine.base / "d/old"
    old.mkdir(parents=True)
    return machine.spec(
        "version: 1\nname: demo\nloop: {every: 1h}\n"
        f"notify: {{report_every: {every}, targets: {{all: {{url: 'json://{receiver.where}/', "
        f"on: [{on}]}}}}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
        "processes: {p: {command: [sleep, '90810']}}\n"
        f"retention: {{r: {{path: {old}, older_than: 1h, action: delete}}}}\n"
    )


def age(path: Path, size: int) -> None:
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - 7200,) * 2)


def test_a_loop_sums_up_what_was(
    machine: Machine, looping: Callable[..., Looping], receiver: Receiver
) -> None:
    period = round(allowed(4.0))  # It must hold a start that has come up, and another one.
    spec = told(machine, receiver, f"{period}s")
    age(machine.base / "d/old/1", 3000)
    loop = looping(spec).up()
    until(lambda: stored(machine, "SELECT figures FROM reports"))
    assert receiver.bodies() == []  # Nothing was before it.
    pid = machine.only("sleep 90810")
    # Earlier it would not have come up.
    loop.held("process:p")
    os.kill(pid, signal.SIGKILL)
    (machine.base / "d/new").write_text("x")
    age(machine.base / "d/old/2", 2048)
    os.kill(loop.pid, signal.SIGUSR1)
    until(receiver.bodies)
    lines = receiver.bodies()[0].splitlines()
    assert lines[0].startswith(f"report of {period} s, ")
    assert "nothing needs attention" in lines
    new = machine.only("sleep 90810")
    (runs,) = (line for line in lines if line.startswith("- process:p for "))
    assert runs.endswith(f"(pid {new}); started once (not running)")
    assert "done: 2 steps" in lines
    assert "new files: d 1" in lines
    assert "retention freed 2.0 KiB" in lines
    assert stored(machine, "SELECT sum(freed) FROM history") == [(5048,)]
    # At its own time, whatever the passes do.
    until(lambda: len(receiver.bodies()) >= 2)
    assert receiver.bodies()[1].splitlines()[0].startswith(f"report of {period} s, ")


def told_all(machine: Machine, spec: Path) -> None:
    """A pass, and those that deliver what it has not within its ten seconds."""
    machine.once(spec)
    while stored(machine, "SELECT seq FROM outbox"):
        with contextlib.closing(sqlite3.connect(machine.state / "demo/store.db")) as base, base:
            base.execute("UPDATE outbox SET due = 0")
        machine.once(spec)


def a_while_ago(machine: Machine, seconds: float) -> None:
    """As if the reports of before had been made so much earlier."""
    with contextlib.closing(sqlite3.connect(machine.state / "demo/store.db")) as base, base:
        base.execute("UPDATE reports SET at = at - ?, wall = wall - ?", (seconds, seconds))


def test_single_passes_report_once_after_a_long_pause(machine: Machine, receiver: Receiver) -> None:
    spec = told(machine, receiver, "[1m, 1d]")
    machine.once(spec)
    machine.once(spec)
    a_while_ago(machine, 130.0)
    machine.reconcile("--pause", "process:p", spec, "--reason", "new disk")
    told_all(machine, spec)
    (body,) = receiver.bodies()
    assert "process:p is paused since " in body
    assert "new disk" in body
    rows = stored(machine, "SELECT period FROM reports ORDER BY period")
    assert rows == [(60.0,), (86400.0,)]


def test_a_week_says_what_was_used_and_a_month_has_a_diagnosis(
    machine: Machine, looping: Callable[..., Looping], receiver: Receiver
) -> None:
    """From the loop, whose store is open meanwhile."""
    spec = told(machine, receiver, "[7d, 30d]")
    machine.once(spec)
    a_while_ago(machine, 8 * 86400)
    told_all(machine, spec)
    (week,) = receiver.bodies()
    assert week.startswith("report of 8 d, ")
    (line,) = (line for line in week.splitlines() if line.startswith("- process:p: "))
    assert re.fullmatch(
        r"- process:p: 0\.\d % of a processor, .+ (more|less|as much).* before; at most .+ .iB",
        line,
    )
    assert "program: version" not in week
    a_while_ago(machine, 31 * 86400)
    loop = looping(spec)
    until(lambda: len(receiver.got) == 3)
    assert loop.end() == 0
    (month,) = (body for body in receiver.bodies() if "program: version" in body)
    assert month.startswith("report of 39 d, ")
    lines = month.splitlines()
    at = lines.index(f"program: version {__version__} runs, and is the one that is installed")
    rest = lines[at:]
    for section in ("host:", "disks:", "watchdog:", "processes:", "reboot:"):
        assert section in rest
    assert f"demo ({spec}) on {os.uname().nodename}, " in rest[2]
    figures = stored(machine, "SELECT figures FROM reports WHERE period > 2e6")[0][0]
    assert "diagnosis" not in figures


def test_where_nobody_listens_no_figures_are_gathered(machine: Machine, receiver: Receiver) -> None:
    spec = told(machine, receiver, "1s", on="failed")
    machine.once(spec)
    passed(1.1)
    machine.once(spec)
    assert stored(machine, "SELECT * FROM reports") == []
    assert receiver.got == []


def test_a_diagnosis_has_the_same_numbers(machine: Machine, receiver: Receiver) -> None:
    spec = told(machine, receiver, "1d")
    age(machine.base / "d/old/1", 3000)
    machine.once(spec)
    found = json.loads(machine.reconcile("--diagnose", spec, "--json").stdout)
    period = found["period"]
    assert period["freed"] == 3000
    assert [one["id"] for one in period["processes"]] == ["process:p"]
    assert period["starts"] == [
        {"id": "process:p", "done": 1, "failed": 0, "causes": [{"why": "not running", "count": 1}]}
    ]
    lines = machine.reconcile("--diagnose", spec).stdout.splitlines()
    assert "summary of the last day:" in lines
    assert "  retention freed 2.9 KiB" in lines
