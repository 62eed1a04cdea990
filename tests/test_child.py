"""Work in a child that is forked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import Machine, until

from reconciler.host import bounded, processes
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
    before, others = os.listdir("/proc/self/fd"), children()
    with subprocess.Popen(["sleep", "300"]) as one:
        entry = processes.look_up(one.pid)
        assert entry is not None
        wanted = "process:x", [StopUnderWay(entry.identity, "TERM", 10.0)], False
        assert stops.make([wanted]) == [None]

    def gone() -> bool:
        stops.tend(stops.descriptors())
        return len(os.listdir("/proc/self/fd")) == len(before)

    until(gone, 5.0)
    assert stops.due() is None
    assert children() == others
