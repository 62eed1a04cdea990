"""A program that puts itself into the background is started once, and people are told so."""

from __future__ import annotations

import os
import re
import signal
import sys
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import Machine, passed, until

from reconciler.kinds.process.observed import HOLDS

HEAD = "version: 1\nname: demo\nloop: {every: 100ms}\n"
RESTART = "restart: {attempts: 30, healthy_after: 1s, backoff: {initial: 10ms, max: 20ms}}"


class Daemon:
    """What it is that starts; each start leaves a byte in ``starts``."""

    def __init__(self, machine: Machine, how: str) -> None:
        self.machine = machine
        self.mark = f"daemon-{uuid.uuid4().hex}"
        self.starts = machine.base / "starts"
        self.starts.touch()
        daemon = machine.base / "daemon.py"
        daemon.write_text(
            "import os, sys, time\n"
            "with open(sys.argv[1], 'a') as file:\n    file.write('x')\n"
            "if os.fork():\n    os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork():\n    os._exit(0)\n"
            "time.sleep(600)\n"
        )
        if how == "daemon":
            self.command = f"[{sys.executable}, -S, {daemon}, {self.starts}, {self.mark}]"
        else:
            sleeps = "import time; time.sleep(600)"
            words = f"printf x >> {self.starts}; {sys.executable} -S -c '{sleeps}' {self.mark} &"
            self.command = f'[sh, -c, "{words}"]'

    def pids(self) -> list[int]:
        return self.machine.running(self.mark)

    def count(self) -> int:
        return self.starts.stat().st_size

    def spec(self, more: str = "", restart: str = RESTART) -> Path:
        text = f"{HEAD}processes: {{w: {{command: {self.command}, {restart}{more}}}}}\n"
        return self.machine.spec(text)


@pytest.fixture(params=["daemon", "shell"])
def daemon(machine: Machine, request: pytest.FixtureRequest) -> Daemon:
    return Daemon(machine, request.param)


ADVICE = re.compile(r"it puts itself into the background, where pid \d+ runs; have it stay in the "
                    r"foreground, or say in match")  # fmt: skip


def test_by_a_loop(machine: Machine, daemon: Daemon, looping: Any) -> None:
    loop = looping(daemon.spec()).up()
    until(lambda: "gave_up" in loop.names())
    before = loop.passes()
    (first, *_) = daemon.pids()
    starts = daemon.count()
    until(lambda: loop.passes() > before + 10)
    assert daemon.count() == starts, "what was given up is left"
    # Once; but where a loaded machine has noticed the first end only after the time in which it
    # must hold, that was a run like any other.
    steps = [one for one in loop.events() if one["event"] == "step"]
    done = [one["time"] for one in steps if one["step"]["result"] == "done"]
    assert starts == max(1, len(done))
    assert all(later - then > HOLDS for then, later in pairwise(done))
    # One that was only just forked may be named first.
    texts = [one["text"] for one in loop.events() if ADVICE.search(one["text"])]
    said = {re.sub(r"pid \d+", "pid", text) for text in texts}
    assert len(said) == 2, "of the attempt, and that it is given up"
    # One that has ended there is started anew, and known again for what it is.
    for pid in daemon.pids():
        os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.count() > starts and daemon.pids() and first not in daemon.pids())
    assert loop.end() == 0


def test_by_single_passes(machine: Machine, daemon: Daemon) -> None:
    spec = daemon.spec()
    done = machine.reconcile("--once", spec)
    assert done.returncode == 1
    assert ADVICE.search(done.stdout)
    # The one between it and the one that was started ends in a moment.
    pids = [machine.only(daemon.mark)]
    passed(0.1)  # Longer than the pauses between attempts.
    again = machine.reconcile("--once", spec)
    assert again.returncode == 1
    assert ADVICE.search(again.stdout)
    assert (daemon.pids(), daemon.count()) == (pids, 1)
    assert ADVICE.search(machine.reconcile("--status", spec).stdout)
    # What it says is what helps.
    machine.once(daemon.spec(f", match: {{cmdline: '{daemon.mark}'}}"))
    assert (daemon.pids(), daemon.count()) == (pids, 1)
    machine.converged(spec)
    machine.once(daemon.spec(", state: absent"))
    assert daemon.pids() == []


def test_what_a_crash_has_left_is_no_background(machine: Machine, looping: Any) -> None:
    """Its own session or not: the leader had come up, so it is started anew at once."""
    mark = f"crash-{uuid.uuid4().hex}"
    worker = machine.base / "worker.py"
    worker.write_text(
        "import os, time\n"
        "if not os.fork():\n    os.setsid()\n    time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    spec = machine.spec(
        f"{HEAD}processes: {{w: {{{RESTART}, "
        f"command: [{sys.executable}, -S, {worker}, {mark}]}}}}\n"
    )
    loop = looping(spec).up()
    pids = until(lambda: machine.running(mark) if len(machine.running(mark)) == 2 else None)
    loop.held("process:w")
    leader = next(pid for pid in pids if os.getsid(pid) == pid and _below_init(pid, pids))
    os.kill(leader, signal.SIGKILL)
    until(lambda: len(set(machine.running(mark)) - set(pids)) == 2)
    assert not set(machine.running(mark)) & set(pids)
    assert "gave_up" not in loop.names()


def _below_init(pid: int, pids: list[int]) -> bool:
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return parent not in pids
