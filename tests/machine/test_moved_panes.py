"""What a person does to our panes on a real tmux server: they are known wherever they are."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest
from support import Machine, until

SPEC = """
sessions:
  s:
    windows:
      - {{name: edit, panes: [{{command: [sleep, "{0}1"]}}, {{command: [sleep, "{0}2"]}}]}}
      - {{name: job, panes: [{{command: [sleep, "{0}3"]}}]}}
  t: {{}}
processes:
  p: {{command: [sleep, "{0}4"], session: t}}
"""
MARK = "6631"


def made(machine: Machine) -> Path:
    spec = machine.spec(SPEC.format(MARK))
    machine.once(spec)
    machine.tmux("new-session", "-d", "-s", "his", "exec sleep 66390")
    until(lambda: running(machine) == [*"1234"])  # A pane becomes its program a moment later.
    return spec


def running(machine: Machine) -> list[str]:
    """The last figures of ours that run."""
    return [n for n in "1234" for _ in machine.running(f"sleep {MARK}{n}")]


def pane(machine: Machine, last: str) -> str:
    (pid,) = machine.running(f"sleep {MARK}{last}")
    listed = machine.tmux("list-panes", "-a", "-F", "#{pane_pid} #{pane_id}").split("\n")
    return next(line.split()[1] for line in listed if line.startswith(f"{pid} "))


MOVES = {
    "panes": [
        "break-pane -d -s {2}",
        "move-pane -d -s {2} -t his:",
        "swap-pane -d -s {2} -t {4}",
        "swap-pane -d -s {1} -t {3}",
        "join-pane -d -s {4} -t {1}",
        "resize-pane -Z -t {1}",
        "split-window -d -bf -t {1} 'sleep 66391'",
        "split-window -d -b -t {4} 'sleep 66392'",
    ],
    "to another session": [
        "move-pane -d -s {1} -t his:",
        "move-pane -d -s {2} -t his:",
        "move-pane -d -s {3} -t his:",  # The last one ends its session.
    ],
    "windows": [
        "link-window -d -s {1} -t his:",
        "link-window -d -s {4} -t s:",
        "unlink-window -t s:0",
        "new-session -d -t t -s grouped",
        "set-option -g renumber-windows on",
        "move-window -d -s {3} -t his:9",
        "swap-window -d -s {1} -t {3}",
        "kill-session -t =t",
    ],
    "names": [
        "rename-window -t {1} x",
        "rename-window -t {4} x",
        "rename-session -t s other",
        "rename-session -t t s",
        "rename-session -t other t",
    ],
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_what_a_person_moves_is_not_started_twice(machine: Machine, moves: list[str]) -> None:
    spec = made(machine)
    ids = [pane(machine, number) for number in "1234"]
    before = {number: machine.running(f"sleep {MARK}{number}") for number in "1234"}
    for move in moves:
        done = machine.run("tmux", *shlex.split(move.format("", *ids)))
        assert done.returncode == 0, done.stderr
        assert machine.steps(spec) == (["session:t"] if "kill" in move else [])
    machine.once(spec)
    machine.converged(spec)
    assert {n: machine.running(f"sleep {MARK}{n}") for n in "1234"} == before
    # What died comes back once, and where it was.
    for number in "14":
        os.kill(before[number][0], signal.SIGKILL)
    until(lambda: len(machine.steps(spec)) == 2)
    machine.once(spec)
    machine.converged(spec)
    until(lambda: running(machine) == [*"1234"])
    # And it ends wherever it is, and nothing else.
    absent = machine.spec(
        "sessions: {s: {state: absent}, t: {state: absent}}\n"
        "processes: {p: {command: [sleep, x], session: t, state: absent}}"
    )
    others = machine.running("sleep 6639")
    machine.once(absent)
    until(lambda: running(machine) == [])
    assert machine.running("sleep 6639") == others != []
    machine.converged(absent)


def test_there_is_room_for_a_pane_in_a_window_that_is_small(machine: Machine) -> None:
    spec = made(machine)
    first, second = pane(machine, "1"), pane(machine, "2")
    machine.tmux("resize-window", "-t", first, "-x", "9", "-y", "2")
    machine.tmux("kill-pane", "-t", second)
    until(lambda: running(machine) == [*"134"])
    machine.once(spec)
    machine.converged(spec)
    until(lambda: running(machine) == [*"1234"])


def test_marks_of_older_versions_are_read(machine: Machine) -> None:
    held = "  h: {}\nprocesses:"
    spec = machine.spec(SPEC.format(MARK).replace("processes:", held))
    machine.once(spec)
    until(lambda: running(machine) == [*"1234"])
    form = "#{pane_id} #{@reconcile_window}"
    for line in machine.tmux("list-panes", "-a", "-F", form).splitlines():
        own, window = line.split()
        machine.tmux("set-option", "-w", "-t", own, "@reconcile_window", window)
        for name in ("window", "home", *(["pane"] if window == "holder" else [])):
            machine.tmux("set-option", "-p", "-u", "-t", own, f"@reconcile_{name}")
    for session in "sth":
        machine.tmux("set-option", "-u", "-t", f"={session}:", "@reconcile_session")
        machine.tmux("split-window", "-d", "-b", "-t", f"={session}:", "sleep", "66393")
    machine.converged(spec)
    ended = machine.running(f"sleep {MARK}1") + machine.running(f"sleep {MARK}4")
    for pid in ended:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(machine.steps(spec)) == 2)
    machine.once(spec)
    machine.converged(spec)
    until(lambda: running(machine) == [*"1234"])
    absent = "sessions: {s: {state: absent}, t: {state: absent}, h: {state: absent}}\n"
    absent += "processes: {p: {command: [sleep, x], session: t, state: absent}}"
    machine.once(machine.spec(absent))
    machine.converged(machine.spec(absent))
    # What a person has split off from ours is his.
    until(lambda: len(machine.running("sleep 66393")) == 3)
    until(lambda: not running(machine) and not machine.running("sleep infinity"))


@pytest.mark.parametrize("command", [[], ["sleep", "66394"]], ids=["the same", "another"])
def test_what_a_person_respawns_is_no_process_of_ours(machine: Machine, command: list[str]) -> None:
    spec = made(machine)
    machine.tmux("respawn-pane", "-k", "-t", pane(machine, "4"), *command)
    until(lambda: "process:p" in machine.steps(spec))
    machine.once(spec)
    machine.converged(spec)
    pid = machine.only(f"sleep {MARK}4")
    assert b"RECONCILE_PROCESS" in Path(f"/proc/{pid}/environ").read_bytes()
    assert len(machine.running("sleep 66394")) == len(command) // 2
