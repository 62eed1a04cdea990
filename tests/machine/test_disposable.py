"""The disposable host is a real host: it boots, keeps its files, and reboots like one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from machine.disposable import CronHost, DisposableHost
from support import CHECKOUT

pytestmark = pytest.mark.root

COUNTER = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >>/var/boots'
[Install]
WantedBy=multi-user.target
"""
SLEEPER = """
[Service]
ExecStart=/bin/sleep 4711
[Install]
WantedBy=default.target
"""
# Each would do no harm if it worked, but could be seen.
FORBIDDEN = [
    "date -s @$(date +%s)",
    "cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness",
    "echo h >/proc/sysrq-trigger",
    "mknod /root/disk b 254 0",
    "cat /sys/kernel/mm/transparent_hugepage/defrag >/sys/kernel/mm/transparent_hugepage/defrag",
]


def test_systemd_runs_as_on_any_host(systemd_host: DisposableHost) -> None:
    host = systemd_host
    assert host.run("systemctl", "is-system-running").stdout == "running\n"
    assert host.read("/proc/1/comm") == "systemd\n"
    assert host.exists("/run/systemd/system")
    assert host.run("hostname").stdout == "disposable\n" != platform.node()
    # What the real machine was told to run is not run in here a second time.
    enabled = host.run("systemctl", "list-unit-files", "--state=enabled", check=False).stdout
    assert "0 unit files listed" in enabled


def test_an_enabled_unit_starts_again_after_a_reboot(systemd_host: DisposableHost) -> None:
    host = systemd_host
    host.write("/etc/systemd/system/counter.service", COUNTER)
    host.run("systemctl", "enable", "--now", "counter.service")
    host.reboot()
    host.reboot()
    boots = host.read("/var/boots").splitlines()
    assert len(boots) == len(set(boots)) == 3
    assert host.run("systemctl", "is-active", "counter.service").stdout == "active\n"
    assert boots[2] == host.read("/proc/sys/kernel/random/boot_id").strip()
    assert not Path("/var/boots").exists()


