"""The host itself: load, memory, clock, file systems, and what its kernel has said.

It must not change anything, nor judge. Each function is called in a child of its own.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_KERNEL = 4 * 2**20
_DEATHS = re.compile(
    r"(?P<oom>(?:Memory cgroup out of memory|Out of memory).*?: Killed process (?P<pid>\d+) "
    r"\((?P<name>[^)]*)\))"
    r"|(?P<fault>(?:traps: )?(?P<who>[^\s\[]+)\[(?P<number>\d+)\]:? "
    r"(?:segfault|general protection|trap ))"
)


def about(host: Host) -> dict[str, Any]:
    """Load, memory in bytes, and times in seconds since the epoch."""
    memory = _memory()
    now = time.time()
    uptime = host.clock.since_boot()
    return {
        "load": [round(one, 2) for one in os.getloadavg()],
        "cpus": len(os.sched_getaffinity(0)),
        "memory": {
            "total": memory.get("MemTotal", 0),
            "available": memory.get("MemAvailable", memory.get("MemFree", 0)),
        },
        "swap": {"total": memory.get("SwapTotal", 0), "free": memory.get("SwapFree", 0)},
        "uptime": round(uptime, 1),
        "booted": round(now - uptime, 1),
        "time": round(now, 3),
        "zone": time.strftime("%Z%z"),
        "clock": host.walltime.doubt(),
        "user": host.users.account(None).name,
        "uid": os.geteuid(),
    }


def _memory() -> dict[str, int]:
    """Of /proc/meminfo, proc(5), in bytes."""
    found = {}
    with open("/proc/meminfo", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def mounts() -> list[tuple[str, str, str]]:
    """Where each file system is mounted, with its device number and type; the topmost last."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            words = before.split()
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
            found.append((point, words[2], after.split()[0]))
    return found


def by_mount(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths, by where their file system is mounted as far as names tell.

    Nothing is looked at: a file system that is dead would not answer.
    """
    points = sorted({point for point, _, _ in mounts()}, key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for path in paths:
        inside = (one for one in points if one == "/" or f"{path}/".startswith(f"{one}/"))
        found.setdefault(next(inside, "/"), []).append(path)
    return found


def disks(paths: Mapping[str, str]) -> list[dict[str, Any]]:
    """The file systems of those paths, each with the ids that it belongs to; sizes in bytes."""
    table = mounts()
    found: dict[int, dict[str, Any]] = {}
    for path, ident in paths.items():
        there = _nearest(path)
        device = os.stat(there).st_dev
        if device not in found:
            name = f"{os.major(device)}:{os.minor(device)}"
            fitting = [(point, kind) for point, number, kind in table if number == name]
            real = f"{os.path.realpath(there)}/"
            inside = [one for one in fitting if one[0] == "/" or real.startswith(f"{one[0]}/")]
            # btrfs and overlays have numbers of their own.
            point, kind = max(inside or fitting or [(_mount(there), "")], key=lambda o: len(o[0]))
            sizes = os.statvfs(there)
            found[device] = {
                "mount": point,
                "type": kind,
                "total": sizes.f_blocks * sizes.f_frsize,
                "free": sizes.f_bavail * sizes.f_frsize,
                "inodes": sizes.f_files,
                "inodes_free": sizes.f_favail,
                "read_only": bool(sizes.f_flag & os.ST_RDONLY),
                "ids": [],
            }
        found[device]["ids"].append(ident)
    return list(found.values())


def _nearest(path: str) -> str:
    while path != "/":
        try:
            # A file may seem to be elsewhere than its folder: overlays have such numbers.
            if stat.S_ISDIR(os.stat(path).st_mode):
                return path
        except OSError:
            pass
        path = os.path.dirname(path)
    return path


def _mount(path: str) -> str:
    while path != "/" and not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def kernel() -> dict[str, Any]:
    """What the kernel has ended, or seen crash, of late; in the order in which it was.

    Of /dev/kmsg, read to its end without waiting. Raises OSError where that may not be read.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    deaths = []
    size = 0
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while size < _MOST_KERNEL:
            try:
                record = os.read(handle, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # It was overwritten while we read.
            size += len(record)
            head, _, text = record.decode(errors="replace").partition(";")
            death = _DEATHS.search(text)
            if death is not None:
                at = booted + int(head.split(",")[2]) / 1e6
                deaths.append(
                    {
                        "time": round(at, 1),
                        "pid": int(death["pid"] or death["number"]),
                        "name": death["name"] or death["who"],
                        "how": "out of memory" if death["oom"] else "it crashed",
                        "text": text.splitlines()[0][:300],
                    }
                )
    finally:
        os.close(handle)
    return {"deaths": deaths[-50:]}


def stopped(uid: int) -> list[dict[str, Any]]:
    """The user's processes that are stopped by a signal, proc(5) state T."""
    from reconciler.host.processes import look_up

    found = []
    for name in os.listdir("/proc"):
        entry = look_up(int(name)) if name.isdigit() else None
        if entry is None or entry.state != "T":
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                    found.append({"pid": int(name), "name": file.read().strip()})
        except OSError:
            continue
    return found
