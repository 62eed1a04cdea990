"""tmux sessions on a real server of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import Machine, compiled, until

from reconciler.kinds.session import KIND

WINDOWS = """
sessions:
  work:
    socket: side
    cwd: {base}
    env: {{GREETING: "it's \\"me\\"; $HOME #S ~ \\\\ é\\tx"}}
    windows:
      - name: edit
        panes:
          - {{command: [sleep, "1001"]}}
          - {{command: "exec sleep 1002", cwd: /}}
      - name: shell
        layout: even-horizontal
        panes: [{{}}, {{command: [sleep, "1003"]}}]
"""


def windows(machine: Machine) -> Path:
    return machine.spec(WINDOWS.format(base=machine.base))


def shown(machine: Machine, form: str, socket: str = "side") -> list[str]:
    return machine.tmux("list-panes", "-a", "-F", form, socket=socket).splitlines()


def test_windows_and_panes_are_made_and_the_second_look_finds_them(machine: Machine) -> None:
    spec = windows(machine)
    machine.once(spec)
    assert (
        shown(machine, "#{session_name}:#{window_name}") == ["work:edit"] * 2 + ["work:shell"] * 2
    )
    until(lambda: len(machine.running("sleep 100")) == 3)
    machine.converged(spec)


def test_the_environment_and_the_folders_arrive_as_written(machine: Machine) -> None:
    machine.once(windows(machine))
    pid = machine.only("sleep 1001")
    greeting = b'GREETING=it\'s "me"; $HOME #S ~ \\ \xc3\xa9\tx'
    assert greeting in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert os.readlink(f"/proc/{pid}/cwd") == str(machine.base)
    pid = machine.only("sleep 1002")
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_dead_panes_are_respawned_and_missing_ones_made(machine: Machine) -> None:
    spec = windows(machine)
    machine.once(spec)
    os.kill(machine.only("sleep 1001"), signal.SIGKILL)
    until(lambda: "1" in shown(machine, "#{pane_dead}"))
    (step,) = machine.plan(spec)["steps"]
    assert [change["field"] for change in step["changes"]] == ["pane edit.0"]
    machine.once(spec)
    machine.converged(spec)
    machine.tmux("kill-window", "-t", "=work:=shell", socket="side")
    until(lambda: not machine.running("sleep 1003"))
    (step,) = machine.once(spec)["steps"]
    assert [change["field"] for change in step["changes"]] == ["pane shell.0", "pane shell.1"]
    machine.converged(spec)
    assert len(shown(machine, "x")) == 4


def test_what_a_person_opened_beside_ours_is_left_alone(machine: Machine) -> None:
    spec = windows(machine)
    machine.once(spec)
    machine.tmux("new-window", "-d", "-t", "=work:", "exec sleep 2001", socket="side")
    machine.tmux("split-window", "-d", "-t", "=work:=edit", "exec sleep 2002", socket="side")
    mine = machine.only("sleep 2001")
    machine.converged(spec)
    os.kill(machine.only("sleep 1001"), signal.SIGKILL)
    until(lambda: machine.steps(spec))
    machine.once(spec)
    assert machine.running("sleep 2001") == [mine]
    machine.once(machine.spec("sessions: {work: {socket: side, state: absent}}"))
    assert machine.running("sleep 2001") == [mine]
    assert not machine.running("sleep 1001")
    machine.converged(machine.spec("sessions: {work: {socket: side, state: absent}}"))


def test_a_session_that_only_holds_processes_has_no_stray_shell(machine: Machine) -> None:
    spec = machine.spec(
        "sessions: {s: {}}\nprocesses:\n"
        "  one: {command: [sleep, '1001'], session: s}\n"
        "  two: {command: [sleep, '1002'], session: s}\n"
    )
    machine.once(spec)
    panes = shown(machine, "#{window_name} #{pane_current_command}", "default")
    assert panes == ["one sleep", "two sleep"]
    # What tmux has closed ends a moment later.
    until(lambda: not machine.running("sleep infinity"))


def test_a_window_can_be_closed_by_hand_and_comes_back(machine: Machine) -> None:
    spec = machine.spec(
        "sessions: {s: {}}\nprocesses: {one: {command: [sleep, '1001'], session: s}}"
    )
    machine.once(spec)
    machine.tmux("kill-window", "-t", "=s:")
    until(lambda: not machine.running("sleep 1001"))
    assert machine.steps(spec) == ["session:s", "process:one"]
    machine.once(spec)
    machine.converged(spec)


@pytest.mark.parametrize("name", ["a b", "ü-wörk", "x'y\"z", "$(touch pwned)", "a;b|c"])
def test_odd_session_names_that_tmux_can_keep(machine: Machine, name: str) -> None:
    quoted = '"' + name.replace('"', '\\"') + '"'
    spec = machine.spec(
        f"sessions: {{s: {{session: {quoted}}}}}\n"
        "processes: {one: {command: [sleep, '1001'], session: s}}"
    )
    done = machine.reconcile("--once", spec)
    if name.startswith("$"):
        assert done.returncode == 65
        return
    assert done.returncode == 0, done.stdout + done.stderr
    machine.converged(spec)
    assert shown(machine, "#{session_name}", "default") == [name]


def test_a_server_that_hangs_is_unknown_and_the_rest_goes_on(machine: Machine) -> None:
    spec = machine.spec(f"sessions: {{s: {{}}}}\ndirectories: {{d: {{path: {machine.base}/d}}}}\n")
    machine.once(spec)
    (machine.base / "d").rmdir()
    server = machine.server()
    os.kill(server, signal.SIGSTOP)
    try:
        report = machine.once(spec, status=1)
    finally:
        os.kill(server, signal.SIGCONT)
    assert [step["id"] for step in report["steps"]] == ["directory:d"]
    assert "did not end within" in report["unknown"][0]["reason"]
    machine.converged(spec)


def test_absent_closes_the_session(machine: Machine) -> None:
    machine.once(windows(machine))
    spec = machine.spec("sessions: {work: {socket: side, state: absent}}")
    (step,) = machine.once(spec)["steps"]
    assert step["verb"] == "delete"
    assert shown(machine, "x") == []
    machine.converged(spec)


def test_absent_leaves_somebody_elses_session(machine: Machine) -> None:
    machine.tmux("new-session", "-d", "-s", "work", "exec sleep 1001")
    machine.converged(machine.spec("sessions: {work: {state: absent}}"))
    assert machine.running("sleep 1001")


@pytest.mark.root
def test_an_account_without_a_shell_is_told_so(machine: Machine) -> None:
    if machine.run("unshare", "-m", "true").returncode:
        pytest.skip("no mount namespace can be had here")
    passwd = machine.base / "passwd"
    lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
    shell = "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    passwd.write_text(shell + "".join(line for line in lines if not line.startswith("root:")))
    spec = machine.spec("sessions: {s: {windows: [{panes: [{}, {command: [sleep, '1004']}]}]}}\n")
    enter = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', passwd)
    words = "the shell of root is /usr/sbin/nologin; write a command for it"

    def refused() -> bool:  # Unless it takes longer to end than a pass to look.
        done = machine.run(*enter, *machine.argv("--once", spec))
        return done.returncode == 1 and words in done.stdout

    until(refused)
    spec = machine.spec(
        "sessions: {s: {windows: [{panes: [{command: [sh]}, {command: [cat]}]}]}}\n"
    )
    assert machine.run(*enter, *machine.argv("--once", spec)).returncode == 0


@pytest.mark.parametrize(
    ("shell", "pane", "said"),
    [
        ("/usr/sbin/nologin", "{}", True),
        ("/bin/bash", "{}", False),
        ("/usr/sbin/nologin", "{command: [cat]}", False),
    ],
)
def test_only_a_shell_that_nobody_has_is_named_as_the_cause(
    machine: Machine, shell: str, pane: str, said: bool
) -> None:
    text = f"version: 1\nname: demo\nsessions: {{s: {{windows: [{{panes: [{pane}]}}]}}}}\n"
    (resource,) = compiled(machine.base, text).resources
    account = SimpleNamespace(name="somebody", shell=shell)
    host: Any = SimpleNamespace(users=SimpleNamespace(account=lambda _: account))
    assert (KIND.evidence(resource, host) is not None) is said


def test_a_folder_that_tmux_would_take_for_a_style_is_refused(machine: Machine) -> None:
    """It would start there without a word in another one."""
    folder = machine.base / "a#[fg=red]b"
    folder.mkdir()
    spec = machine.spec(f"sessions: {{s: {{cwd: '{folder}', command: [sleep, '1005']}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert f"{folder} to start in has '#[' in its name" in step["error"]
    assert machine.steps(spec) == ["session:s"]


def leaving(machine: Machine, number: int, **fields: str) -> str:
    """A session whose pane starts something that leaves it; the number tells it from others."""
    command = f"setsid sleep {machine.mark}{number} & exec sleep {machine.mark}9"
    more = "".join(f", {name}: {value}" for name, value in fields.items())
    return (
        f'sessions: {{work: {{windows: [{{name: w, panes: [{{command: "{command}"}}]}}]{more}}}}}\n'
    )


def both_of(machine: Machine, left: str, pane: str) -> tuple[int, int]:
    """What has left the session, and what runs in its pane, once the shell is neither: its own
    line has the text of both."""

    def apart() -> tuple[int, int] | None:
        found = machine.running(left), machine.running(pane)
        if [len(one) for one in found] == [1, 1] and found[0] != found[1]:
            return found[0][0], found[1][0]
        return None

    first, second = until(apart)
    return int(first), int(second)


def test_what_a_pane_has_started_ends_with_it_wherever_it_went(machine: Machine) -> None:
    left, pane = f"sleep {machine.mark}1", f"sleep {machine.mark}9"
    spec = machine.spec(leaving(machine, 1))
    machine.once(spec)
    first, running = both_of(machine, left, pane)
    os.kill(running, signal.SIGKILL)
    until(lambda: machine.steps(spec) == ["session:work"])
    assert machine.running(left) == [first]
    machine.once(spec)
    second, _ = both_of(machine, left, pane)
    assert second != first
    # What a person starts in a window of his own in that session is not ours.
    own = f"sleep {machine.mark}5"
    machine.tmux("new-window", "-t", "work", f"setsid {own} & exec sleep {machine.mark}6")
    both_of(machine, own, f"sleep {machine.mark}6")
    machine.once(machine.spec(leaving(machine, 1, state="absent")))
    assert not machine.running(left) and not machine.running(pane)
    assert len(machine.running(own)) == 1


def test_kill_tree_can_be_switched_off(machine: Machine) -> None:
    left = f"sleep {machine.mark}1"
    machine.once(machine.spec(leaving(machine, 1, kill_tree="false")))
    first, _ = both_of(machine, left, f"sleep {machine.mark}9")
    machine.once(machine.spec(leaving(machine, 1, kill_tree="false", state="absent")))
    assert machine.running(left) == [first]
