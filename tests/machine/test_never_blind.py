"""A dead worker is back at once, whatever a pass is doing meanwhile, and SIGTERM ends the loop."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from machine.disposable import DisposableHost
from support import LONG, SYSTEM, Machine, allowed, passed, until, within

SOON = 1.0
"""Seconds for a restart, as promised."""
END = 3.0
"""Seconds in which SIGTERM must have ended the loop, as promised."""


def alone(machine: Machine, mark: str) -> int | None:
    """Its number. There is one of it, but for the moment in which it makes its own child."""
    pids = machine.running(mark)
    return pids[0] if len(pids) == 1 else None


def seconds_until(condition: Callable[[], Any]) -> float:
    """How long it took, without what the machine was slow by in that very time."""
    begin, slow = time.monotonic(), 0.0

    def seen() -> Any:
        nonlocal slow
        if time.monotonic() - begin > SOON / 2:
            slow = max(slow, allowed(0.0))
        return condition()

    until(seen)
    return time.monotonic() - begin - slow


class Worker:
    """A worker of this test alone, kept by a loop."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.mark = f"worker-{uuid.uuid4().hex}"
        self.spec = f"w: {{command: [sh, -c, 'sleep 600; :', {self.mark}]}}"

    def pids(self) -> list[int]:
        return self.machine.running(self.mark)

    def killed(self) -> float:
        """Kill it; seconds until another one runs."""
        pid = until(lambda: alone(self.machine, self.mark))
        os.kill(pid, signal.SIGKILL)
        return seconds_until(lambda: any(one != pid for one in self.pids()))


@pytest.fixture
def worker(machine: Machine) -> Worker:
    return Worker(machine)


def at_once(seen: list[float]) -> None:
    """What holds a loop up does so each time, the other tests of a moment do not."""
    assert max(seen) < END and min(seen) < SOON, seen


def back_meanwhile(
    worker: Worker, loop: Looping, busy: Callable[[], Any], lasts: bool = True
) -> None:
    """While the loop is busy, a worker that is killed is back; then SIGTERM ends the loop."""
    seen = []
    while len(seen) < 2 or (min(seen) > SOON and len(seen) < 4):
        until(busy)
        seen.append(worker.killed())
        assert not lasts or busy(), "it was not busy any more, so nothing was shown"
        # Its restart policy must not be what it waits for.
        passed(1.1)
    at_once(seen)
    with within(END):
        assert loop.end() == 0
    # That is no failure of the pass, and nobody is alarmed.
    assert "error" not in loop.names()


HEAD = "version: 1\nname: demo\nloop: {every: 300ms}\nprocesses:\n  "
RESTART = ", restart: {healthy_after: 1s, backoff: {initial: 10ms}}}\n"


def spec_of(machine: Machine, worker: Worker, more: str) -> Path:
    return machine.spec(f"{HEAD}{worker.spec[:-1]}{RESTART}{more}")


def test_a_command_behind_a_rotation(machine: Machine, worker: Worker, looping: Any) -> None:
    mark = f"slow-{uuid.uuid4().hex}"
    logs = machine.base / "logs"
    logs.mkdir()
    spec = spec_of(
        machine, worker,
        f"retention: {{r: {{path: {logs}, match: '*.log', max_file: 1KiB, action: rotate,\n"
        f"  run: [sh, -c, 'sleep 600; :', {mark}]}}}}\n",
    )  # fmt: skip
    loop = looping(spec).up()
    (logs / "a.log").write_bytes(bytes(5000))
    back_meanwhile(worker, loop, lambda: machine.running(mark))
    # What it was doing has ended with it.
    until(lambda: not machine.running(mark))


@pytest.mark.parametrize("action", ["archive", "rotate"])
def test_a_rotation_and_an_archive(
    machine: Machine, worker: Worker, looping: Any, action: str
) -> None:
    """Compressing is slowed down by the size of what is compressed: noise, which takes long."""
    logs = machine.base / "logs"
    logs.mkdir()
    rules = {
        "archive": f"older_than: 1h, action: archive, to: {machine.base}/a.tar.gz",
        "rotate": "max_file: 1KiB, action: rotate",
    }
    more = f"retention: {{r: {{path: {logs}, match: '*.log', {rules[action]}}}}}\n"
    spec = spec_of(machine, worker, more)
    noise = os.urandom(1 << 20)
    with open(logs / "a.log", "wb") as file:
        for _ in range(600):
            file.write(noise)
    os.utime(logs / "a.log", (1, 1))
    loop = looping(spec)
    until(worker.pids)

    def busy() -> bool:
        return any(f.name.startswith(".") for f in machine.base.iterdir()) or _unnamed(loop)

    back_meanwhile(worker, loop, busy)
    # What it had begun is undone, and nothing is lost.
    (left,) = (one for one in logs.iterdir() if one.stat().st_size)
    assert (left.suffix, left.stat().st_size) == (
        ".log" if action == "archive" else ".1", 600 << 20
    )  # fmt: skip
    assert not (machine.base / "a.tar.gz").exists()


