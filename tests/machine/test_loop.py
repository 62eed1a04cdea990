"""The loop: what it keeps, what wakes it, and who may act beside it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, until

from reconciler.host.clock import Clock
from reconciler.state.heartbeat import HeartbeatWriter, ask, pulse

HEAD = "version: 1\nname: demo\nloop: {every: 200ms}\n"


def folder(machine: Machine, every: str = "200ms") -> Path:
    head = HEAD.replace("200ms", every)
    return machine.spec(f"{head}directories: {{d: {{path: {machine.base}/d}}}}")


def test_it_keeps_what_is_declared_and_says_so_once(machine: Machine, looping: Any) -> None:
    loop = looping(folder(machine))
    made = machine.base / "d"
    # It looks whether that has helped before it says so.
    until(lambda: "step" in loop.names())
    made.rmdir()
    until(made.is_dir)
    until(lambda: loop.names().count("step") == 2)
    assert loop.end() == 0
    assert loop.names() == ["begin", "step", "step", "end"]
    assert loop.events()[1]["step"]["result"] == "done"


def test_a_signal_asks_for_a_pass_now(machine: Machine, looping: Any) -> None:
    loop = looping(folder(machine, "1h"))
    made = machine.base / "d"
    until(lambda: "step" in loop.names())
    for number in (signal.SIGUSR1, signal.SIGHUP):
        made.rmdir()
        loop.send(number)
        until(made.is_dir)


def test_it_ends_and_what_it_manages_goes_on(machine: Machine, looping: Any) -> None:
    loop = looping(machine.spec(f"{HEAD}processes: {{p: {{command: [sleep, '90210']}}}}"))
    pid = machine.only("sleep 90210")
    until(lambda: "step" in loop.names())
    assert loop.end() == 0
    assert machine.running("sleep 90210") == [pid]
    assert not (machine.state / "demo/loop").exists()


def test_a_broken_spec_is_told_and_the_last_good_one_kept(machine: Machine, looping: Any) -> None:
    spec = folder(machine)
    loop = looping(spec)
    made = machine.base / "d"
    until(made.is_dir)
    for text in ("", "version: 1\nname: demo\ndirectories: {d: {pth: /x}}\n", "\t: ["):
        before = loop.names().count("invalid")
        spec.write_text(text)
        until(lambda seen=before: loop.names().count("invalid") > seen)
        made.rmdir()
        until(made.is_dir)
    spec.write_text(f"{HEAD}directories: {{d: {{path: {machine.base}/other}}}}")
    until((machine.base / "other").is_dir)
    assert "reloaded" in loop.names()
    spec.write_text(spec.read_text().replace("demo", "another"))
    until(lambda: any("its name has become" in event["text"] for event in loop.events()))
    assert made.is_dir()


def test_what_is_unknown_is_told_once_and_when_it_is_known_again(
    machine: Machine, looping: Any
) -> None:
    wrong = machine.base / "d"
    wrong.write_text("a file")
    loop = looping(folder(machine))
    until(lambda: "unknown" in loop.names())
    wrong.unlink()
    until(lambda: "known" in loop.names())
    assert loop.names().count("unknown") == 1


def test_a_pass_beside_a_loop_that_is_well(machine: Machine, looping: Any) -> None:
    spec = folder(machine)
    loop = looping(spec)
    until(lambda: "step" in loop.names())
    done = machine.reconcile("--once", spec)
    assert done.returncode == 0
    assert done.stdout == f"demo: the watchdog (pid {loop.process.pid}) keeps it as declared\n"
    document = json.loads(machine.reconcile("--once", spec, "--json").stdout)
    assert document["busy"] == {"pid": loop.process.pid, "loop": True}
    second = machine.reconcile("--loop", spec)
    assert second.returncode == 75
    assert "this loop does not begin" in second.stderr
    assert loop.process.poll() is None


def test_a_pass_beside_a_loop_says_by_which_variables(machine: Machine, looping: Any) -> None:
    spec = machine.spec("vars: {which: one}\nloop: {every: 1h}\n")
    machine.once(spec, "--set", "which=two")
    looping(spec).up()
    done = machine.reconcile("--once", spec)
    assert done.stdout.endswith("keeps it as declared, with which=two\n"), done.stderr


def test_a_pass_beside_a_loop_asks_it_to_mend_what_differs(machine: Machine, looping: Any) -> None:
    spec = folder(machine, "1h")
    loop = looping(spec)
    until(lambda: "step" in loop.names())
    (machine.base / "d").rmdir()
    done = machine.reconcile("--once", spec, "--detailed-exitcode")
    assert done.returncode == 2, done.stderr
    assert "done create directory:d" in done.stdout
    assert (machine.base / "d").is_dir()
    assert loop.names() == ["begin", "step", "step"]
    trace = machine.traced("all", *machine.argv("--once", spec, "--detailed-exitcode"))
    assert "+++ exited with 0 +++" in trace
    assert "pidfd_send_signal" not in trace


def test_a_loop_that_a_signal_has_stopped_is_not_well(machine: Machine, looping: Any) -> None:
    spec = machine.spec("loop: {every: 1h}\n")
    loop = looping(spec).up()
    status = machine.reconcile("--status", spec, "--json").stdout
    assert json.loads(status)["loop"]["healthy"] is True
    loop.send(signal.SIGSTOP)
    until(
        lambda: (
            not json.loads(machine.reconcile("--status", spec, "--json").stdout)["loop"]["healthy"]
        )
    )
    said = machine.reconcile("--status", spec).stdout
    assert f"the watchdog (pid {loop.pid}) is stopped by a signal" in said
    assert f"kill -CONT {loop.pid}" in said
    assert f"kill -CONT {loop.pid}" in machine.reconcile("--diagnose", spec).stdout


def test_a_loop_that_hangs_is_ended_and_its_work_done(machine: Machine, looping: Any) -> None:
    spec = folder(machine)
    loop = looping(spec)
    made = machine.base / "d"
    until(lambda: "step" in loop.names())
    loop.send(signal.SIGSTOP)
    pulse = machine.state / "demo/loop"
    # As if it had last moved long ago.
    words = pulse.read_text().split()[:7]
    words[3] = "1.0"
    pulse.write_text(" ".join(words))
    made.rmdir()
    done = machine.reconcile("--once", spec)
    assert done.returncode == 0, done.stderr
    assert "has not moved for" in done.stderr
    assert made.is_dir()
    assert loop.process.wait(LONG) == -signal.SIGKILL


def test_a_killed_loop_leaves_nothing_that_stops_the_next(machine: Machine, looping: Any) -> None:
    spec = folder(machine)
    first = looping(spec)
    until(lambda: "step" in first.names())
    first.process.kill()
    first.process.wait()
    assert machine.once(spec)["steps"] == []
    second = looping(spec)
    until(lambda: "begin" in second.names())
    assert second.end() == 0


def test_a_wrong_start(machine: Machine) -> None:
    assert machine.reconcile("--loop", machine.spec("directories: 3")).returncode == 65
    assert machine.reconcile("--loop", folder(machine), "--only", "directory:d").returncode == 64


def test_it_does_not_swell(machine: Machine, looping: Any) -> None:
    loop = looping(folder(machine))
    until(lambda: "step" in loop.names())
    status = Path(f"/proc/{loop.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(line.split()[1]) < 30_000, "kilobytes"
    # In the midst of a pass it has a few more.
    until(lambda: len(os.listdir(f"/proc/{loop.process.pid}/fd")) < 13)


def test_who_supervises_it_hears_of_every_turn(machine: Machine, looping: Any) -> None:
    address = machine.sockets / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(address))
        ear.settimeout(LONG)
        heard: list[str] = []

        def hears(word: str) -> None:
            while not any(line.startswith(word) for line in heard):
                heard.extend(ear.recv(4096).decode().splitlines())
            heard.clear()

        spec = folder(machine, "1h")
        loop = looping(spec, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="2000000")
        hears("READY=1")
        hears("STATUS=1 resources")
        # Twice: also while it has nothing to do.
        hears("WATCHDOG=1")
        hears("WATCHDOG=1")
        before = loop.passes()
        loop.send(signal.SIGHUP)
        hears("RELOADING=1")
        hears("READY=1")
        until(lambda: loop.passes() > before)  # None is under way that would make it anew.
        (machine.base / "d").rmdir()
        (machine.base / "d").write_text("no folder")
        loop.send(signal.SIGUSR1)
        hears("STATUS=1 resources, 1 not as declared")
        loop.send(signal.SIGTERM)
        hears("STOPPING=1")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_at_its_first_moment_ends_no_loop(
    machine: Machine, number: signal.Signals
) -> None:
    spec = folder(machine)
    words = ["reconcile", "--loop", str(spec), "--state-dir", str(machine.state)]
    code = (
        f"import os, sys\nsys.argv = {words!r}\nimport reconciler.cli.main\n"
        f"os.kill(os.getpid(), {int(number)})\nsys.exit(reconciler.cli.main.main())\n"
    )
    loop = subprocess.Popen([sys.executable, "-c", code], env=machine.environ, cwd=machine.base)
    try:
        until((machine.base / "d").is_dir)
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(LONG) == 0
    finally:
        loop.kill()
        loop.wait()


@contextlib.contextmanager
def waiting(machine: Machine, spec: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The lock, and a loop that waits for it."""
    (machine.state / "demo").mkdir(parents=True, mode=0o700)
    lock = os.open(machine.state / "demo/lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    ours = os.fstat(lock).st_ino
    loop = subprocess.Popen(
        machine.argv("--loop", spec), env=machine.environ, cwd=machine.base,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: ours in _open_files(loop.pid))
        yield lock, loop
    finally:
        loop.kill()
        loop.communicate()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_while_it_waits_for_the_lock_ends_no_loop(
    machine: Machine, number: signal.Signals
) -> None:
    with waiting(machine, folder(machine)) as (lock, loop):
        loop.send_signal(number)
        os.close(lock)
        until((machine.base / "d").is_dir)
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(LONG) == 0


def test_what_was_taken_away_while_it_waited_is_not_made_anew(machine: Machine) -> None:
    with waiting(machine, folder(machine)) as (lock, loop):
        shutil.rmtree(machine.state / "demo")
        os.close(lock)
        assert loop.wait(LONG) == 1
        assert loop.stderr is not None
        assert "was removed just now, as --uninstall does; nothing is done" in loop.stderr.read()
    assert not (machine.base / "d").exists() and not (machine.state / "demo").exists()


def _open_files(pid: int) -> set[int]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}/fd/{name}").st_ino)
    return found


