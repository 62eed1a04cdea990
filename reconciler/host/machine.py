"""The machine itself: load, memory, disks, what a signal has stopped, what its kernel has said.

It must not judge them, nor know how much of them is whose. It is imported only where it is asked
for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import psutil

from reconciler.host.filesystems import by_mount, mounts
from reconciler.host.walk import closing

_MOST = 4 * 2**20


def figures() -> dict[str, Any]:
    """Load of the last 1, 5 and 15 minutes, processors that we may run on, memory in bytes."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "load": [round(one, 2) for one in os.getloadavg()],
        "cpus": len(os.sched_getaffinity(0)),
        "memory": {"total": memory.total, "available": memory.available},
        "swap": {"total": swap.total, "free": swap.free},
    }


def disks(paths: Iterable[str]) -> list[tuple[dict[str, Any], list[str]]]:
    """Each file system of these paths, sizes in bytes, with those that are on it. Raises OSError.

    What is not there counts for the nearest folder above it. ``free`` is for those who are not
    root.
    """
    types = {point: kind for point, _, kind in mounts()}
    found: dict[int, tuple[dict[str, Any], list[str]]] = {}
    for path in paths:
        there, device = _nearest(path)
        if device not in found:
            (mount,) = by_mount([os.path.realpath(there)])
            sizes = os.statvfs(there)
            about = {
                "mount": mount,
                "type": types.get(mount, ""),
                "total": sizes.f_blocks * sizes.f_frsize,
                "used": (sizes.f_blocks - sizes.f_bfree) * sizes.f_frsize,
                "free": sizes.f_bavail * sizes.f_frsize,
                "inodes": sizes.f_files,
                "inodes_free": sizes.f_favail,
                "read_only": bool(sizes.f_flag & os.ST_RDONLY),
            }
            found[device] = about, []
        found[device][1].append(path)
    return list(found.values())


def _nearest(path: str) -> tuple[str, int]:
    """The nearest folder at or above a path that is there, and its device."""
    while path != "/":
        with suppress(OSError):
            status = os.stat(path)
            # A file may seem to be elsewhere than its folder: overlays have such numbers.
            if stat.S_ISDIR(status.st_mode):
                return path, status.st_dev
        path = os.path.dirname(path)
    return path, os.stat(path).st_dev


def stopped(uid: int) -> list[tuple[int, str]]:
    """The number and name of each of that user's that a signal has stopped."""
    asked = ["pid", "name", "status", "uids"]
    return [
        (one.pid, one.info["name"])
        for one in psutil.process_iter(asked)
        if one.info["status"] == psutil.STATUS_STOPPED and one.info["uids"].effective == uid
    ]


def kernel_messages() -> Iterator[tuple[float, str]]:
    """What the kernel has said, each with its time in seconds since the epoch, the oldest first.

    Of /dev/kmsg, read to its end, but not more than 4 MiB. Raises OSError where that may not be
    read.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    size = 0
    with closing(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as handle:
        while size < _MOST:
            try:
                record = os.read(handle, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # It was overwritten while we read.
            size += len(record)
            head, _, text = record.decode(errors="replace").partition(";")
            yield booted + int(head.split(",")[2]) / 1e6, text