def _unnamed(loop: Looping) -> bool:
    """Has a child of the loop a file open that has no name yet?"""
    for pid in _children(loop.pid):
        folder = f"/proc/{pid}/fd"
        links = []
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):  # It has just closed that one.
                    links.append(os.readlink(f"{folder}/{name}"))
        if any(re.search(r"/#\d+ \(deleted\)$", link) or ".log" in link for link in links):
            return True
    return False


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_a_program_of_the_host_that_hangs(machine: Machine, worker: Worker, looping: Any) -> None:
    mark = f"hangs-{uuid.uuid4().hex}"
    machine.fake("crontab", f"exec sh -c 'sleep 600; :' {mark} #")
    spec = spec_of(machine, worker, "cron: {c: {schedule: '0 0 1 1 *', command: ':'}}\n")
    loop = looping(spec)
    back_meanwhile(worker, loop, lambda: machine.running(mark), lasts=False)
    until(lambda: not machine.running(mark))


@pytest.mark.root
def test_a_file_system_that_does_not_answer(
    machine: Machine, worker: Worker, mute: Callable[..., Path], looping: Any
) -> None:
    there = mute("all")
    spec = spec_of(machine, worker, f"directories: {{d: {{path: {there}/data}}}}\n")
    loop = looping(spec)
    back_meanwhile(worker, loop, lambda: True)


@pytest.mark.root
def test_a_file_system_that_falls_silent_in_the_midst(
    machine: Machine, worker: Worker, mute: Callable[..., Path], looping: Any
) -> None:
    """It answers that it is there, and no more; what hangs cannot be killed, and is one."""
    there = mute("read")
    near = machine.base / "near"
    spec = spec_of(
        machine, worker,
        f"blocks: {{b: {{path: {there}/data/a.log, content: x}}}}\n"
        f"permissions: {{p: {{path: {near}, mode: '0750', needs: []}}}}\n"
        f"directories: {{d: {{path: {near}}}}}\n",
    )  # fmt: skip
    loop = looping(spec)
    back_meanwhile(worker, loop, lambda: True)


@pytest.mark.root
def test_a_loop_leaves_one_that_hangs_and_does_the_rest(
    machine: Machine, mute: Callable[..., Path], looping: Any
) -> None:
    there, near = mute("read"), machine.base / "near"
    spec = machine.spec(
        f"version: 1\nname: demo\nloop: {{every: 300ms}}\n"
        f"blocks: {{b: {{path: {there}/data/a.log, content: x}}}}\n"
        f"directories: {{d: {{path: {near}, needs: [], after: ['block:b']}}}}\n",
    )
    loop = looping(spec)
    until(near.exists)
    passes = loop.passes()
    until(lambda: loop.passes() > passes + 3)
    told = [one["id"] for one in loop.events() if one["event"] == "unknown"]
    assert told == ["block:b"]
    # One that no signal ends is waiting there; no other one was made to wait with it.
    until(lambda: len(_children(loop.pid)) <= 2)
    assert "error" not in loop.names()
    assert loop.end() == 0


@pytest.mark.root
def test_an_include_that_hangs(
    machine: Machine, worker: Worker, mute: Callable[..., Path], looping: Any
) -> None:
    there = mute("read")
    spec = spec_of(machine, worker, "")
    loop = looping(spec).up()
    text = spec.read_text()
    spec.write_text(f"{text}include: [{there}/data/a.log]\n")

    def told() -> int:
        return sum("is not read after" in str(one) for one in loop.events())

    until(told)
    passes = loop.passes()
    until(lambda: loop.passes() > passes + 3)
    assert told() == 1
    back_meanwhile(worker, loop, told)


def test_a_spec_that_takes_long_to_load(machine: Machine, worker: Worker, looping: Any) -> None:
    spec = spec_of(machine, worker, "")
    loop = looping(spec).up()
    many = "".join(
        f"  d{at}: {{path: {machine.base}/d{at}, when: '1 > 2'}}\n" for at in range(5000)
    )
    spec.write_text(f"{spec.read_text()}directories:\n{many}")
    seen, begin = [worker.killed()], time.monotonic()
    while "reloaded" not in loop.names():
        assert time.monotonic() < begin + LONG, loop.output.read_text()
        passed(1.1)
        seen.append(worker.killed())
    at_once(seen)
    assert loop.end() == 0


