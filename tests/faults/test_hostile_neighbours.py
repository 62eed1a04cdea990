"""Other users and other people's windows, beside what is ours."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support import Machine, until

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
SPEC = "sessions: {{s: {{}}}}\nprocesses: {{p: {{command: [sleep, '{}'], session: s}}}}"


def test_a_persons_pane_in_our_window_is_not_taken_for_the_process(machine: Machine) -> None:
    spec = machine.spec(SPEC.format(32001))
    machine.once(spec)
    machine.tmux("split-window", "-d", "-t", "=s:p", "exec sleep 32002")
    person = machine.only("sleep 32002")
    os.kill(machine.only("sleep 32001"), signal.SIGKILL)
    until(lambda: not machine.running("sleep 32001"))
    assert machine.steps(spec) == ["process:p"]
    machine.once(spec)
    machine.once(machine.spec(SPEC.format(32003)))
    assert machine.running("sleep 32002") == [person]
    machine.only("sleep 32003")


def test_removing_a_session_spares_what_a_person_opened(machine: Machine) -> None:
    (machine.home / ".tmux.conf").write_text("set -g renumber-windows on\n")
    text = (
        "sessions: {{s: {{{}windows: [{{name: a, panes: [{{command: exec sleep 32001}}]}}, "
        "{{name: b, panes: [{{command: exec sleep 32002}}]}}]}}}}"
    )
    machine.once(machine.spec(text.format("")))
    machine.tmux("new-window", "-d", "-t", "=s:", "exec sleep 32003")
    machine.tmux("split-window", "-d", "-t", "=s:=b", "exec sleep 32004")
    people = [machine.only("sleep 32003"), machine.only("sleep 32004")]
    machine.once(machine.spec(text.format("state: absent, ")))
    until(lambda: not machine.running("sleep 32001") and not machine.running("sleep 32002"))
    assert [machine.only("sleep 32003"), machine.only("sleep 32004")] == people


def test_a_layout_that_tmux_does_not_know_never_reaches_it(machine: Machine) -> None:
    spec = machine.spec("sessions: {s: {windows: [{layout: tiledd}]}}")
    done = machine.reconcile("--check", spec)
    assert done.returncode == 65
    assert "there is no layout 'tiledd'" in done.stderr


@pytest.mark.root
@ROOT
def test_a_pid_file_that_others_may_write_stops_nobody(machine: Machine) -> None:
    victim = subprocess.Popen(["sleep", "32001"], env=machine.environ)
    pid_file = machine.base / "pid"
    pid_file.write_text(str(victim.pid))
    os.chown(pid_file, NOBODY, NOBODY)
    spec = machine.spec(
        f"processes: {{p: {{command: x, state: absent, match: {{pidfile: {pid_file}}}}}}}"
    )
    report = machine.once(spec, status=1)
    assert "could be written by others" in report["unknown"][0]["reason"]
    assert victim.poll() is None
    victim.kill()
    victim.wait()


@pytest.mark.root
@ROOT
def test_a_mark_given_by_another_user_is_not_ours(machine: Machine) -> None:
    mark = f"{machine.state}/demo/process:p"
    script = f"RECONCILE_PROCESS={mark} RECONCILE_PID=$$ RECONCILE_LAUNCH=x exec sleep 32001"
    forged = subprocess.Popen(["sh", "-c", script], env=machine.environ, user=NOBODY)
    until(lambda: b"RECONCILE_PID" in Path(f"/proc/{forged.pid}/environ").read_bytes())
    (step,) = machine.plan(machine.spec("processes: {p: {command: [sleep, '32002']}}"))["steps"]
    assert step["verb"] == "start"
    forged.kill()
    forged.wait()


def test_a_log_that_became_a_symlink_is_not_shown(machine: Machine) -> None:
    secret = machine.base / "secret"
    secret.write_text("canary\n")
    log = machine.base / "log"
    spec = machine.spec(
        f"processes: {{p: {{command: 'rm {log}; ln -s {secret} {log}; exit 3', log: {log}}}}}"
    )
    (step,) = machine.once(spec, status=1)["steps"]
    assert "canary" not in step["error"]


def test_what_a_process_says_of_its_secrets_is_not_repeated(machine: Machine) -> None:
    spec = machine.spec(
        "processes: {p: {command: 'echo token=$TOKEN; exit 3', env: {TOKEN: canary}, "
        f"log: {machine.base}/log}}}}"
    )
    (step,) = machine.once(spec, status=1)["steps"]
    assert "token=***" in step["error"]


@pytest.mark.root
@ROOT
def test_a_state_folder_of_somebody_else_is_refused(machine: Machine) -> None:
    (machine.state / "demo").mkdir(parents=True)
    (machine.state / "demo/lock").write_text("")
    (machine.state / "demo").chmod(0o777)
    done = machine.reconcile(
        "--once", machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    )
    assert done.returncode == 1
    assert "could be written to by others" in done.stderr
    assert not (machine.base / "d").exists()
