"""What ``--diagnose`` says of the command executor's own host, where systemd and cron run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from machine.disposable import DisposableHost
from support import CHECKOUT, late

pytestmark = pytest.mark.root
SPEC = str(CHECKOUT / "specs/executor.yaml")
UNIT = "reconcile-executor.service"


def reconcile(host: DisposableHost, *words: str, status: int | None = 0) -> Any:
    done = host.run(host.bin / "reconcile", *words, SPEC, "--json", check=False, timeout=90)
    assert status in (None, done.returncode), done.stdout + done.stderr
    return json.loads(done.stdout)


def wrong(host: DisposableHost) -> list[tuple[str, str | None]]:
    """The causes, most important first, each with the command that mends it."""
    found = reconcile(host, "--diagnose", status=None)
    assert not late(found["seconds"], 10)
    assert "internal error" not in str(found["unseen"])
    rows = [one for one in found["wrong"] if one["follows_from"] is None]
    return [(one["key"], one["mend"]) for one in rows]


def answered(host: DisposableHost, healthy: bool) -> Any:
    """A diagnosis to which each check has answered: it asks for some seconds only, and a loaded
    machine may take longer."""

    def found() -> Any:
        seen = reconcile(host, "--diagnose", status=None)
        return all(one["result"] != "unanswered" for one in seen["checks"]) and seen

    seen = host.until(found)
    assert seen["healthy"] == healthy, seen["wrong"]
    return seen


def start_cron(host: DisposableHost, *words: str) -> None:
    """Have systemd start it, which is called so only a moment after it counts as started."""
    host.run("systemctl", *words, "cron")
    host.until(lambda: not host.run("pgrep", "-x", "cron", check=False).returncode)


def freeze(host: DisposableHost, pid: str) -> None:
    """Stop a process in there, and wait until it has."""
    host.run("kill", "-STOP", pid)
    host.until(lambda: "State:\tT" in host.read(f"/proc/{pid}/status"))


def test_what_is_wrong_with_its_watchdog_and_with_what_brings_it_back(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    reconcile(host, "--once", status=None)
    host.until(lambda: wrong(host) == [("cron daemon", "systemctl enable --now cron")])
    start_cron(host, "enable", "--now")
    assert wrong(host) == []
    found = answered(host, healthy=True)
    runners = {one["sort"]: one for one in found["reboot"]["runners"]}
    assert runners.keys() == {"unit", "cron"}
    assert all(one["works"] and one["at_boot"] for one in runners.values())
    assert found["loop"]["expected_by"] == ["unit:watchdog"]
    asked = {one["id"]: one["result"] for one in found["checks"]}
    assert (asked["check:execution"], set(asked.values())) == ("ok", {"ok"})

    host.run("systemctl", "disable", "cron")
    assert wrong(host) == [("cron daemon", "systemctl enable cron")]
    host.run("systemctl", "enable", "cron")
    # Nothing runs the cron lines; the unit alone brings all of it back, as the weekly check says.
    host.run("systemctl", "stop", "cron")
    # The cron of a container is none of this host's.
    script = "cp /bin/sleep /run/cron; unshare -pf --kill-child /run/cron 600 >/dev/null 2>&1 &"
    host.run("sh", "-c", script)
    host.until(lambda: host.running("/run/cron 600"))
    found = answered(host, healthy=False)
    keys = {one["key"]: one["follows_from"] for one in found["wrong"]}
    assert keys == {"cron daemon": None}
    asked = {one["id"]: one["result"] for one in found["checks"]}
    assert asked["check:weekly_persistence"] == "ok"
    start_cron(host, "start")
    loop = host.run("systemctl", "show", "-P", "MainPID", UNIT).stdout.strip()
    freeze(host, loop)
    assert wrong(host) == [("loop", f"kill -CONT {loop}")]
    host.run("kill", "-CONT", loop)


@pytest.mark.slow
def test_a_watchdog_that_hangs_is_dead_and_would_not_come_back(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    reconcile(host, "--once", status=None)
    start_cron(host, "enable", "--now")
    host.until(lambda: wrong(host) == [])
    loop = host.run("systemctl", "show", "-P", "MainPID", UNIT).stdout.strip()
    freeze(host, loop)
    assert wrong(host) == [("loop", f"kill -CONT {loop}")]
    host.run("systemctl", "kill", "-s", "KILL", UNIT)
    host.run("systemctl", "stop", UNIT)
    (only,) = wrong(host)
    assert (only[0], "--once" in str(only[1])) == ("unit:watchdog", True)
    host.run("systemctl", "disable", UNIT)
    found = reconcile(host, "--diagnose", status=1)
    assert "not enabled" in found["wrong"][0]["what"]
    keys = {one["key"]: one["follows_from"] for one in found["wrong"]}
    assert keys == {"unit:watchdog": None, "loop": "unit:watchdog"}
    # Another look at what is known to be missing would tell nothing.
    asked = {one["id"]: (one["result"], one["said"]) for one in found["checks"]}
    result, said = asked["check:weekly_persistence"]
    assert (result, said.partition(":")[0]) == ("not asked", "unit")
    host.run("crontab", "-r")
    found = reconcile(host, "--diagnose", status=1)
    keys = {one["key"]: one["follows_from"] for one in found["wrong"]}
    assert keys == {"unit:watchdog": None, "loop": "unit:watchdog", "cron:boot": None}
    doubts = [one["key"] for one in found["doubts"] if one["key"] != "load"]  # Of this machine.
    assert doubts[0] == "reboot"

    reconcile(host, "--once", status=None)
    host.until(lambda: wrong(host) == [])
