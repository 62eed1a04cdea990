"""A loop that runs short of something that every other program takes for granted."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest
from looping import cpu_time, descriptors
from support import Machine, late, until, within

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.clock import Clock
from reconciler.host.command import run
from reconciler.host.processes import look_up
from reconciler.state.store.base import Base


def test_it_paces_what_dies_when_nothing_can_be_remembered(
    machine: Machine, looping: Any, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    command = f"date +%s.%N >> {starts}; sleep 0.1; exit 1"
    spec = machine.spec(f'processes: {{bad: {{command: [sh, -c, "{command}"]}}}}')
    store = machine.state / "demo" / "store.db"
    for mode in ("--pause", "--resume"):
        assert machine.reconcile(mode, "process:bad", spec).returncode == 0
    with store.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")  # Whoever writes to it is told that this cannot be.
    looping(spec).up()
    # The first goes free; then pauses of 1 s, 2 s and 4 s.
    times = until(
        lambda: starts.exists() and (lines := starts.read_text().split("\n"))[4:] and lines
    )
    assert float(times[3]) - float(times[0]) > 2.5


def test_few_descriptors_make_it_slower_to_learn_of_ends_and_no_more(
    machine: Machine, looping: Any
) -> None:
    words = (f"  p{number}: {{command: [sleep, '60611']}}\n" for number in range(60))
    spec = machine.spec("loop: {every: 1s}\nprocesses:\n" + "".join(words))
    limited(machine, "ulimit -n 64")
    machine.once(spec)
    loop = looping(spec)
    loop.up()
    loop.full_pass()
    loop.rest()
    assert descriptors(loop.pid) < 48
    ours = [pid for pid, line in machine.ours().items() if "60611" in line]
    for pid in ours[::6]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: sum(name == "step" for name in loop.names()) == 10)
    used = cpu_time(loop.pid)
    loop.full_pass()
    assert not late(cpu_time(loop.pid) - used, 0.5)
    assert sum("60611" in line for line in machine.ours().values()) == 60
    assert set(loop.names()) == {"begin", "limit", "step"}
    (said,) = (event["text"] for event in loop.events() if event["event"] == "limit")
    assert "no more than 64 files may be open; raise that limit (ulimit -n, or LimitNOFILE=" in said


def test_a_loop_opens_what_it_may_and_its_children_keep_their_limits(
    machine: Machine, looping: Any
) -> None:
    """However few its caller has allowed by default, it learns of every end."""
    said = machine.base / "said"
    real = machine.base / "fakes/crontab"
    real.rename(machine.base / "crontab")
    machine.fake("crontab", f"ulimit -Sn >> {said}; exec {machine.base}/crontab")
    mark = f"worker-{uuid.uuid4().hex}"
    command = f"[sh, -c, 'sleep 600; :', {mark}]"
    spec = machine.spec(
        f"loop: {{every: 1h}}\nprocesses: {{p: {{command: {command}, instances: 60}}}}\n"
        "cron: {c: {schedule: '0 0 1 1 *', command: 'true'}}\n"
        f"checks: {{k: {{command: 'ulimit -Sn > {machine.base}/check', every: 1h}}}}\n"
    )
    limited(machine, "ulimit -Sn 64; ulimit -Hn 4096")
    loop = looping(spec).up()
    until(lambda: len(machine.running(mark)) == 60 and descriptors(loop.pid) > 60)
    pids = machine.running(mark)
    for pid in pids[-3:]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(machine.running(mark)) - set(pids)) == 3)
    assert "limit" not in loop.names()
    assert resource.prlimit(loop.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    assert set(said.read_text().split()) == {"64"}
    # What is started has that of process 1, as far as root's rights reach.
    (worker,) = set(map(_limit, pids[:5]))
    if not os.path.isdir("/run/systemd/system"):
        (line,) = (
            one for one in Path("/proc/1/limits").read_text().splitlines() if "open files" in one
        )
        first = tuple(int(word) for word in line.split()[3:5])
        assert worker in [first, tuple(min(one, 4096) for one in first)]
    check = machine.base / "check"  # It is there, and empty, before it is written.
    assert until(lambda: check.exists() and check.read_text().split()) == [str(worker[0])]


def limited(machine: Machine, limits: str) -> None:
    """The program is called by a shell that has set these."""
    script = machine.base / "limited/reconcile"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{limits}\nexec {machine.bin}/reconcile "$@"\n')
    script.chmod(0o755)
    machine.bin = script.parent


def _limit(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def test_a_store_for_which_there_is_no_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to it goes on without it, and ends of nothing else than a HostError."""

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    base = Base(str(tmp_path), Clock(), True)
    monkeypatch.setattr("reconciler.host.place.os.link", full)
    with pytest.raises(HostError, match=r"cannot use the store .*: No space left"), base.change():
        pass


def test_what_cannot_be_read_for_want_of_descriptors_has_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(UnknownState):
        look_up(os.getpid())


def test_a_program_that_cannot_be_run_for_want_of_descriptors_keeps_none(
    machine: Machine,
) -> None:
    """What is short for a moment must not be so for good."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = os.listdir("/proc/self/fd")
    with contextlib.ExitStack() as held:
        top = max(map(int, there)) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + 4, before[1]))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        taken: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for room in range(min(6, len(taken))):
            with pytest.raises((HostError, OSError)):
                run(["/bin/true"], timeout=5)
            os.close(taken.pop())
            assert room < 6
        for handle in taken:
            os.close(handle)
    assert len(os.listdir("/proc/self/fd")) == len(there)


def test_it_does_not_matter_that_a_caller_ignores_the_end_of_children(machine: Machine) -> None:
    spec = machine.spec(
        "checks: {c: {command: 'true'}}\nprocesses: {p: {command: [sleep, '60612']}}"
    )
    done = machine.run("env", "--ignore-signal=CHLD", *machine.argv("--once", spec))
    assert done.returncode == 0, done.stderr
    assert any("60612" in line for line in machine.ours().values())


def test_a_locked_store_is_waited_for_once_and_not_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.state.store.base._TIMEOUT", 0.5)
    clock = Clock()
    base = Base(str(tmp_path), clock, True)
    with base.change():
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with within(1.2):
            for _ in range(6):
                with pytest.raises(HostError, match="locked"), base.change():
                    pass
    with base.change():
        pass
