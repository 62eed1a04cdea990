"""``--uninstall``: all that a spec has made goes, and what was there before stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from machine.disposable import CronHost, DisposableHost
from support import CHECKOUT, LONG, Machine, until

EXECUTOR = str(CHECKOUT / "specs/executor.yaml")


def uninstalled(machine: Machine, spec: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = machine.reconcile("--uninstall", spec, "--json", *options)
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def left(document: dict[str, Any]) -> dict[str, str]:
    return {one["what"]: one["reason"] for one in document["left"]}


def test_what_it_made_goes_in_reverse_order_and_what_was_there_before_stays(
    machine: Machine,
) -> None:
    mark = uuid.uuid4().hex
    base = machine.base
    (base / "old").mkdir()
    (base / "url").write_text("json://127.0.0.1:9/\n")
    (base / "url").chmod(0o600)
    (base / "rc").write_text("mine\n")
    (base / "own").write_text("same")
    machine.write_crontab(b"1 2 3 4 5 mine\n")
    adopted = subprocess.Popen(["sleep", f"1077.{int(mark[:8], 16)}"])
    order = base / "order"
    up = base / "up"
    trap = f"trap 'echo $0 >>{order}; exit' TERM; echo >>{up}; while :; do sleep 0.05; done"
    spec = machine.spec(
        f"""\
version: 1
name: demo
vars: {{which: one}}
notify: {{targets: {{a: {{url_file: {base}/url}}}}}}
directories:
  old: {{path: {base}/old}}
  new: {{path: "{base}/new-{{{{ which }}}}"}}
  full: {{path: {base}/full}}
sessions: {{s: {{}}}}
processes:
  db: {{command: [sh, -c, "{trap}", db-{mark}]}}
  app: {{command: [sh, -c, "{trap}", app-{mark}], needs: [process:db], session: s}}
  other: {{command: ["true"], match: {{cmdline: "sleep 1077.{int(mark[:8], 16)}"}}}}
cron: {{c: {{schedule: "@reboot", command: [echo, "{{{{ which }}}}"]}}}}
blocks: {{b: {{path: {base}/rc, content: "x\\n"}}}}
files:
  own: {{path: {base}/own, content: "same"}}
  new: {{path: {base}/new-file, content: "made"}}
units: {{u.service: {{when: "false", template: worker.service, vars: {{command: [a]}}}}}}
include: [more.yaml]
"""
    )
    (spec.parent / "more.yaml").write_text("checks: {}\n")
    try:
        machine.once(spec, "--set", "which=two")
        (base / "full/file").touch()
        machine.reconcile("--pause", "process:db", spec)
        # They run, and have their traps.
        until(lambda: up.exists() and up.read_text() == "\n\n")
        document = uninstalled(machine, spec)
        assert document["state_removed"] is True
        assert document["spec"]["variables"] == {"which": "two"}
        assert [line.partition("-")[0] for line in order.read_text().split()] == ["app", "db"]
        assert not machine.running(mark)
        assert adopted.poll() is None
        assert machine.crontab_text() == b"1 2 3 4 5 mine\n"
        assert (base / "rc").read_text() == "mine\n"
        assert machine.tmux("list-sessions") == ""
        assert not (base / "new-two").exists() and not (base / "new-file").exists()
        assert (base / "own").read_text() == "same"
        assert (base / "old").is_dir() and (base / "full/file").exists()
        assert not (machine.state / "demo").exists()
        kept = left(document)
        assert kept.pop("directory:full").endswith("only an empty directory is removed")
        assert kept == {
            f"directory:old ({base}/old)": "existed before",
            f"file:own ({base}/own)": "was not written by this spec",
            f"process:other (pid {adopted.pid})": "was not started by this spec",
            str(base / "url"): "holds the URL of the target a",
            str(spec): "the spec",
            str(spec.parent / "more.yaml"): "read by the spec",
        }
        again = uninstalled(machine, spec)
        assert (again["steps"], again["state_removed"]) == ([], True)
    finally:
        adopted.kill()
        adopted.wait()


@pytest.mark.parametrize("stopped", [False, True])
def test_the_watchdog_ends_first_whoever_runs_it(machine: Machine, stopped: bool) -> None:
    """Also one that is started again at once, by somebody of whom the spec knows nothing."""
    mark = uuid.uuid4().hex
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 200ms}\n"
        f"processes: {{w: {{command: [sh, -c, 'sleep 600; :', {mark}]}}}}\n"
    )
    loop = Looping(machine, spec).up()
    until(lambda: machine.running(mark))
    if stopped:
        loop.send(signal.SIGSTOP)
    try:
        done = machine.reconcile("--uninstall", spec)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"stopped the watchdog (pid {loop.pid})" in done.stdout
        assert loop.process.wait(LONG) == 0
        assert not machine.running(mark)
        assert not (machine.state / "demo").exists()
    finally:
        loop.kill()


def test_what_fails_is_named_and_the_state_is_kept(machine: Machine) -> None:
    machine.write_crontab(b"")
    spec = machine.spec("cron: {c: {schedule: '@reboot', command: [echo, x]}}")
    machine.once(spec)
    machine.fake("crontab", "echo no such luck >&2; exit 1; :")
    document = uninstalled(machine, spec, status=1)
    assert document["state_removed"] is False
    assert [one["id"] for one in document["unknown"]] == ["cron:c"]
    done = machine.reconcile("--uninstall", spec)
    assert "cron:c" in done.stdout
    assert "not uninstalled" in done.stderr
    assert (machine.state / "demo").is_dir()


def test_somebody_who_would_start_it_again_is_named(machine: Machine) -> None:
    spec = machine.spec("directories: {}\n")
    machine.once(spec)
    (machine.home / ".profile").write_text(f"reconcile --once {spec}\n")
    document = uninstalled(machine, spec, status=1)
    (again,) = (one for one in document["left"] if one["starts_again"])
    assert again["what"] == f"{machine.home}/.profile"
    assert document["state_removed"] is False


@pytest.mark.parametrize("text", [None, "version: 1\nname: demo\nx"])
def test_without_a_valid_spec_it_says_what_to_do(machine: Machine, text: str | None) -> None:
    spec = machine.spec("directories: {d: {path: BASE/d}}".replace("BASE", str(machine.base)))
    machine.once(spec)
    if text is None:
        spec.unlink()
    else:
        spec.write_text(text)
    done = machine.reconcile("--uninstall", spec)
    assert done.returncode == 65
    assert "nothing was removed" in done.stderr
    assert (machine.base / "d").is_dir()


def test_a_pass_that_is_at_work_comes_first(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not act beside it: it waits, and goes on when it has ended."""
    from reconciler.state.folder import locked, make_folder

    spec = machine.spec("directories: {d: {path: BASE/d}}".replace("BASE", str(machine.base)))
    machine.once(spec)
    folder = str(machine.state / "demo")
    make_folder(folder)
    with locked(folder):
        going = subprocess.Popen(
            [str(word) for word in machine.argv("--uninstall", spec)],
            env=machine.environ, cwd=machine.base,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: f"{going.pid}" and _waits_for_the_lock(going.pid, folder))
        assert (machine.base / "d").is_dir()
    out, _ = going.communicate(timeout=LONG)
    assert (going.returncode, (machine.base / "d").exists()) == (0, False), out


