"""Holds a disposable host together: owns its disk, starts and kills it, and clears it away.

It runs in a mount namespace of its own, so that the disk is gone when it is; and it ends when the
test that started it ends, however that happens. It reads one line of JSON per order on standard
input, the first of which is the configuration, and answers each with a line. It must never write
anything outside PLACE and its own control group.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

# Covered with a temporary file system that only this mount namespace sees. It exists everywhere,
# needs no folder made for it, and hides nothing that is needed here.
PLACE = Path("/sys/kernel")
PREFIX = "reconcile-test-"

# An overlay shows one file system. Others that hold a part of the system get one of their own.
DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay", "virtiofs"}
SYSTEM = ("/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var")
# The host has its own, and what the real machine has there is not seen.
HIDDEN = ("/dev", "/proc", "/run", "/sys", "/tmp")

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Mount(NamedTuple):
    where: str
    kind: str


class Failed(Exception):
    """The order could not be carried out."""


def below(path: str, folders: Iterable[str]) -> bool:
    """Is this one of the folders, or in one?"""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def mounts(table: str) -> list[Mount]:
    """What /proc/self/mountinfo says, proc(5); of two on one place the last one counts."""
    found = {}
    for line in table.splitlines():
        left, right = line.split(" - ")
        # Blanks and backslashes are written as octal numbers, and the bytes may be UTF-8.
        where = left.split()[4].encode().decode("unicode_escape").encode("latin-1")
        found[os.fsdecode(where)] = Mount(os.fsdecode(where), right.split()[0])
    return list(found.values())


def overlaid(table: list[Mount]) -> list[str]:
    """The file systems besides the root's that the host sees through an overlay of their own."""
    return sorted(
        mount.where
        for mount in table
        if mount.kind in DISKS
        and below(mount.where, SYSTEM)
        and not set(mount.where) & set(",:\\ \n")
        and os.path.isdir(mount.where)
    )


def hidden(paths: list[str], table: list[Mount]) -> list[str]:
    """Those of the paths that the host would not see without being shown them."""
    seen = {"/", *overlaid(table)}
    found: list[str] = []
    for path in sorted({*paths, *map(os.path.realpath, paths)}):
        over = max((m.where for m in table if below(path, [m.where])), key=len)
        if over in seen and not below(path, HIDDEN):
            continue
        if not any(below(path, [one]) and same_disk(path, one) for one in found):
            found.append(path)
    return found


def same_disk(one: str, other: str) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def call(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(argv)}: {done.stderr.strip()}")


def mount_overlay(lower: str, number: int, mark: str) -> None:
    upper, work = PLACE / "upper" / str(number), PLACE / "work" / str(number)
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    # The top of the overlay has the owner and the mode of the upper directory, not of the lower.
    real = os.stat(lower)
    os.chown(upper, real.st_uid, real.st_gid)
    os.chmod(upper, real.st_mode & 0o7777)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    call("mount", "-t", "overlay", "-o", options, mark, f"{PLACE}/root{lower.rstrip('/')}")


