"""The watchdog as process 1 of a container, by a real OCI runtime."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from machine.container import Container
from machine.possible import why_not
from support import Machine, allowed, compiled, late, passed, until

from reconciler.core.plan import ending
from reconciler.watchdog.shutdown import deadlines

RECONCILE = Path(sys.executable).parent / "reconcile"
STATE = ("--state-dir", "/tmp/state")
HEAD = "version: 1\nname: app\nprocesses:\n"
# It says when it comes up, and when it ends.
SERVICE = """  {name}:
    command: >-
      trap 'echo {name} ends; {end}' TERM; echo {name} up; while :; do sleep .1; done
    log: /dev/stdout
    needs: [{needs}]
"""
pytestmark = [pytest.mark.root, pytest.mark.namespaces]


def service(name: str, needs: str = "", end: str = "exit 0") -> str:
    return SERVICE.format(name=name, needs=needs, end=end)


class World:
    """A container and its volume, which belongs to a user who is in no database there."""

    def __init__(self, container: Container, volume: Path, mark: str) -> None:
        self.box, self.volume, self.mark = container, volume, mark

    def spec(self, text: str) -> None:
        path = self.volume / "app.yaml"
        path.write_text(HEAD + text)
        os.chown(path, 1000, 1000)

    def loop(self, up: str = "app up", init: Sequence[str] = (), **how: Any) -> None:
        argv = (*init, RECONCILE, "--loop", "/volume/app.yaml", *STATE)
        self.box.start(*argv, lent={"/volume": self.volume}, **how)
        until(lambda: up in self.box.output or self.box.has_ended)
        assert up in self.box.output, self.box.output

    def ends(self) -> list[str]:
        lines = self.box.output.splitlines()
        return [line.removesuffix(" ends") for line in lines if line.endswith(" ends")]


@pytest.fixture
def world(machine: Machine) -> Iterator[World]:
    if reason := why_not("crun"):
        pytest.skip(reason)
    bundle, volume = machine.base / "bundle", machine.base / "volume"
    for path in (bundle, volume):
        path.mkdir()
    os.chown(volume, 1000, 1000)
    with Container(bundle, machine.mark) as container:
        yield World(container, volume, machine.mark)


def test_as_somebody_unknown_over_a_root_that_cannot_be_written(world: World) -> None:
    orphans = """  orphans:
    command: [sh, -c, "while :; do setsid sh -c 'sleep .1 &'; sh -c 'sleep .1 & exec true'; done"]
"""
    text = service("db") + service("app", "process:db") + orphans
    # What keeps a spec elsewhere starts nothing here, where it is kept already.
    world.spec(text + "include: [watchdog]\n")
    world.loop()
    # Of those that fall to process 1 none stays dead; some are at any moment.
    until(lambda: any(pid > 200 for pid in world.box.processes()))

    def dead() -> set[int]:
        return {pid for pid, line in world.box.processes().items() if "defunct" in line}

    before = dead()
    until(lambda: not before & dead())
    said = world.box.run(RECONCILE, "--diagnose", "/volume/app.yaml", *STATE, "--json").stdout
    found = json.loads(said)
    assert [one["sort"] for one in found["reboot"]["runners"]] == ["container"]
    assert (found["wrong"], found["reboot"]["setup"]) == ([], [])
    plan = world.box.run(RECONCILE, "--plan", "/volume/app.yaml", *STATE)
    assert "Nothing to do" in plan.stdout
    assert world.box.stop(allowed(10.0)) == 0
    assert world.ends() == ["app", "db"]


def test_root_in_a_volume_of_somebody_else(world: World) -> None:
    """It believes an account that is named, and what cannot be renamed is written in place."""
    world.spec(
        service("app")
        + 'files:\n  hosts: {path: /etc/hosts, mode: "0640", content: "10.0.0.1 db\\n"}\n'
        + "blocks:\n  name: {path: /etc/hostname, content: of a block}\n"
    )
    lent = {"/volume": world.volume}
    for path in ("/etc/hosts", "/etc/hostname"):
        lent[path] = world.volume.parent / os.path.basename(path)
        lent[path].write_text("what was there, and is longer than what comes\n")
    argv = [RECONCILE, "--loop", "/volume/app.yaml", *STATE]
    world.box.start(*argv, uid=0, lent=lent)
    assert world.box.wait() == 65
    assert "add: --trust 1000" in world.box.output
    hosts, name = lent["/etc/hosts"], lent["/etc/hostname"]
    inodes = [path.stat().st_ino for path in (hosts, name)]
    world.box.start(*argv, "--trust", "1000", uid=0, lent=lent)
    until(lambda: all(word in world.box.output for word in ("app up", "file:hosts", "block:name")))
    assert hosts.read_text() == "10.0.0.1 db\n"
    assert hosts.stat().st_mode & 0o777 == 0o640
    assert name.read_text().startswith("what was there") and "of a block" in name.read_text()
    assert [path.stat().st_ino for path in (hosts, name)] == inodes
    assert "failed" not in world.box.output
    plan = world.box.run(RECONCILE, "--plan", *argv[2:], "--trust", "1000", uid=0).stdout
    assert "Nothing to do" in plan
    assert world.box.stop(allowed(10.0)) == 0


INIT = """import os, signal, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
while (ended := os.wait())[0] != child:
    pass