def test_output_that_nobody_reads(machine: Machine, worker: Worker) -> None:
    said, say = os.pipe()
    # As small as it can be: a page.
    fcntl.fcntl(say, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(say, False)
    while True:
        try:
            os.write(say, b"x" * 512)
        except BlockingIOError:
            break
    os.set_blocking(say, True)
    spec = spec_of(machine, worker, "")
    loop = subprocess.Popen(
        [str(word) for word in machine.argv("--loop", spec)],
        env=machine.environ, stdin=subprocess.DEVNULL, stdout=say, stderr=say,
    )  # fmt: skip
    os.close(say)
    try:
        seen = []
        for _ in range(3):
            seen.append(worker.killed())
            passed(1.1)
        at_once(seen)
        # Somebody reads again: what had to wait is told.
        text: list[bytes] = []
        until(
            lambda: text.append(os.read(said, 65536)) or b"done start process:w" in b"".join(text)
        )
        with within(END):
            loop.terminate()
            loop.wait(LONG)
    finally:
        loop.kill()
        loop.wait()
        os.close(said)


def test_a_terminal_that_is_held(machine: Machine, worker: Worker) -> None:
    """Ctrl-S in the window that it runs in."""
    window, own = os.openpty()
    spec = spec_of(machine, worker, "")
    loop = subprocess.Popen(
        [str(word) for word in machine.argv("--loop", spec)],
        env=machine.environ, stdin=own, stdout=own, stderr=own, start_new_session=True,
    )  # fmt: skip
    os.close(own)
    try:
        until(worker.pids)
        os.write(window, b"\x13")
        seen = []
        for _ in range(3):
            seen.append(worker.killed())
            passed(1.1)
        at_once(seen)
        with within(END):
            loop.terminate()
            loop.wait(LONG)
    finally:
        loop.kill()
        loop.wait()
        os.close(window)


@pytest.mark.parametrize("mode", ["--loop", "--once"])
def test_a_stop_that_takes_its_time_is_gone_on_with(
    machine: Machine, looping: Any, mode: str
) -> None:
    """What was asked to end is not asked again by whoever comes next, and has its time once."""
    mark, asked = f"slow-{uuid.uuid4().hex}", machine.base / "asked"
    ready = machine.base / "ready"
    # Another one must have begun in that time.
    patience = round(allowed(6.5))
    script = f"trap 'echo x >> {asked}' TERM; : >{ready}; while :; do sleep 0.1; done"

    def spec_with(version: str) -> Path:
        return machine.spec(
            f"{HEAD}w: {{command: [sh, -c, {json.dumps(script)}, {mark}, {version}], "
            f"stop: {{timeout: {patience}s}}}}\n"
        )

    loop = looping(spec_with("one")).up()
    first = until(lambda: alone(machine, f"{mark} one"))
    until(ready.exists)
    spec = spec_with("two")
    until(asked.exists)
    begin = time.monotonic()
    with within(END):
        assert loop.end() == 0
    assert first in machine.running(f"{mark} one")
    if mode == "--loop":
        loop = looping(spec).up()
        # It is known to end, and is no drift.
        assert first in machine.running(f"{mark} one")
        assert not [one for one in loop.events() if one["event"] == "step"]
        until(lambda: machine.running(f"{mark} two"))
    else:
        machine.once(spec)
    took = time.monotonic() - begin
    assert not machine.running(f"{mark} one")
    assert until(lambda: alone(machine, f"{mark} two"))
    assert asked.read_text() == "x\n"
    # It had its seconds once: begun anew, it would have had those before, too.
    assert took < allowed(patience + SOON)


@pytest.mark.root
@pytest.mark.parametrize("hangs", ["unit", "systemctl"])
def test_a_unit_that_stops_slowly_and_a_systemctl_that_hangs(
    systemd_host: DisposableHost, hangs: str
) -> None:
    host, mark = systemd_host, f"slow-{uuid.uuid4().hex}"

    def spec_with(argument: str) -> None:
        text = (
            f"[Service]\nExecStart=/bin/sleep 100{argument}\n"
            f"ExecStop=/bin/sh -c 'sleep 60; :' {mark}\nTimeoutStopSec=90\n"
        )
        unit = {"unit": "slow.service", "content": text, "active": True}
        worker = {"command": ["sh", "-c", "sleep 600; :", f"{mark}-worker"],
                  "restart": {"healthy_after": "1s", "backoff": {"initial": "10ms"}}}  # fmt: skip
        host.write("/srv/slow.yaml", json.dumps(
            {"version": 1, "name": "slow", "loop": {"every": "1s"},
             "processes": {"w": worker}, "units": {"slow": unit}}
        ))  # fmt: skip

    def worker() -> int | None:
        found = host.running(f"{mark}-worker")
        return found[0] if len(found) == 1 else None

    spec_with("1")
    loop = subprocess.Popen(
        host.argv(host.bin / "reconcile", "--loop", "/srv/slow.yaml",
                  environ={"PATH": f"/srv/fakes:{SYSTEM}"}),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        host.until(lambda: host.running("/bin/sleep 1001"))
        if hangs == "systemctl":
            host.write(
                "/srv/fakes/systemctl", f"#!/bin/sh\nexec sh -c 'sleep 60; :' {mark}\n", mode=0o755
            )
        else:
            spec_with("2")
        busy = f"sleep 60; : {mark}"
        host.until(lambda: host.running(busy))
        seen: list[float] = []
        while len(seen) < 2 or (min(seen) > SOON and len(seen) < 4):
            pid = host.until(worker)
            host.run("kill", "-9", str(pid))
            seen.append(seconds_until(lambda one=pid: worker() not in (None, one)))
            assert hangs == "systemctl" or host.running(busy)
            passed(1.1)
        at_once(seen)
    finally:
        loop.kill()
        loop.wait()
