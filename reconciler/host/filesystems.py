"""File systems: where each is mounted, and what room it has.

It must not judge that. One that is dead does not answer: only ``by_mount`` looks at none.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from reconciler.records import dataclass


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Where it is mounted, and its sizes in bytes; ``free`` is for those who are not root."""

    mount: str
    type: str
    total: int
    free: int
    inodes: int
    inodes_free: int
    read_only: bool


def mounts() -> list[tuple[str, str, str]]:
    """Where each file system is mounted, with its device number and type; the topmost last.

    Of /proc/self/mountinfo, proc(5). Raises OSError.
    """
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            words = before.split()
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
            found.append((point, words[2], after.split()[0]))
    return found


def by_mount(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths, by where their file system is mounted as far as names tell. Raises OSError."""
    points = sorted({point for point, _, _ in mounts()}, key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for path in paths:
        inside = (one for one in points if one == "/" or f"{path}/".startswith(f"{one}/"))
        found.setdefault(next(inside, "/"), []).append(path)
    return found


def of(paths: Iterable[str]) -> list[tuple[FileSystem, list[str]]]:
    """Each file system of these paths, with those that are on it. Raises OSError.

    What is not there counts for the nearest folder above it.
    """
    table = mounts()
    found: dict[int, tuple[FileSystem, list[str]]] = {}
    for path in paths:
        there = _nearest(path)
        device = os.stat(there).st_dev
        if device not in found:
            found[device] = _file_system(there, device, table), []
        found[device][1].append(path)
    return list(found.values())


def _file_system(path: str, device: int, table: Iterable[tuple[str, str, str]]) -> FileSystem:
    name = f"{os.major(device)}:{os.minor(device)}"
    fitting = [(point, kind) for point, number, kind in table if number == name]
    real = f"{os.path.realpath(path)}/"
    inside = [one for one in fitting if one[0] == "/" or real.startswith(f"{one[0]}/")]
    # btrfs and overlays have numbers of their own.
    point, kind = max(inside or fitting or [(_mount(path), "")], key=lambda one: len(one[0]))
    sizes = os.statvfs(path)
    return FileSystem(
        mount=point,
        type=kind,
        total=sizes.f_blocks * sizes.f_frsize,
        free=sizes.f_bavail * sizes.f_frsize,
        inodes=sizes.f_files,
        inodes_free=sizes.f_favail,
        read_only=bool(sizes.f_flag & os.ST_RDONLY),
    )


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