sys.exit(os.waitstatus_to_exitcode(ended[1]))
"""
"""As ``docker run --init`` puts one before the program: it hands on a signal, and ends with it."""


def test_behind_an_init_all_is_stopped_as_well(world: World) -> None:
    world.spec(service("db") + service("app", "process:db"))
    world.loop(init=(sys.executable, "-c", INIT, "--"))
    assert world.box.stop(allowed(10.0)) == 0
    assert world.ends() == ["app", "db"]


def test_one_that_could_not_be_stopped_is_told_by_the_exit_status(world: World) -> None:
    """It is another user's; all others are stopped, and the container has failed."""
    foreign = f"9{world.mark}"
    odd = f"{{command: [sleep, '{foreign}'], match: {{cmdline: 'sleep {foreign}', user: root}}}}"
    world.spec(service("app") + f"  odd: {odd}\n")
    world.loop()
    world.box.run("sh", "-c", f"sleep {foreign} >/dev/null 2>&1 &", uid=0)
    there = ("pgrep", "-xfu", "0", f"sleep {foreign}")
    until(lambda: world.box.run(*there, check=False).returncode == 0)
    assert world.box.stop(allowed(10.0)) == 1
    assert world.ends() == ["app"]
    assert "not all that it manages could be stopped" in world.box.output


@pytest.mark.slow
def test_as_root_of_a_user_namespace(world: World) -> None:
    """As of rootless Podman: whose the root is, nobody knows in there."""
    world.spec(service("app"))
    world.loop(users=True)
    assert world.box.stop(allowed(10.0)) == 0
    assert world.ends() == ["app"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_signals(world: World, number: signal.Signals) -> None:
    world.spec(service("app"))
    world.loop()
    world.spec(service("app") + service("late"))
    world.box.send(signal.SIGHUP)
    until(lambda: "late up" in world.box.output)
    assert world.box.stop(allowed(10.0), number) == 0
    assert sorted(world.ends()) == ["app", "late"]


@pytest.mark.slow
def test_who_does_not_end_takes_no_time_from_others(world: World) -> None:
    """Docker gives ten seconds, which are those of a stop as well."""
    world.spec(service("db") + service("app", "process:db", end="true"))
    world.loop()
    begin = time.monotonic()
    world.box.send(signal.SIGTERM)
    passed(1.0)
    assert world.box.stop() == 0  # Who asks twice is heard once.
    assert not late(time.monotonic() - begin, 10.0)
    assert world.ends()[-1] == "db"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_what_runs_in_sessions_is_told_as_well(world: World) -> None:
    said = "trap 'echo {0} >>/volume/ends; exit' {1}; touch /volume/{0}; while :; do sleep .1; done"
    world.spec(
        f'  app: {{session: s, command: "{said.format("app", "TERM")}"}}\n'
        f'sessions:\n  s: {{command: "{said.format("pane", "HUP")}"}}\n'
    )
    world.loop(up="start process:app", environ={"TMUX_TMPDIR": "/tmp"})
    until(lambda: all((world.volume / name).exists() for name in ("app", "pane")))
    assert world.box.stop(allowed(10.0)) == 0
    assert (world.volume / "ends").read_text() == "app\npane\n"


@pytest.mark.slow
def test_its_end_is_that_of_the_loop(world: World) -> None:
    world.spec(service("app"))
    world.loop()
    loop = min(pid for pid, line in world.box.processes().items() if pid != 1 and "--loop" in line)
    world.box.run("kill", "-KILL", str(loop))
    assert world.box.wait() == 128 + signal.SIGKILL


def test_a_signal_that_comes_before_the_loop_is_not_lost(machine: Machine) -> None:
    """Of process 1 the kernel drops those for which it has no handler."""
    spec = machine.spec(f"processes: {{w: {{command: [sleep, '{machine.mark}']}}}}")
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Of Python itself nothing can be blocked yet: it is stopped as soon as it runs our program.
    program = (
        "import os, signal, sys; import reconciler.cli.main as m; os.kill(1, signal.SIGTERM);"
        "m.entry()"
    )
    argv = [sys.executable, "-c", program, "--loop", spec, "--state-dir", machine.state]
    done = machine.run(*inside, *argv)
    assert done.returncode in (0, 128 + signal.SIGTERM), done.stdout + done.stderr
    assert machine.running(machine.mark) == []


STOPPING = """
import os, signal, sys
from reconciler.host.init import SIGNALS, go_on_as_child
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
go_on_as_child()
def stop(*_):
    os.write(1, b"stops\\n")  # Also where what is below is just being written.
    sys.stdin.readline()
    os._exit(7)
signal.signal(signal.SIGTERM, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
os.write(1, b"up\\n")
signal.pause()
"""


def test_who_asks_for_a_pass_while_all_is_stopped_does_not_end_it(machine: Machine) -> None:
    pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    argv = [sys.executable, "-c", STOPPING, machine.mark]
    with subprocess.Popen(argv, env=machine.environ, text=True, **pipes) as init:
        assert init.stdout is not None
        assert init.stdout.readline() == "up\n"
        init.send_signal(signal.SIGTERM)
        assert init.stdout.readline() == "stops\n"
        for number in (signal.SIGHUP, signal.SIGUSR1):
            init.send_signal(number)
        status = Path(f"/proc/{init.pid}/status")
        until(lambda: "ShdPnd:\t0000000000000000" in status.read_text())
        init.communicate("go on\n")
        assert init.returncode == 7


def test_each_of_a_chain_has_a_time_of_its_own(tmp_path: Path) -> None:
    texts = [
        f"p{n}: {{command: [a], needs: [{f'process:p{n - 1}' if n else ''}]}}" for n in range(4)
    ]
    running = ending(compiled(tmp_path, f"processes: {{{', '.join(texts)}}}").resources)
    found = deadlines(running, 100.0, 10.0)
    assert found == {f"process:p{n}": pytest.approx(109.0 - n) for n in range(4)}
    few = deadlines(running, 0.0, 2.0)
    assert sorted(few.values()) == pytest.approx([0.45, 0.9, 1.35, 1.8])
