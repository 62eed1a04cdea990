"""The disposable host leaves nothing behind, however it ends, and never boots on the real root."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from machine import holder as holding
from machine.disposable import SYSTEMD, CronHost, DisposableHost
from machine.possible import why_not
from support import LONG, open_files, until

pytestmark = pytest.mark.root

BOOT = Path(__file__).with_name("boot.sh")
# Another process that has a host: says what it has, and then waits to be killed.
OWNER = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from machine.disposable import DisposableHost
with DisposableHost() as host:
    host.boot()
    host.run("sh", "-c", "mount -t tmpfs more /mnt; setsid -f sleep 4711 >/dev/null 2>&1")
    print(json.dumps({"mark": host.mark, "pids": sorted(host.outside())}), flush=True)
    time.sleep(600)
"""
GROUPS = "mount -t cgroup2 groups /sys/kernel && find /sys/kernel -type d"


@pytest.fixture(autouse=True)
def possible(free: None) -> None:
    if reason := why_not(SYSTEMD, "cron"):
        pytest.skip(reason)


class Outside(NamedTuple):
    """What a host could leave on the real machine."""

    mounts: set[str]
    temporary: set[str]
    shared: set[str]

    @classmethod
    def now(cls) -> Outside:
        mounts = set(Path("/proc/self/mountinfo").read_text().splitlines())
        return cls(mounts, set(os.listdir("/tmp")), set(os.listdir("/sys/kernel")))

    def beyond(self, before: Outside) -> list[str]:
        """What is there now and was not."""
        return sorted(set().union(*self) - set().union(*before))


@pytest.fixture
def unchanged(own_mounts: None) -> Iterator[None]:
    # Nobody else mounts anything here, nor makes files in this /tmp.
    subprocess.run(["mount", "-t", "tmpfs", "tmp", "/tmp"], check=True)
    before = Outside.now()
    yield
    with contextlib.suppress(AssertionError):
        until(lambda: not Outside.now().beyond(before))
    assert Outside.now().beyond(before) == []
    assert before.mounts <= Outside.now().mounts


def alive(pids: set[int]) -> set[int]:
    """Those that are there, but for the dead that the real process 1 has yet to reap."""
    return {pid for pid in pids if holding.lives(str(pid))}


def groups(mark: str) -> list[str]:
    """The control groups of the host with that mark, wherever they are."""
    # In a mount namespace of its own: this needs no control groups mounted out here.
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", GROUPS], capture_output=True, text=True, check=True
    )
    return [line for line in found.stdout.splitlines() if f"/{mark}" in line]


def mounted(mark: str) -> list[str]:
    """The processes that see a file system of that host."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f" {mark}" in (entry / "mountinfo").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def assert_gone(mark: str, pids: set[int]) -> None:
    assert len(pids) > 1, "nothing was there that could be gone"
    until(lambda: not alive(pids))
    until(lambda: not groups(mark))
    until(lambda: not mounted(mark))


@pytest.mark.parametrize("made", [DisposableHost, CronHost])
def test_a_closed_host_is_gone(made: type[DisposableHost], unchanged: None) -> None:
    before = open_files()
    with made() as host:
        host.boot()
        pids = host.outside()
        host.reboot()
        assert alive(pids) == pids & host.outside() and len(alive(pids)) == 1
        pids |= host.outside()
        mark = host.mark
        assert groups(mark) and mounted(mark)
    assert alive(pids) == set() and groups(mark) == [] == mounted(mark)
    assert open_files() <= before


def test_a_host_is_gone_when_its_test_fails(unchanged: None) -> None:
    with pytest.raises(ZeroDivisionError), DisposableHost() as host:
        host.boot()
        mark, pids = host.mark, host.outside()
        print(1 / 0)
    assert alive(pids) == set() and groups(mark) == [] == mounted(mark)


def test_a_host_whose_init_ends_says_so_and_is_gone(
    unchanged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DisposableHost, "_init", lambda _: ["sh", "-c", "echo no luck; exit 1"])
    with DisposableHost() as host:
        with pytest.raises(AssertionError, match=r"it is dead(.*\n)*no luck"):
            host.boot()
        mark = host.mark
    assert groups(mark) == [] == mounted(mark)


def test_a_host_that_cannot_be_built_says_why_and_is_gone(
    unchanged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machine.disposable.CAPS", "-no_such_thing")
    with DisposableHost() as host:
        with pytest.raises(AssertionError, match=r"it is dead(.*\n)*.*no_such_thing"):
            host.boot()
        mark = host.mark
    assert groups(mark) == [] == mounted(mark)


class Owned(NamedTuple):
    """Another process that has a host, the mark of that, and the numbers of its processes."""

    owner: subprocess.Popen[str]
    mark: str
    pids: set[int]


@pytest.fixture
def owned(unchanged: None) -> Iterator[Owned]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, json.dumps([p for p in sys.path if p])],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert owner.stdout
    try:
        with owner.stdout:
            said = json.loads(owner.stdout.readline())
        yield Owned(owner, said["mark"], set(said["pids"]))
    finally:
        owner.kill()
        owner.wait()
    # Should what is tested be broken: a failed test leaves nothing behind either.
    for pid in mounted(said["mark"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_host_is_gone_when_its_owner_is_killed(number: signal.Signals, owned: Owned) -> None:
    owned.owner.send_signal(number)
    owned.owner.wait(LONG)
    assert_gone(owned.mark, owned.pids)


def test_a_host_is_gone_when_its_holder_is_killed(owned: Owned) -> None:
    _, mark, pids = owned

    def holds(pid: int) -> bool:
        # Of those that were there then, some have ended.
        with contextlib.suppress(OSError):
            return b"holder.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    (holder,) = filter(holds, pids)
    os.kill(holder, signal.SIGKILL)
    until(lambda: not alive(pids))
    until(lambda: not mounted(mark))
    # Only its empty control groups stay, until the next one comes.
    with CronHost() as host:
        host.boot()
        assert groups(mark) == []


REFUSAL = """
set -e
mount -t tmpfs place /sys/kernel
mkdir /sys/kernel/root /sys/kernel/group
mount --rbind / /sys/kernel/root
{extra}
PLACE=/sys/kernel MARK=nothing CGROUP=/sys/kernel/group BINDS= CAPS=-sys_time FIRST=no \
    exec sh {boot} echo STARTED 3>&1
