"""The command executor over reboots: by its unit, by @reboot, and by the five-minute line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from machine.disposable import CronHost, DisposableHost
from support import CHECKOUT

pytestmark = pytest.mark.root
SPEC = str(CHECKOUT / "specs/executor.yaml")


class Executor:
    """The command executor of one user on a disposable host."""

    def __init__(
        self, host: DisposableHost, user: str = "root", spec: str = SPEC, *options: str
    ) -> None:
        self.host = host
        self.options = options
        if user != "root":
            # Where the interpreter is root's own, others must get to it too.
            host.run("chmod", "o+x", "/root")
        self.user = user
        self.spec = spec

    def run(self, name: str, *words: str, status: int | None = 0) -> str:
        done = self.host.run(self.host.bin / name, *words, user=self.user, check=False, timeout=90)
        assert status in (None, done.returncode), done.stdout + done.stderr
        return str(done.stdout)

    def once(self, *options: str) -> str:
        return self.run("reconcile", "--once", self.spec, *self.options, *options)

    def plan(self, *options: str) -> dict[str, Any]:
        words = ("--plan", self.spec, "--json", *self.options, *options)
        text = self.run("reconcile", *words, status=None)
        document: dict[str, Any] = json.loads(text)
        return document

    def converged(self) -> bool:
        plan = self.plan()
        return not plan["steps"] and not plan["unknown"]

    def works(self) -> bool:
        """Does a test command come back?"""
        done = self.host.run(
            self.host.bin / "ai-cmd-executor", "test", user=self.user, check=False, timeout=90
        )
        return bool(done.returncode == 0)

    def up(self) -> None:
        """By itself and soon, it runs and is as declared."""
        self.host.until(self.works)
        self.host.until(self.converged)


def test_by_its_unit(systemd_host: DisposableHost) -> None:
    executor = Executor(systemd_host)
    executor.once()
    executor.up()
    assert executor.plan()["summary"]["unknown"] == 0
    systemd_host.run("systemctl", "is-active", "reconcile-executor.service")
    systemd_host.reboot()
    executor.up()
    show = ("systemctl", "show", "-P", "StatusText", "reconcile-executor")
    systemd_host.until(lambda: "resources" in systemd_host.run(*show).stdout)
    # What it has started goes on when it is restarted.
    worker = systemd_host.running("ai-cmd-executor worker")
    systemd_host.run("systemctl", "restart", "reconcile-executor.service")
    assert systemd_host.running("ai-cmd-executor worker") == worker
    executor.up()


def test_by_the_unit_of_a_user(systemd_host: DisposableHost) -> None:
    systemd_host.add_user("ann", linger=True)
    executor = Executor(systemd_host, "ann", SPEC, "--set", "user_unit=true")
    executor.once()
    executor.up()
    systemd_host.run("systemctl", "--user", "is-active", "reconcile-executor", user="ann")
    # The check of it finds that manager, whose place a command is not told.
    systemd_host.run("systemctl", "enable", "--now", "cron")
    seen = json.loads(executor.run("reconcile", "--diagnose", SPEC, "--json", status=None))
    (check,) = (one for one in seen["checks"] if one["id"] == "check:weekly_persistence")
    assert check["result"] == "ok", check
    systemd_host.reboot()
    executor.up()


OWN = """\
version: 1
name: own
include: [watchdog]
processes:
  worker: { command: [sleep, "4713"] }
