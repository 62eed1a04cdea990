"""A tmux server whose socket somebody has removed runs on, and is not taken for none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support import Machine, until

from reconciler.host import lost_server

SPEC = """
sessions:
  s: {{windows: [{{name: w, panes: [{{command: [sleep, "{0}1"]}}, {{}}]}}]}}
  t: {{}}
processes:
  p: {{command: [sleep, "{0}2"], session: t}}
"""
MARK = "6650"


def made(machine: Machine) -> tuple[Path, int]:
    """The spec, and the number of the server that runs it."""
    spec = machine.spec(SPEC.format(MARK))
    machine.once(spec)
    # A pane becomes its program a moment later.
    until(lambda: len(machine.running(f"sleep {MARK}")) == 2)
    return spec, int(machine.tmux("display-message", "-p", "#{pid}"))


def answers(machine: Machine, server: int) -> None:
    """Wait until it listens again; the socket of one that has ended may still be there."""
    until(lambda: machine.tmux("display-message", "-p", "#{pid}").strip() == str(server))


def folder(machine: Machine) -> Path:
    return machine.sockets / f"tmux-{os.getuid()}"


def remedy(machine: Machine, spec: Path) -> tuple[str, str]:
    """Why the session is unknown, and the command that helps."""
    (one,) = (one for one in machine.plan(spec)["unknown"] if one["id"] == "session:s")
    reason, _, command = one["reason"].partition("; fix it with: ")
    return reason, command


def test_a_pass_gets_the_socket_back(machine: Machine) -> None:
    spec, server = made(machine)
    before = machine.running("sleep")
    (folder(machine) / "default").unlink()
    reason, _ = remedy(machine, spec)
    assert f"the tmux server {server} runs, but its socket" in reason
    assert not (folder(machine) / "default").exists()  # A plan changes nothing.
    machine.once(spec)
    machine.converged(spec)
    shutil.rmtree(folder(machine))
    report = machine.once(spec)
    assert report["steps"] == []
    assert stat.S_IMODE(folder(machine).stat().st_mode) == 0o700
    machine.converged(spec)
    assert machine.running("sleep") == before


def test_what_a_plan_says_gets_the_socket_back(machine: Machine) -> None:
    spec, server = made(machine)
    shutil.rmtree(folder(machine))
    machine.run("sh", "-c", remedy(machine, spec)[1])
    answers(machine, server)
    machine.converged(spec)


def test_a_server_that_does_not_answer_is_unknown(machine: Machine) -> None:
    spec, server = made(machine)
    before = machine.running("sleep")
    os.kill(server, signal.SIGSTOP)
    try:
        (folder(machine) / "default").unlink()
        report = machine.once(spec, status=1)
    finally:
        os.kill(server, signal.SIGCONT)
    assert {one["id"] for one in report["unknown"]} == {"session:s", "session:t", "process:p"}
    assert machine.running("sleep") == before
    answers(machine, server)
    machine.converged(spec)


def test_another_server_has_its_name_meanwhile(machine: Machine) -> None:
    spec, server = made(machine)
    before = machine.running("sleep")
    (folder(machine) / "default").unlink()
    machine.tmux("new-session", "-d", "-s", "his", "exec cat")
    report = machine.once(spec, status=1)
    assert report["steps"] == []
    assert machine.running("sleep") == before
    reason, command = remedy(machine, spec)
    assert f"the tmux server {server} has panes of ours" in reason
    machine.tmux("kill-server")
    machine.run("sh", "-c", command)
    answers(machine, server)
    machine.converged(spec)


def test_one_without_ours_is_in_nobodys_way(machine: Machine) -> None:
    machine.tmux("new-session", "-d", "-s", "his", "exec cat")
    (folder(machine) / "default").unlink()
    machine.tmux("new-session", "-d", "-s", "hers", "exec cat")
    spec, _ = made(machine)
    machine.converged(spec)
    assert len(machine.running("cat")) == 2


LISTENS = """
import ctypes, os, socket, sys
os.setuid(int(sys.argv[2]))
ctypes.CDLL(None).prctl(15, sys.argv[3].encode(), 0, 0, 0)
os.makedirs(os.path.dirname(sys.argv[1]))
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
if sys.argv[4] != "bound":
    made.listen()
if sys.argv[4] == "elsewhere":
    assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("uid", "name", "how"),
    [
        (65534, "tmux: server", "listens"),
        (0, "x: server", "listens"),
        (0, "tmux: server", "bound"),
        (0, "tmux: server", "elsewhere"),
    ],
)
def test_nothing_else_is_signalled(machine: Machine, uid: int, name: str, how: str) -> None:
    if how == "elsewhere" and machine.run("unshare", "-m", "true").returncode:
        pytest.skip("no mount namespace can be had here")
    machine.sockets.chmod(0o777)
    argv = [sys.executable, "-c", LISTENS, folder(machine) / "default", str(uid), name, how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            shutil.rmtree(folder(machine))
            machine.sockets.chmod(0o700)
            spec, _ = made(machine)
            machine.converged(spec)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.parametrize("asked", [True, False])
def test_only_what_listens_has_the_name(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Not one that has it only, nor one of which somebody else has written a line there."""
    if not asked:
        monkeypatch.setattr(lost_server, "_asked", lambda: iter(lost_server._written()))
    monkeypatch.chdir(machine.base)
    names = [f"{machine.mark}{end}" for end in "abcd"]
    with socket.socket(socket.AF_UNIX) as listens, socket.socket(socket.AF_UNIX) as bound:
        listens.bind(names[0])
        listens.listen()
        bound.bind(names[1])
        inode = os.fstat(bound.fileno()).st_ino
        with socket.socket(socket.AF_UNIX) as forged, socket.socket(socket.AF_UNIX) as other:
            other.bind(names[3])
            forged.bind(f"x\n0: 2 0 00010000 1 1 {inode} {names[2]}")
            forged.listen()
            number = os.fstat(listens.fileno()).st_ino
            assert lost_server._listening(names) == {f"socket:[{number}]": names[0]}