"""
OVERLAY = """
umount -l /sys/kernel/root
mkdir /sys/kernel/u /sys/kernel/w
mount -t overlay -o lowerdir=/,upperdir=/sys/kernel/u,workdir=/sys/kernel/w {} /sys/kernel/root
"""


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("", "its root would be"),
        (OVERLAY.format("another"), "its root would be"),
        (OVERLAY.format("nothing") + "mount -t tmpfs real /sys/kernel/root/mnt", "write to /mnt"),
        (OVERLAY.format("nothing"), None),
    ],
)
def test_no_init_starts_on_the_real_root(extra: str, said: str | None, unchanged: None) -> None:
    # What it is to start is only echo: were the refusal broken, nothing would happen.
    script = REFUSAL.format(boot=BOOT, extra=extra)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net",
         "sh", "-c", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    if said is None:
        assert "STARTED" in done.stdout, done.stderr
    else:
        assert done.returncode == 1 and "STARTED" not in done.stdout
        assert "refused to start echo" in done.stderr and said in done.stderr


def test_a_machine_that_cannot_have_one_says_why(
    systemd_host: DisposableHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_not("no-such-program") == "a disposable host needs the program no-such-program"
    host = systemd_host
    host.add_user("ann")
    ask = "import json, sys; sys.path[:0] = json.loads(sys.argv[1])\n"
    ask += "from machine.possible import why_not; print(why_not())"
    argv = [sys.executable, "-c", ask, json.dumps([p for p in sys.path if p])]
    # In there it may not make devices, and the root is an overlay.
    said = host.run(*argv).stdout
    assert "over a root that is overlayfs: mknod:" in said
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    why_not.cache_clear()
    assert why_not() == "a disposable host needs root"
    why_not.cache_clear()


TABLE = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 254:1 / /home rw - xfs /dev/vdb rw
29 27 0:9 / /tmp rw - tmpfs tmpfs rw
30 27 0:9 / /mnt/big\\040disk rw shared:1 - ext4 /dev/vdc rw
31 27 0:9 / /usr/share/nothing rw - ext4 /dev/vdd rw
32 27 0:9 / /var/lib/fuse rw - fuse.lxcfs lxcfs rw
"""


def test_what_the_host_would_not_see_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    table = holding.mounts(TABLE)
    monkeypatch.setattr(holding.os.path, "isdir", lambda path: path != "/usr/share/nothing")
    monkeypatch.setattr(holding, "same_disk", lambda *_: True)
    assert holding.overlaid(table) == ["/home"]
    paths = ["/usr", "/home/me/clone", "/tmp/clone", "/tmp/clone/.venv", "/mnt/big disk/python"]
    paths += ["/tmpfile", "/var/lib/fuse/x"]
    expected = ["/mnt/big disk/python", "/tmp/clone", "/var/lib/fuse/x"]
    assert holding.hidden(paths, table) == expected