"""


@pytest.mark.parametrize("user", ["root", "ann"])
def test_a_spec_of_ones_own_by_what_it_includes(systemd_host: DisposableHost, user: str) -> None:
    host = systemd_host
    scope = ["--user"] if user != "root" else []
    if user != "root":
        host.add_user(user, linger=True)
    host.write("/srv/own.yaml", OWN)
    own = Executor(host, user, "/srv/own.yaml")
    own.once()
    for _ in range(2):
        host.until(lambda: host.running("sleep 4713"))
        host.until(own.converged)
        active = host.run("systemctl", *scope, "is-active", "reconcile-own", user=user)
        assert active.stdout == "active\n"
        host.reboot()
    own.run("reconcile", "--uninstall", own.spec)
    assert not host.running("sleep 4713")
    assert not host.running("reconcile --loop")


@pytest.mark.parametrize("user", ["root", "ann"])
def test_by_cron_at_boot(cron_host: CronHost, user: str) -> None:
    if user != "root":
        cron_host.add_user(user)
    theirs = "# mine\n5 4 * * sun echo hello\n"
    cron_host.run("crontab", "-", input=theirs, user=user)
    executor = Executor(cron_host, user)
    executor.once()
    executor.up()
    cron_host.reboot()
    executor.up()
    assert cron_host.run("crontab", "-l", user=user).stdout.startswith(theirs)


def test_what_the_five_minute_line_says_brings_all_back(cron_host: CronHost) -> None:
    executor = Executor(cron_host)
    executor.once()
    executor.up()
    cron_host.run("tmux", "kill-server")
    cron_host.until(lambda: not cron_host.running("reconcile --loop"))
    table = cron_host.run("crontab", "-l").stdout
    (line,) = re.findall(r"^\*/5 \* \* \* \* (.*)$", table, re.MULTILINE)
    # As cron runs it: crontab(5) has this environment, and nothing else.
    cron_host.run(
        "env", "-i", "HOME=/root", "LOGNAME=root", "SHELL=/bin/sh", "PATH=/usr/bin:/bin",
        "/bin/sh", "-c", line,
    )  # fmt: skip
    executor.up()


@pytest.mark.slow
def test_by_the_line_that_is_due(cron_host: CronHost) -> None:
    text = (CHECKOUT / "specs/executor.yaml").read_text()
    cron_host.write("/srv/executor.yaml", text.replace("*/5 * * * *", "* * * * *"))
    executor = Executor(cron_host, spec="/srv/executor.yaml")
    executor.once()
    executor.up()
    cron_host.run("tmux", "kill-server")
    cron_host.until(lambda: cron_host.running("ai-cmd-executor worker"))
    executor.up()


def test_a_loop_that_is_told_to_take_itself_away_does_so_last(
    systemd_host: DisposableHost,
) -> None:
    text = (CHECKOUT / "specs/executor.yaml").read_text().replace("every: 30s", "every: 1s")
    systemd_host.write("/srv/executor.yaml", text)
    executor = Executor(systemd_host, spec="/srv/executor.yaml")
    executor.once()
    executor.up()
    systemd_host.write("/srv/executor.yaml", text.replace("  state: present", "  state: absent"))
    systemd_host.run("systemctl", "kill", "-s", "USR1", "reconcile-executor")
    systemd_host.until(lambda: not systemd_host.running("reconcile --loop"))
    assert not systemd_host.running("ai-cmd-executor worker")
    assert not systemd_host.exists("/etc/systemd/system/reconcile-executor.service")
    assert systemd_host.run("crontab", "-l", check=False).returncode == 1


@pytest.mark.parametrize("sort", ["systemd", "cron"])
def test_it_can_be_taken_away_again(request: pytest.FixtureRequest, sort: str, free: None) -> None:
    host: DisposableHost = request.getfixturevalue(f"{sort}_host")
    executor = Executor(host)
    executor.once()
    executor.up()
    if sort == "systemd":
        host.run("systemctl", "stop", "reconcile-executor.service")
    else:
        host.run("tmux", "kill-session", "-t", "=executor_watchdog")
    host.until(lambda: not host.running("reconcile --loop"))
    executor.once("--set", "state=absent")
    assert not host.running("ai-cmd-executor worker")
    assert host.run("crontab", "-l", check=False).returncode == 1
    assert not host.exists("/etc/systemd/system/reconcile-executor.service")
    assert executor.plan("--set", "state=absent")["steps"] == []