class Turned(Clock):
    """A clock that a test turns."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("passes", "in_time"), [(1, False), (2, True)])
def test_a_pass_that_was_under_way_when_the_loop_was_asked_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: int, in_time: bool
) -> None:
    """It may have looked before what it is asked for was so."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    clock = Clock()
    heart = HeartbeatWriter(str(tmp_path), clock)
    heart.begin(60.0)

    def asked(number: int, frame: Any) -> None:
        for _ in range(passes):
            heart.done(60.0, 0.1)
            heart.begin(60.0)

    before = signal.signal(signal.SIGUSR1, asked)
    try:
        loop = pulse(str(tmp_path), clock)
        assert loop is not None
        assert ask(loop, str(tmp_path), clock, 60.0 if in_time else 0.3) is in_time
    finally:
        signal.signal(signal.SIGUSR1, before)
        heart.stop()


def test_a_sign_of_life_has_a_second_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is on a file system that has gone read-only: a healthy loop is not ended."""
    runtime, state, clock = tmp_path / "run", tmp_path / "state", Turned()
    for made in (runtime, state):
        made.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    heart = HeartbeatWriter(str(state), clock)
    heart.beat(1.0)
    first = os.stat(state / "loop").st_ino
    write = os.pwrite

    def refused(handle: int, data: bytes, at: int) -> int:
        if os.fstat(handle).st_ino == first:
            raise OSError(errno.EROFS, "Read-only file system")
        return write(handle, data, at)

    monkeypatch.setattr(os, "pwrite", refused)
    for _ in range(50):
        clock.now += 10.0
        heart.beat(1.0)
    seen = pulse(str(state), clock)
    assert seen is not None
    assert (seen.healthy, seen.age, seen.identity.pid) == (True, 0.0, os.getpid())
    heart.stop()
    assert list((runtime / "reconcile").iterdir()) == []
