"""How often the process table, the records of starts and the store are read, for N and for 10 N.

Times are in the benchmarks; these numbers are exact.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Machine, ends_before_it_is_proved, until

from reconciler.host import process_snapshot
from reconciler.host.clock import Clock
from reconciler.host.exit_watcher import ExitWatcher
from reconciler.host.process_snapshot import Carrier, CarrierCache, ProcessSnapshot
from reconciler.host.processes import ProcessEntry, Processes, look_up

MARK = f"60490.{os.getpid()}9"
"""Of the processes of this run."""
MOST_PASSES = 6
"""Over one process that has ended: three, and some more where the machine is loaded."""
HOOK = """
import json, os, re, sys
def note(what):
    handle = os.open(os.environ["COUNTED"], os.O_WRONLY | os.O_APPEND)
    os.write(handle, (json.dumps([os.getpid(), what]) + chr(10)).encode())
    os.close(handle)
busy = []
def heard(event, given):
    if event not in ("open", "os.listdir", "os.fork") or busy:
        return
    path = given[0] if given else ""
    if event == "open" and not str(path).startswith(("/proc/", os.environ["STATE"])):
        return
    busy.append(1)
    note(f"{event} {path}")
    busy.clear()
sys.addaudithook(heard)
import _sqlite3
connect = _sqlite3.connect
def connected(*given, **more):
    base = connect(*given, **more)
    base.set_trace_callback(lambda words: note("sql " + words))
    return base
_sqlite3.connect = connected
"""


class Counted:
    """What passes do, by kind of thing, with numbers taken out of paths."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.file = folder / "counted"
        (folder / "sitecustomize.py").write_text(HOOK)
        machine.environ |= {
            "PYTHONPATH": str(folder), "COUNTED": str(self.file), "STATE": str(machine.state),
        }  # fmt: skip
        self.forget()

    def forget(self) -> None:
        self.file.write_text("")

    def noted(self) -> list[tuple[int, str]]:
        """What was done so far, each with who did it; the last line may be half written."""
        lines = self.file.read_text().splitlines(keepends=True)
        return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]

    def all(self) -> list[str]:
        return [what for _, what in self.noted()]

    def by_pass(self, pattern: str) -> list[int]:
        """How often each pass, which is a process, has done such a thing."""
        return [*Counter(pid for pid, what in self.noted() if re.search(pattern, what)).values()]

    def of(self, pattern: str) -> int:
        return sum(re.search(pattern, what) is not None for what in self.all())

    def reads(self, pids: set[int], name: str) -> Counter[int]:
        """How often that file of each of these processes was opened."""
        found = (re.fullmatch(rf"open /proc/(\d+)/{name}", what) for what in self.all())
        return Counter(int(one[1]) for one in found if one and int(one[1]) in pids)


@pytest.fixture
def counted(machine: Machine, tmp_path: Path) -> Counted:
    folder = tmp_path / "hook"
    folder.mkdir()
    return Counted(machine, folder)


def daemons(machine: Machine, number: int, more: str = "") -> Path:
    lines = [
        f"  w{at}: {{command: [sleep, '{MARK}{at:03}'], stop: {{timeout: 5s}}{more}}}"
        for at in range(number)
    ]
    return machine.spec("\n".join(["loop: {every: 1h}", "processes:", *lines]))


def pids(machine: Machine) -> set[int]:
    return set(machine.running(f"sleep {MARK}"))


@pytest.mark.parametrize("number", [4, 40])
def test_daemons_are_looked_at_once_each(machine: Machine, counted: Counted, number: int) -> None:
    spec = daemons(machine, number)
    counted.forget()
    machine.once(spec)
    assert counted.of("^os.fork") == number + 1  # One starts them all.
    counted.forget()
    machine.once(spec)
    ours = pids(machine)
    assert len(ours) == number
    assert counted.of(r"os.listdir .*/run$") == 1
    assert counted.of(r"open .*/run/w\d+\.\d+$") == number
    assert counted.reads(ours, "stat") == dict.fromkeys(ours, 1)
    assert not counted.reads(ours, "environ")
    assert counted.of("os.fork") == counted.of("^sql ") == 0

    # Some have ended: the rest of the process table is read three times, whatever their number.
    lost = sorted(ours)[: number // 2]
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not pids(machine) & {*lost})
    counted.forget()
    machine.once(spec)
    kept = ours - set(lost)
    assert set(counted.reads(kept, "environ").values()) == {1}
    # What takes it back, that it was started, and what there is behind it.
    assert counted.of("^sql BEGIN") == 3
    assert counted.of("^sql SELECT .* FROM attempts$") <= 3

    spec.write_text(spec.read_text().replace("{command", "{state: absent, command"))
    ours = pids(machine)
    counted.forget()
    machine.once(spec)
    assert not pids(machine)
    most = max(counted.reads(ours, "environ").values())
    assert most <= 6  # However many are stopped.