def test_a_reboot_keeps_files_but_those_that_any_reboot_loses(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    host.add_user("ann")
    kept, lost = "/srv/kept file", ["/tmp/lost", "/run/lost", "/dev/shm/lost"]
    host.write(kept, b"a\0\xffb", mode=0o640, owner="ann")
    for path in lost:
        host.write(path, "x")
    host.run("systemd-run", "--quiet", "sleep", "4711")
    host.until(lambda: host.running("sleep 4711"))
    host.reboot()
    assert host.path(kept).read_bytes() == b"a\0\xffb"
    assert host.run("stat", "-c", "%U:%G %a", kept).stdout == "ann:ann 640\n"
    assert [path for path in lost if host.exists(path)] == []
    assert host.running("sleep 4711") == []


def test_a_path_is_found_in_there_even_through_absolute_symlinks(
    systemd_host: DisposableHost,
) -> None:
    host = systemd_host
    host.run("ln", "-s", "/etc/hostname", "/srv/link")
    assert host.path("/srv/link").read_text() == "disposable\n"


def test_a_unit_that_fails_at_boot_is_named(systemd_host: DisposableHost) -> None:
    unit = "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n"
    systemd_host.write("/etc/systemd/system/broken.service", unit)
    systemd_host.run("systemctl", "enable", "broken.service")
    with pytest.raises(AssertionError, match=r"it is degraded:\nbroken\.service"):
        systemd_host.reboot()


def test_commands_run_as_after_a_login(
    systemd_host: DisposableHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", "/leaked")
    host = systemd_host
    host.add_user("ann")
    environ = host.run("env", user="ann", environ={"EXTRA": "a b"}).stdout.splitlines()
    names = {line.split("=")[0] for line in environ}
    assert names == {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "EXTRA"}
    assert {"HOME=/home/ann", "USER=ann", "EXTRA=a b"} <= set(environ)
    assert host.run("sh", "-c", "id -un; id -Gn; pwd", user="ann").stdout == "ann\nann\n/home/ann\n"
    assert host.run("cat", "/proc/self/cgroup").stdout.endswith("0::/tests\n")
    assert host.run("cat", input="in").stdout == "in"
    assert host.run("sh", "-c", "exit 7", check=False).returncode == 7
    with pytest.raises(AssertionError, match="status 1\nout\nerr"):
        host.run("sh", "-c", "echo out; echo err >&2; exit 1")
    with pytest.raises(subprocess.TimeoutExpired):
        host.run("sleep", "4711", timeout=0.2)
    host.until(lambda: not host.running("sleep 4711"))


def test_a_user_has_a_service_manager_that_starts_at_boot(systemd_host: DisposableHost) -> None:
    host = systemd_host
    uid = host.add_user("ann", linger=True)
    host.write("/home/ann/.config/systemd/user/mine.service", SLEEPER, owner="ann")
    host.run("systemctl", "--user", "enable", "--now", "mine.service", user="ann")
    # A simple unit has started before it is what it will be: systemd.service(5).
    host.until(lambda: host.running("sleep 4711"))
    host.reboot()
    host.until(lambda: host.user_manager("ann") == "running")
    (second,) = host.until(lambda: host.running("sleep 4711"))
    assert host.run("stat", "-c", "%u", f"/proc/{second}").stdout == f"{uid}\n"
    for part in (f"user@{uid}.service", "mine.service"):
        assert part in host.read(f"/proc/{second}/cgroup")
    seen = host.run("systemctl", "--user", "-M", "ann@", "is-active", "mine.service")
    assert seen.stdout == "active\n"


def test_the_package_that_is_tested_and_tmux_work_in_there(systemd_host: DisposableHost) -> None:
    host = systemd_host
    version = subprocess.run([host.bin / "reconcile", "--version"], capture_output=True, text=True)
    assert host.run(host.bin / "reconcile", "--version").stdout == version.stdout != ""
    assert host.run("test", "-f", CHECKOUT / "pyproject.toml").returncode == 0
    host.run("tmux", "new-session", "-d", "-s", "work", "tty >/tmp/tty; exec cat")
    host.until(lambda: host.run("cat", "/tmp/tty", check=False).stdout.startswith("/dev/pts/"))
    assert host.run("tmux", "list-sessions", "-F", "#S").stdout == "work\n"


def test_the_network_is_its_own_and_has_a_loopback(
    systemd_host: DisposableHost, request: pytest.FixtureRequest
) -> None:
    cron_host: CronHost = request.getfixturevalue("cron_host")
    talk = """
import os, socket
server = socket.create_server(("127.0.0.1", 80))
client = socket.create_connection(("127.0.0.1", 80))
server.accept()[0].send(b"hello")
print(client.recv(5).decode(), *os.listdir("/sys/class/net"))
"""
    for host in (systemd_host, cron_host):
        assert host.run(sys.executable, "-c", talk).stdout.split()[:2] == ["hello", "lo"]


def test_nothing_outside_changes(systemd_host: DisposableHost) -> None:
    host = systemd_host
    # Others may make something there meanwhile, but take nothing away.
    before = {name: set(os.listdir(name)) for name in ("/etc", "/srv", "/var/spool", "/var")}
    with tempfile.NamedTemporaryFile(prefix="rc-", dir="/tmp") as file:
        assert not host.exists(file.name)
        os.utime(file.name, (0, 0))  # older than anything that clears /tmp would keep
        host.run("sh", "-c", "rm -rf /tmp/* /srv/*; touch /srv/mark /etc/mark /var/mark")
        host.run("systemd-tmpfiles", "--clean", "--remove", check=False)
        host.run("hostname", "changed")
        for forbidden in FORBIDDEN:
            assert host.run("sh", "-c", forbidden, check=False).returncode, forbidden
        host.reboot()
        assert os.path.exists(file.name)
    for name, names in before.items():
        assert names <= {*os.listdir(name)} and not os.path.exists(f"{name}/mark"), name
    assert platform.node() not in ("changed", "disposable")
    if str(CHECKOUT).startswith("/tmp/"):  # shown, but not given
        assert host.run("touch", CHECKOUT / "mark", check=False).returncode
    assert not (CHECKOUT / "mark").exists()


def test_cron_runs_what_is_due_at_each_boot(cron_host: CronHost) -> None:
    host = cron_host
    ours = crontab()
    host.add_user("ann")
    line = '@reboot echo "$(id -un) $(cat /proc/sys/kernel/random/boot_id)" >>/home/ann/boots\n'
    host.run("crontab", "-", input=line, user="ann")
    host.run("crontab", "-", input=line.replace("ann", "root").replace("/home", ""))
    assert not host.exists("/home/ann/boots")
    for count in (1, 2):
        host.reboot()
        for user, path in {"ann": "/home/ann/boots", "root": "/root/boots"}.items():
            host.until(lambda path=path, count=count: lines(host, path) == count)
            boot = host.read("/proc/sys/kernel/random/boot_id")
            assert host.read(path).endswith(f"{user} {boot}")
    assert host.read("/proc/1/comm") != "systemd\n" and not host.exists("/run/systemd")
    assert crontab() == ours


def crontab() -> tuple[int, str]:
    """That of the real machine."""
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    return done.returncode, done.stdout


def lines(host: CronHost, path: str) -> int:
    return host.run("cat", path, check=False).stdout.count("\n")


@pytest.mark.slow
def test_cron_runs_what_is_due_each_minute(cron_host: CronHost) -> None:
    cron_host.run("crontab", "-", input="* * * * * echo now >>/root/minutes\n")
    cron_host.until(lambda: lines(cron_host, "/root/minutes"), 75)


def test_the_small_init_buries_the_dead(cron_host: CronHost) -> None:
    host = cron_host
    # Its own command line must not be taken for that of what it starts.
    host.run("setsid", "-f", "sh", "-c", '"$0" 4711 >/dev/null 2>&1 & exit 0', "sleep")
    (orphan,) = host.until(lambda: host.running("sleep 4711"))
    host.until(lambda: host.run("ps", "-o", "ppid=", str(orphan)).stdout.strip() == "1")
    host.run("kill", "-KILL", str(orphan))
    host.until(lambda: not host.exists(f"/proc/{orphan}"))
