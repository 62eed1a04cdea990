"""Work in a child that is forked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import Machine, open_files, passed, until

from reconciler.base.errors import UnknownState
from reconciler.host import bounded, command, processes, progress
from reconciler.host.child import answer
from reconciler.host.clock import Clock
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.stops import Stops, StopUnderWay


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_what_is_said_to_the_loop_ends_no_child_of_it(free: None, number: signal.Signals) -> None:
    def work() -> bytes:
        os.kill(os.getpid(), number)
        # What it runs is ended by it as any other program.
        return str(subprocess.run(["sh", "-c", f"kill -{int(number)} $$"]).returncode).encode()

    assert answer(work, 20) == str(-number).encode()


def test_what_one_waits_for_a_processor_does_not_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0.0
    over = machine.base / "over"
    until_then = ["/bin/sh", "-c", f"until [ -e {over} ]; do sleep 0.01; done"]

    def starved(pid: int) -> float:
        if waited:
            over.touch()  # It is asked for when the time is over.
        return waited

    monkeypatch.setattr(progress, "starved", starved)
    monkeypatch.setattr(progress, "_deadline", [])

    def works() -> None:
        answer(lambda: subprocess.run(until_then) and b"", 1.0)

    def program() -> None:
        command.run(until_then, timeout=1.0)

    def later() -> None:
        command.run(["/bin/true"], timeout=20.0)

    for work in (works, program, later):
        waited = 0.0
        over.unlink(missing_ok=True)
        if work is later:
            progress.limit_waits(0.0)
        with pytest.raises(UnknownState):
            work()
        waited = 20.0
        work()


def test_how_long_one_has_waited_for_a_processor(machine: Machine) -> None:
    """Itself, or what it waits for."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    spins = "while :; do :; done"
    try:
        some = [
            subprocess.Popen(["sh", "-c", how], env=machine.environ)
            for how in (spins, f"{spins} & wait", "exec sleep 300")
        ]
    finally:
        os.sched_setaffinity(0, before)
    until(lambda: all(progress.starved(one.pid) > 0.3 for one in some[:2]))
    sleeping = some[2].pid
    until(lambda: "(sleep) S" in Path(f"/proc/{sleeping}/stat").read_text())
    waited = progress.starved(sleeping)
    passed(0.1)
    assert progress.starved(sleeping) == waited
    machine.clear()
    for one in some:
        one.wait()
    assert progress.starved(some[0].pid) == 0.0


def test_how_long_one_may_wait_for_a_file_system(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs begins anew."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with subprocess.Popen(["sleep", "300"]) as waiting:
        try:
            stat = Path(f"/proc/{waiting.pid}/stat")
            until(lambda: "(sleep) S" in stat.read_text())
            one = bounded.StallDetector(waiting.pid)
            for clock.now, entered, hung in (
                (0.5, "/x", False), (5.4, "/x", False), (5.5, "/x", True),
                (30.4, None, False), (30.5, None, True),
            ):  # fmt: skip
                assert one.is_hung(entered) is hung
            waiting.send_signal(signal.SIGSTOP)
            until(lambda: ") T" in stat.read_text())
            waiting.send_signal(signal.SIGCONT)

            def runs() -> bool:
                clock.now += 0.5
                return not one.is_hung("/x")

            until(runs)
        finally:
            waiting.kill()


def test_a_stop_leaves_neither_a_descriptor_nor_a_child_that_nobody_has_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over before the child that makes it has come to its end."""
    monkeypatch.setattr(processes, "end_below", lambda pid: time.sleep(0.1))

    def children() -> list[int]:
        return ProcessSnapshot(zombies=True).children.get(os.getpid(), [])

    stops = Stops(Clock(), "*", str(machine.base))
    before, others = open_files(), children()
    with subprocess.Popen(["sleep", "300"]) as one:
        entry = processes.look_up(one.pid)
        assert entry is not None
        wanted = "process:x", [StopUnderWay(entry.identity, "TERM", 10.0)], False
        assert stops.make([wanted]) == [None]

    def gone() -> bool:
        stops.tend(stops.descriptors())
        return not open_files() - before

    until(gone, 5.0)
    assert stops.due() is None
    assert children() == others