class Holder:
    """One disposable host, for as long as its test lives."""

    def __init__(self) -> None:
        self.parent = os.pidfd_open(os.getppid())
        self.unread = b""
        self.config: dict[str, Any] = self.order()
        self.mark = f"{PREFIX}{os.getpid()}"
        self.group: Path | None = None
        self.guest: subprocess.Popen[bytes] | None = None
        self.log = os.memfd_create("log")
        self.first = True

    def order(self) -> dict[str, Any]:
        """The next line on standard input. Ends this process when the one that asks is gone."""
        while b"\n" not in self.unread:
            self.wait()
            more = os.read(0, 65536)
            if not more:
                sys.exit(0)
            self.unread += more
        line, self.unread = self.unread.split(b"\n", 1)
        order: dict[str, Any] = json.loads(line)
        return order

    def wait(self, *also: int, seconds: float | None = None) -> list[int]:
        """Wait for standard input or one of the descriptors, and for the parent's end."""
        ready, _, _ = select.select([0, self.parent, *also], [], [], seconds)
        if self.parent in ready:
            sys.exit(0)
        return ready

    def prepare(self) -> None:
        """Make the disk and the control group; nothing of them can be seen from outside."""
        table = mounts(Path("/proc/self/mountinfo").read_text())
        self.binds = hidden(self.config["show"], table)
        call("mount", "-t", "tmpfs", "-o", "mode=755", f"{self.mark}-disk", str(PLACE))
        (PLACE / "root").mkdir()
        for number, lower in enumerate(["/", *overlaid(table)]):
            mount_overlay(lower, number, self.mark)
        (PLACE / "cgroup").mkdir()
        call("mount", "-t", "cgroup2", "cgroup2", str(PLACE / "cgroup"))
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        # A process that was moved here from outside has a path that begins with "/..".
        parent = PLACE / "cgroup" / os.path.normpath(own).lstrip("/")
        sweep(parent)
        self.group = parent / self.mark

    def boot(self, argv: list[str]) -> int:
        """Start the host, up to its init. Returns that one's number."""
        assert self.group is not None and self.guest is None
        # Commands get a group of their own, which no init takes for one of its own.
        (self.group / "tests").mkdir(parents=True)
        said, say = os.pipe()
        script = str(Path(__file__).with_name("boot.sh"))
        self.guest = subprocess.Popen(
            # 3 is what it says that it is ready on; --kill-child and --pdeathsig make it end
            # when this process is killed.
            ["sh", "-c", 'exec 3>&"$0"; exec "$@"', str(say), "setpriv", "--pdeathsig", "KILL",
             "unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net",
             "sh", script, *argv],
            env=self.environ(), pass_fds=[say],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        os.close(say)
        try:
            words = self.first_line(said, 30).split()
        finally:
            os.close(said)
        if words[:1] != ["ready"]:
            self.stop()
            raise Failed(self.printed() or "it is not ready")
        self.first = False
        return int(words[1])

    def environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PLACE": str(PLACE),
            "MARK": self.mark,
            "CGROUP": str(self.group),
            "BINDS": "\n".join(self.binds),
            "CAPS": self.config["caps"],
            "FIRST": "yes" if self.first else "no",
        }

    def first_line(self, pipe: int, seconds: float) -> str:
        end = time.monotonic() + seconds
        text = b""
        while b"\n" not in text and time.monotonic() < end:
            ready = self.wait(pipe, seconds=end - time.monotonic())
            if 0 in ready:  # nothing is ordered meanwhile: whoever asked is gone
                sys.exit(0)
            more = os.read(pipe, 100) if pipe in ready else b""
            if not more:
                break
            text += more
        return text.decode()

    def printed(self) -> str:
        """What boot.sh and the init have printed so far."""
        return os.pread(self.log, 65536, 0).decode(errors="replace")

    def stop(self) -> None:
        """Pull the plug. Returns when no process and no control group of the host is left."""
        if self.guest is not None:
            # Its child, process 1 of the host, is killed with it and falls to this process. It
            # can be buried only when the kernel has killed all the others.
            self.guest.kill()
            self.guest.wait()
            self.guest = None
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()
        if self.group is not None:
            remove_group(self.group, 20)


def remove_group(group: Path, seconds: float) -> None:
    """Remove an emptied control group with all below it."""
    end = time.monotonic() + seconds
    while group.exists():
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if time.monotonic() > end:
                left = [p.read_text() for p in group.rglob("cgroup.procs")]
                raise Failed(f"{error}: {left}") from None
            time.sleep(0.002)


def sweep(parent: Path) -> None:
    """Remove the empty groups of holders that were killed before they could."""
    for group in parent.glob(f"{PREFIX}*"):
        if not lives(group.name.removeprefix(PREFIX)):
            with contextlib.suppress(Failed):
                remove_group(group, 0)


def lives(number: str) -> bool:
    """Is there such a process? One that is dead, and only has not been buried, is none."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def answer(**words: Any) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    holder = Holder()
    try:
        holder.prepare()
        answer(mark=holder.mark, binds=holder.binds)
        while True:
            order = holder.order()
            try:
                if "boot" in order:
                    answer(pid=holder.boot(order["boot"]), group=str(holder.group))
                elif "log" in order:
                    answer(log=holder.printed())
                else:
                    holder.stop()
                    answer()
            except (Failed, OSError) as error:
                answer(error=str(error))
    except SystemExit:
        raise
    except BaseException:
        answer(error=traceback.format_exc())
        raise
    finally:
        holder.stop()


if __name__ == "__main__":
    main()