def test_what_a_failed_start_has_left_is_not_looked_for_all_the_time(
    machine: Machine, counted: Counted
) -> None:
    number = machine.base / "number"
    with open(counted.file.with_name("sitecustomize.py"), "a") as hook:
        hook.write(ends_before_it_is_proved("process:w", number))
    command = f"echo $$ >{number}; sleep {MARK}888 & sleep 0.05; exit 3"
    spec = machine.spec(f"processes: {{w: {{command: '{command}'}}}}\n")
    counted.forget()
    machine.once(spec, status=1)
    # It may yet leave its session, for half a second.
    assert counted.of("os.listdir /proc$") <= 8
    spec.write_text(spec.read_text().replace("{command", "{state: absent, command"))
    machine.once(spec)
    assert not pids(machine)


@pytest.mark.parametrize("number", [3, 30])
def test_command_lines_are_read_once_for_all_that_match(
    machine: Machine, counted: Counted, number: int, request: pytest.FixtureRequest
) -> None:
    started = [subprocess.Popen(["sleep", f"{MARK}7{at:03}"]) for at in range(40)]
    request.addfinalizer(lambda: [(one.kill(), one.wait()) for one in started])
    marks = [f"{MARK}7{at:03}" for at in range(number)]
    lines = [
        f"  w{at}: {{command: [sleep, '{mark}'], match: {{cmdline: '^sleep {mark}$'}}}}"
        for at, mark in enumerate(marks)
    ]
    spec = machine.spec("\n".join(["processes:", *lines]))
    numbers = [one.pid for one in started]
    matched, others = set(numbers[:number]), set(numbers[number:])
    machine.converged(spec)
    counted.forget()
    machine.once(spec)
    assert counted.reads(others, "cmdline") == dict.fromkeys(others, 1)
    assert counted.reads(others, "stat") == dict.fromkeys(others, 1)
    # What matches is looked at once more, each for itself.
    for name, most in (("cmdline", 2), ("stat", 3)):
        seen = counted.reads(matched, name)
        assert seen.keys() == matched and max(seen.values()) <= most, seen


@pytest.mark.parametrize("number", [2, 20])
def test_ends_at_the_same_time_are_one_change_of_the_store(
    machine: Machine, looping: Callable[..., Any], counted: Counted, number: int
) -> None:
    spec = daemons(machine, number, ", restart: {healthy_after: 1h}")
    loop = looping(spec)
    until(lambda: loop.names().count("step") == number)
    before = until(lambda: pids(machine) if len(pids(machine)) == number else None)
    loop.held(f"process:w{number - 1}")
    loop.full_pass()
    until(lambda: _quiet(counted))
    counted.forget()
    os.kill(min(before), signal.SIGKILL)
    until(lambda: loop.names().count("step") == number + 1 and _quiet(counted))
    # The start, a look whether it has held, and one behind it, or some more on a loaded machine:
    # each reads twice at most.
    for table in ("attempts", "conditions"):
        found = counted.by_pass(f"^sql SELECT .* FROM {table}$")
        assert max(found, default=0) <= 2 and len(found) <= MOST_PASSES, found
    assert counted.of("^sql BEGIN") == 1
    # It has been started by then, by a child of the pass.
    written = next(at for at, what in enumerate(counted.all()) if what.startswith("sql BEGIN"))
    assert sum(what.startswith("os.fork") for what in counted.all()[:written]) >= 2
    assert counted.of("os.fork") <= MOST_PASSES + 5


def test_those_that_end_together_are_told_together(machine: Machine) -> None:
    """The next one ends while the ends before it are noticed: all of them are one pass's work."""
    running = [subprocess.Popen(["sleep", f"{MARK}9{at}"]) for at in range(5)]

    class Ending(Clock):
        def monotonic(self) -> float:
            return 0.0

        def sleep(self, seconds: float) -> None:
            for one in running:
                if one.poll() is None:
                    one.kill()
                    one.wait()
                    return

    watcher = ExitWatcher(Ending())
    entries = [look_up(one.pid) for one in running]
    watcher.watch({f"process:{at}": [e.identity] for at, e in enumerate(entries) if e}, ())
    (descriptor,) = watcher.descriptors()
    assert not select.select([descriptor], [], [], 0)[0]
    Ending().sleep(0)
    assert select.select([descriptor], [], [], 5)[0]
    assert sorted(watcher.tend([descriptor])) == [f"process:{at}" for at in range(5)]
    assert not select.select([descriptor], [], [], 0)[0]
    watcher.close()


