"""Ends go in the reverse order of starts, and each is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from looping import Looping
from support import LONG, Machine, compiled, until

from reconciler.core.plan import ending
from reconciler.host.processes import look_up

SPEC = """
vars: {{ state: present }}
{more}processes:
  db: {{ state: "{{{{ state }}}}", command: [{service}, db]{place} }}
  app: {{ state: "{{{{ state }}}}", command: [{service}, app]{place}, needs: ["process:db"] }}
"""


def service(machine: Machine, word: str = "sleep 0.5") -> Path:
    """A program that says when it has ended, of which the app takes its time for that."""
    path = machine.base / "service"
    path.write_text(
        "#!/bin/sh\n"
        f"trap 'test $1 = app && {word}; echo $1 >> {machine.base}/ended; exit 0' TERM\n"
        f"echo $$ > {machine.base}/$1.new; mv {machine.base}/$1.new {machine.base}/$1.pid\n"
        "while :; do sleep 0.05; done\n"
    )
    path.chmod(0o755)
    return path


def begun(machine: Machine, place: str = "", more: str = "", word: str = "sleep 0.5") -> Path:
    """Both run; nothing is killed that takes its time to end, as on a loaded machine."""
    place += ", stop: { timeout: 1h }"
    spec = machine.spec(SPEC.format(service=service(machine, word), place=place, more=more))
    machine.once(spec)
    for name in ("db", "app"):
        until((machine.base / f"{name}.pid").exists)
    return spec


def ended(machine: Machine) -> list[str]:
    path = machine.base / "ended"
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(
    ("place", "more"),
    [("", ""), (", session: s", 'sessions: { s: { state: "{{ state }}" } }\n')],
    ids=["daemons", "session"],
)
def test_what_needs_another_ends_first(machine: Machine, place: str, more: str) -> None:
    spec = begun(machine, place, more)
    machine.once(spec, "--set", "state=absent")
    assert ended(machine) == ["app", "db"]
    machine.converged(spec, "--set", "state=absent")


def test_what_runs_in_a_pane_ends_before_what_its_session_needs(machine: Machine) -> None:
    program = service(machine)
    program.write_text(program.read_text().replace("TERM", "TERM HUP"))
    text = (
        f'vars: {{ state: present }}\nprocesses:\n  db: {{ state: "{{{{ state }}}}", '
        f'command: [{program}, db] }}\nsessions:\n  s: {{ state: "{{{{ state }}}}", '
        f'needs: ["process:db"], windows: [{{ panes: [{{ command: [{program}, app] }}] }}] }}\n'
    )
    spec = machine.spec(text)
    machine.once(spec)
    for name in ("db", "app"):
        until((machine.base / f"{name}.pid").exists)
    machine.once(spec, "--set", "state=absent")
    assert ended(machine) == ["app", "db"]


def test_a_loop_waits_for_each_end(machine: Machine, looping: Callable[..., Looping]) -> None:
    # Long enough for passes in between, which must not take what is about to end for ended.
    spec = begun(machine, word=f"until test -e {machine.base}/may; do sleep 0.05; done")
    loop = looping(spec).up()
    text = spec.read_text()
    spec.write_text(text.replace("state: present", "state: absent"))
    until(lambda: "process:app" in str(loop.events()))
    for _ in range(3):
        loop.full_pass()
    assert look_up(int((machine.base / "db.pid").read_text())) is not None
    assert ended(machine) == []
    (machine.base / "may").touch()
    until(lambda: ended(machine) == ["app", "db"])


def test_paused_and_stopped_and_uninstalled_in_that_order(machine: Machine) -> None:
    spec = begun(machine)
    done = machine.reconcile("--pause", "process:db", "--pause", "process:app", "--stop", spec)
    assert done.returncode == 0, done.stderr
    assert ended(machine) == ["app", "db"]
    for name in ("db", "app"):
        (machine.base / f"{name}.pid").unlink()
    machine.reconcile("--resume", "*", spec)
    machine.once(spec)
    for name in ("db", "app"):
        until((machine.base / f"{name}.pid").exists)
    done = machine.reconcile("--uninstall", spec)
    assert done.returncode == 0, done.stderr
    assert ended(machine) == ["app", "db"] * 2


@pytest.mark.namespaces
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a PID namespace")
def test_as_process_1_it_ends_them_before_it_ends(machine: Machine) -> None:
    spec = machine.spec(SPEC.format(service=service(machine), place="", more=""))
    argv = [str(word) for word in machine.argv("--loop", spec)]
    container = subprocess.Popen(
        ["unshare", "-p", "-f", "--kill-child", "--mount-proc", *argv],
        env=machine.environ, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for name in ("db", "app"):
            until((machine.base / f"{name}.pid").exists)
        (child,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert container.wait(LONG) == 0
        assert ended(machine) == ["app", "db"]
    finally:
        container.kill()
        container.wait()


def test_an_end_that_fails_keeps_what_it_needs(tmp_path: Path) -> None:
    text = "processes: {db: {STATE}, app: {STATE, needs: ['process:db']}}"
    there = compiled(tmp_path, text.replace("STATE", "command: [a]"))
    absent = compiled(tmp_path, text.replace("STATE", "command: [a], state: absent"))
    for resources in (ending(there.resources), absent.resources):
        assert [(one.id, one.present, one.needs) for one in resources] == [
            ("process:app", False, ()),
            ("process:db", False, ("process:app",)),
        ]
    assert [one.id for one in ending(absent.resources)] == ["process:db", "process:app"]