def _waits_for_the_lock(pid: int, folder: str) -> bool:
    """That process, or the child that works for it where something mounted may hang."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        links = [
            os.readlink(one)
            for each in (pid, *children)
            for one in Path(f"/proc/{each}/fd").iterdir()
        ]
    except OSError:
        return False
    return f"{folder}/lock" in links


class Installed:
    """The executor of a user on a disposable host, as ``--set`` says."""

    def __init__(self, host: DisposableHost, user: str) -> None:
        self.host, self.user = host, user
        if user != "root":
            host.run("chmod", "o+x", "/root")

    def reconcile(self, *words: str, status: int = 0) -> str:
        argv = self.host.bin / "reconcile", *words
        done = self.host.run(*argv, user=self.user, check=False, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return str(done.stdout)

    def up(self) -> None:
        words = self.host.bin / "ai-cmd-executor", "test"
        self.host.until(
            lambda: not self.host.run(*words, user=self.user, check=False).returncode, 60
        )

    def gone(self) -> None:
        for text in ("ai-cmd-executor worker", "--loop"):
            assert self.host.running(text) == []
        crontab = self.host.run("crontab", "-l", user=self.user, check=False).stdout
        assert "reconcile" not in crontab


@pytest.mark.root
@pytest.mark.parametrize("user", ["root", "ann"])
def test_it_does_not_come_back_with_the_next_boot(systemd_host: DisposableHost, user: str) -> None:
    host = systemd_host
    if user != "root":
        host.add_user(user, linger=True)
    executor = Installed(host, user)
    executor.reconcile("--once", EXECUTOR, "--set", "user_unit=true")
    executor.up()
    scope = ["--user"] if user != "root" else []
    unit = ("systemctl", *scope, "is-active", "reconcile-executor.service")
    assert host.run(*unit, user=user).stdout == "active\n"
    out = executor.reconcile("--uninstall", EXECUTOR)
    assert "Uninstalled" in out
    executor.gone()
    assert host.run(*unit, user=user, check=False).stdout == "inactive\n"
    host.reboot()
    if user != "root":
        host.until(lambda: host.user_manager(user) == "running")
    state = (
        "/var/lib/reconcile/executor"
        if user == "root"
        else f"/home/{user}/.local/state/reconcile/executor"
    )
    assert not host.exists(state)
    assert host.run(*unit, user=user, check=False).stdout == "inactive\n"
    executor.gone()


@pytest.mark.root
def test_a_unit_of_somebody_else_that_runs_the_loop_is_ended_and_named(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    host.write("/etc/w.yaml", "version: 1\nname: w\nprocesses: {s: {command: [sleep, '4713']}}\n")
    command = f"{host.bin}/reconcile --loop /etc/w.yaml"
    host.write(
        "/etc/systemd/system/mine.service",
        f"[Service]\nExecStart={command}\nRestart=always\nRestartSec=0\nKillMode=process\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    host.run("systemctl", "enable", "--now", "mine.service")
    host.until(lambda: host.running("sleep 4713"))
    executor = Installed(host, "root")
    out = executor.reconcile("--uninstall", "/etc/w.yaml", status=1)
    assert "unit mine.service: still runs reconcile on this spec" in out
    assert host.running("sleep 4713") == host.running("--loop /etc/w.yaml") == []


@pytest.mark.root
def test_as_a_user_without_systemd(cron_host: CronHost) -> None:
    cron_host.add_user("ann")
    executor = Installed(cron_host, "ann")
    executor.reconcile("--once", EXECUTOR)
    executor.up()
    executor.reconcile("--uninstall", EXECUTOR)
    executor.gone()
    cron_host.reboot()
    executor.gone()