def test_who_was_found_to_be_nobodys_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = process_snapshot._carrier

    def noted(entry: ProcessEntry, uid: int) -> Carrier | None:
        read.append(entry.identity.pid)
        return real(entry, uid)

    monkeypatch.setattr(process_snapshot, "_carrier", noted)
    monkeypatch.setattr(process_snapshot, "_YOUNG", 0.0)
    known: CarrierCache = {}
    ProcessSnapshot(known).carriers(os.geteuid())
    assert os.getpid() in read
    read.clear()
    ProcessSnapshot(known).carriers(os.geteuid())
    assert os.getpid() not in read


@pytest.mark.slow
def test_a_loop_reads_the_environment_of_others_once(
    machine: Machine, looping: Callable[..., Any], counted: Counted
) -> None:
    """Of those that run for a while: who is young may yet become another program."""
    me = os.getpid()
    entry = look_up(me)
    assert entry is not None
    until(lambda: Processes(Clock()).age(entry.identity) > 11)
    spec = daemons(machine, 1, ", restart: {healthy_after: 1s}")
    loop = looping(spec)
    for number in (1, 2, 3):
        until(lambda number=number: loop.names().count("step") == number and _quiet(counted))
        os.kill(min(pids(machine)), signal.SIGKILL)
    until(lambda: loop.names().count("step") == 4 and _quiet(counted))
    # Passes beside one another do not know yet what the other has read.
    assert counted.reads({me}, "environ")[me] <= 3


def _quiet(counted: Counted) -> bool:
    """Has nothing been done for a second?"""
    before = counted.file.stat().st_size
    time.sleep(1.0)
    return counted.file.stat().st_size == before


def test_an_idle_loop_makes_no_process_and_reads_each_record_once(
    machine: Machine, looping: Callable[..., Any], counted: Counted
) -> None:
    """Until something is otherwise than it was, whatever that is: a pass looks into it then."""
    spec = daemons(machine, 3, ", restart: {healthy_after: 100ms}")
    spec.write_text(spec.read_text().replace("1h", "250ms"))
    loop = looping(spec)
    ours = pids(machine)

    def passes(number: int) -> None:
        then = loop.passes()
        until(lambda: loop.passes() >= then + number)

    def rests() -> bool:
        counted.forget()
        passes(2)
        return not counted.of("os.fork")

    def disturbed(disturb: Callable[[], object]) -> None:
        until(rests)
        counted.forget()
        disturb()
        until(lambda: counted.of("os.fork"))

    until(lambda: len(pids(machine)) == 3)
    until(rests)
    ours = pids(machine)

    def between() -> int | None:
        """How many passes there were, when none is under way."""
        seen = loop.pulse()
        return seen.done if seen is not None and seen.begun == seen.done else None

    def begin() -> int | None:
        first = between()
        counted.forget()
        return first if between() == first else None

    def end() -> tuple[int, list[str]] | None:
        last, seen = between(), counted.all()
        # Another one may have come while that was read.
        return (last, seen) if last is not None and last == between() else None

    first = until(begin)
    passes(5)
    last, seen = until(end)
    made = last - first
    assert not [one for one in seen if re.search("os.fork|^sql |os.listdir /proc$", one)]
    stats = Counter(one for one in seen if one in {f"open /proc/{pid}/stat" for pid in ours})
    assert len(stats) == 3 and set(stats.values()) == {made}, (stats, made)
    assert len(seen) <= 15 * made, seen

    spec.write_text(spec.read_text().replace("w2: {", "w2: {env: {A: b}, "))
    until(lambda: len(pids(machine)) == 3 and len(pids(machine) - ours) == 1)
    until(rests)
    ours = pids(machine)
    log = loop.folder / "log/w0.log"
    disturbed(lambda: os.truncate(log, 60 << 20))
    os.truncate(log, 0)
    (record,) = (loop.folder / "run").glob("w1.*")
    disturbed(record.unlink)
    assert pids(machine) == ours  # They are known by their marks, too.
