"""Twelve breakages of the command executor's host: named with their cause, mended by one repair.

The host is a real one with systemd and cron, and keeps ``specs/executor.yaml`` as it is shipped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from machine.disposable import DisposableHost
from support import CHECKOUT, late

pytestmark = pytest.mark.root
SPEC = str(CHECKOUT / "specs/executor.yaml")
UNIT = "reconcile-executor.service"
HOME = "/root/ai_co"
PENDING = f"{HOME}/ai_commands/pending"
STORE = "/var/lib/reconcile/executor/store.db"
WORKER = f"ai-cmd-executor worker --home {HOME}"


class Broken:
    """The host, and its executor."""

    def __init__(self, host: DisposableHost) -> None:
        self.host = host
        # Small, so that it can be full, and large enough for what the spec wants to be free.
        host.run("mkdir", "-p", HOME)
        host.run("mount", "-t", "tmpfs", "-o", "size=700m", "home", HOME)
        host.run("systemctl", "enable", "--now", "cron")
        # Its passes would mend what is to be diagnosed, should a fifth minute begin just then.
        # It is called so only once it executes, a moment after it counts as started.
        host.until(lambda: not host.run("pkill", "-STOP", "-x", "cron", check=False).returncode)
        self.repair()

    def reconcile(self, *words: str, status: int | None = 0) -> dict[str, Any]:
        done = self.host.run(
            self.host.bin / "reconcile", *words, SPEC, "--json", check=False, timeout=150
        )
        assert status in (None, done.returncode), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def diagnose(self) -> list[tuple[str, str | None]]:
        """All that is wrong, the causes first, each with what it follows from."""
        found = self.reconcile("--diagnose", status=None)
        assert not late(found["seconds"], 10)
        return [(one["key"], one["follows_from"]) for one in found["wrong"]]

    def repair(self, status: int = 0) -> dict[str, Any]:
        """One repair; with status 0 the execution test has passed in the end."""
        found = self.reconcile("--repair", status=status)
        asked = {one["id"]: one["result"] for one in found["checks"]}
        if status == 0:
            assert asked["check:execution"] == "ok"
            assert set(asked.values()) == {"ok"}
            assert found["wrong"] == []
        return found

    def without_watchdog(self) -> None:
        """End the loop, which would mend most of it at once."""
        self.host.run("systemctl", "stop", UNIT)

    def worker(self) -> int:
        """Its number, while it has no fork that is about to become a command."""

        def found() -> list[int]:
            names = {
                pid: self.host.run("cat", f"/proc/{pid}/comm", check=False).stdout
                for pid in self.host.running(WORKER)
            }
            return [pid for pid, name in names.items() if not name.startswith("tmux")]

        (pid,) = self.host.until(lambda: len(pids := found()) == 1 and pids)
        return int(pid)

    def hang(self) -> None:
        """Stop the worker by a signal. Not one in tmux: that would wake it up again."""
        host = self.host
        self.reconcile("--pause", "process:worker", "--stop", "--reason", "by hand")
        host.run("systemd-run", "--quiet", "--collect", f"{host.bin}/ai-cmd-executor", "worker",
                 "--home", HOME)  # fmt: skip
        host.until(lambda: host.running(WORKER))
        self.reconcile("--resume", "process:worker")
        host.run("kill", "-STOP", str(self.worker()))

    def stale(self) -> None:
        """500 commands that nobody took."""
        script = f"""
            for n in $(seq 500); do echo '{{"command": "touch /root/ran"}}' >{PENDING}/$n.json; done
            touch -d '2 hours ago' {PENDING}/*.json
        """
        self.host.run("sh", "-ec", script)

    def silent(self) -> None:
        """A log that was written to every minute for eight hours, until half an hour ago."""
        now = time.time()
        lines = []
        for at in range(int(now) - 8 * 3600, int(now) - 1800, 60):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))
            lines.append(f"{stamp} INFO [7] done\n")
        path = f"{HOME}/logs/command_executor.log"
        self.host.write(path, "".join(lines))
        self.host.run("touch", "-d", "30 minutes ago", path)

    def fill(self) -> None:
        """Leave no room in its home."""
        self.host.run("dd", "if=/dev/zero", f"of={HOME}/large", "bs=1M", check=False)

    def sh(self, script: str) -> None:
        self.host.run("sh", "-ec", script)


def _killed(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh(f"kill -KILL {broken.worker()}")
    broken.host.until(lambda: not broken.host.running("worker --home"))


def _hung(broken: Broken) -> None:
    broken.hang()


def _no_tmux(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh("tmux kill-server")


def _no_pending(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh(f"rm -r {PENDING}")


def _closed_pending(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh(f"chmod 0555 {PENDING}")


def _stale(broken: Broken) -> None:
    _killed(broken)
    broken.stale()


def _no_crontab(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh("crontab -r")


def _disabled(broken: Broken) -> None:
    broken.sh(f"systemctl disable --now {UNIT}")


def _no_watchdog(broken: Broken) -> None:
    broken.sh(f"systemctl kill -s KILL {UNIT}; systemctl stop {UNIT}")


def _silent(broken: Broken) -> None:
    broken.hang()
    broken.silent()


def _damaged(broken: Broken) -> None:
    broken.without_watchdog()
    broken.sh(f"head -c 9000 /dev/urandom >{STORE}")


# Each with what is named first, or directly follows from that.
BREAKAGES: dict[str, tuple[Callable[[Broken], None], list[str]]] = {
    "worker killed": (_killed, ["process:worker"]),
    "worker hung": (_hung, ["stopped process:worker"]),
    "tmux server gone": (_no_tmux, ["session:command_executor", "process:worker"]),
    "pending missing": (_no_pending, ["directory:pending"]),
    "pending not writable": (_closed_pending, ["directory:pending"]),
    "500 stale pending files": (_stale, ["process:worker", "retention:stale_commands"]),
    "crontab wiped": (_no_crontab, ["cron:boot"]),
    "unit disabled": (_disabled, ["unit:watchdog"]),
    "watchdog dead": (_no_watchdog, ["unit:watchdog"]),
    "log silent": (_silent, ["stopped process:worker", f"silent {HOME}/logs/command_executor.log"]),
    "store damaged": (_damaged, ["store"]),
}


@pytest.fixture
def broken(systemd_host: DisposableHost) -> Broken:
    return Broken(systemd_host)


def test_what_breaks_is_named_and_mended_by_one_repair(broken: Broken) -> None:
    host = broken.host
    _killed(broken)
    broken.stale()
    _disabled(broken)
    _damaged(broken)
    broken.sh(f"crontab -r; chmod 0555 {PENDING}; rm -r {HOME}/ai_commands/completed")
    wrong = broken.diagnose()
    causes = [key for key, cause in wrong if cause is None]
    assert causes[0] == "store"
    assert causes.index("unit:watchdog") < causes.index("cron:boot")
    assert {"directory:pending", "directory:completed"} <= set(causes)
    assert dict(wrong)["process:worker"] in ("directory:pending", "directory:completed")
    assert "retention:stale_commands" in dict(wrong)
    found = broken.repair()
    assert "set aside" in found["store_set_aside"]
    assert int(host.run("sh", "-c", f"ls {HOME}/ai_commands/stale | wc -l").stdout) == 500
    assert not host.exists("/root/ran")
    assert host.run("systemctl", "is-enabled", UNIT).stdout == "enabled\n"
    assert "--once" in host.run("crontab", "-l").stdout
    assert broken.repair()["changed"] == []


@pytest.mark.slow
def test_what_hangs_beside_a_watchdog_and_what_no_program_can_mend(broken: Broken) -> None:
    # A watchdog that is well cannot see that the worker hangs.
    pid = broken.worker()
    _silent(broken)
    hung = broken.worker()
    assert hung != pid
    wrong = broken.diagnose()
    assert wrong[0] == ("stopped process:worker", None)
    assert f"silent {HOME}/logs/command_executor.log" in dict(wrong)
    found = broken.repair()
    assert [(one["id"], one["why"]) for one in found["changed"]] == [
        ("process:worker", "it is stopped (SIGSTOP)")
    ]
    assert broken.worker() != hung

    # What no program can mend is named with what to do.
    broken.fill()
    broken.sh(f"rm -r {PENDING}")
    assert broken.diagnose()[0] == (f"disk {HOME}", None)
    found = broken.repair(status=1)
    assert found["wrong"][0]["key"] == f"disk {HOME}"
    assert found["wrong"][0]["mend"].startswith(f"du -xh {HOME}")
    broken.sh(f"rm {HOME}/large")
    broken.repair()
    assert broken.host.exists(PENDING)


@pytest.mark.slow
@pytest.mark.parametrize("names", [list(BREAKAGES)[:6], list(BREAKAGES)[6:]], ids=["one", "two"])
def test_each_alone_is_named_first_and_mended_by_one_repair(
    broken: Broken, names: list[str]
) -> None:
    for name in names:
        breaks, keys = BREAKAGES[name]
        breaks(broken)
        wrong = broken.diagnose()
        # That was ended only because it would have mended the rest.
        causes = [key for key, cause in wrong if cause is None and key != "unit:watchdog"]
        first = wrong[0][0] if keys[0] == "unit:watchdog" else causes[0]
        assert first == keys[0], (name, wrong)
        assert set(keys) <= set(dict(wrong)), (name, wrong)
        found = broken.repair()
        assert found["changed"] or found["store_set_aside"], name
        assert broken.diagnose() == [], name
