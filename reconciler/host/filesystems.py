"""File systems: where each is mounted, and whether it answers.

It must not judge that. One that is dead does not answer, and whoever looks at it waits for good:
``by_mount`` looks at none, and ``refuse_silent`` has a child look.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator

from reconciler.base.errors import HostError, UnknownState
from reconciler.host import progress


def mounts() -> list[tuple[str, str, str]]:
    """Where each file system is mounted, with its device number and type; the topmost last.

    Of /proc/self/mountinfo, proc(5). Raises OSError.
    """
    found = []
    for words, kind, _ in mount_lines():
        found.append((_unescaped(words[4]), words[2], kind))
    return found


def mount_lines() -> Iterator[tuple[list[str], str, str]]:
    """Of each mount its number and so on as words, its type, and the options of the file system.

    Of /proc/self/mountinfo, proc(5); words are parted by blanks, and other odd characters stand
    in them as they are. Raises OSError.
    """
    # Without newline a carriage return in the name of a mount point would end a line, too.
    with open(
        "/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            kind, _, options = after.split(" ", 2)
            yield before.split(" "), kind, options


def server(mount: str) -> int | None:
    """The user who has mounted a file system that a process of his answers for, by FUSE.

    What it says of owners, modes and symlinks is what he likes. ``mount`` is the number of the
    mount, proc(5). None for any other. Raises OSError.
    """
    for words, kind, options in mount_lines():
        if words[0] == mount and kind.partition(".")[0] == "fuse":
            given = dict(one.partition("=")[::2] for one in options.split(","))
            return int(given["user_id"])
    return None


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)


_MAY_HANG = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "ceph", "coda", "glusterfs", "lustre")
"""How the types begin of which a server answers, on this host or another."""
_BOUND = 2.0
"""Seconds that such a server may take to be asked for the first time."""
_LASTS = 10.0
"""Seconds for which its answer is believed."""
_MOST_LINKS = 40
"""As many as the kernel follows, path_resolution(7)."""
_FRESH = 1.0
"""Seconds for which the table of mounts is believed."""
_MOST_SILENT = 3
"""Silent ones of a user other than root; whatever else he has mounted is not asked then."""
_served: tuple[float, frozenset[str]] = (-_FRESH, frozenset())
_mounted_by: dict[str, str] = {}
"""The number of the user for whom a process of his answers, as far as FUSE says it."""
_answered: dict[str, float] = {}
_silent: dict[str, tuple[float, int]] = {}


def served() -> frozenset[str]:
    """Where file systems are mounted that may hang, for there is a server behind them."""
    global _served
    now = time.monotonic()
    if not 0 <= now - _served[0] < _FRESH:
        try:
            found = {
                _unescaped(words[4]): dict(
                    one.partition("=")[::2] for one in options.split(",")
                ).get("user_id", "0")
                for words, kind, options in mount_lines()
                if kind.startswith(_MAY_HANG) and kind != "fusectl" and words[4] != "/"
            }
        except OSError:
            found = {}
        _mounted_by.clear()
        _mounted_by.update(found)
        _served = now, frozenset(found)
    return _served[1]


def leads_to_server(path: str) -> bool:
    """Does an absolute path come to where a file system is mounted that may hang?

    It is not looked into.
    """
    servers = served()
    return bool(servers) and any(one in servers for one in path_dependencies(path))


def path_dependencies(path: str) -> Iterator[str]:
    """What can change where an absolute path leads: every symlink of it, and its real end.

    Where something is missing, it is the first that is; and nothing is looked into that may hang.
    """
    servers = served()
    for _ in range(_MOST_LINKS):
        at, rest = "", path.split("/")[1:]
        while rest:
            at = f"{at}/{rest.pop(0)}"
            if at in servers or os.path.islink(at) or not os.path.lexists(at):
                break
        yield at
        if at in servers:
            return
        try:
            goal = os.readlink(at)
        except OSError:
            return  # It is the real end, or there is none.
        path = os.path.normpath(os.path.join(os.path.dirname(at), goal, *rest))


def silence(point: str, pid: int, seconds: float = 60.0) -> None:
    """What is mounted there did not answer; that process may still wait for it.

    It is not asked again for so long, and as long as that process lives: one that waits in the
    kernel cannot be killed, and there must not be more and more of them.
    """
    _silent[point] = time.monotonic() + seconds, pid


def is_silent(point: str) -> bool:
    """Did it not answer lately?"""
    until, pid = _silent.get(point, (0.0, 0))
    if pid and (time.monotonic() < until or lives(pid)):
        return True
    _silent.pop(point, None)
    return False


def lives(pid: int) -> bool:
    """Has a process of that number not ended yet? 0: no."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        return not progress.readable([handle], 0.0)
    finally:
        os.close(handle)


def refuse_silent(path: str, exactly: bool = False) -> None:
    """Raises UnknownState where ``path`` is on a file system that does not answer in time.

    ``exactly``: only where it is mounted there.
    """
    for point in served():
        if path == point or (not exactly and path.startswith(f"{point}/")):
            if is_silent(point) or _has_enough(point) or not _answers(point):
                raise UnknownState(
                    f"the file system mounted on {point} does not answer; see whether its server "
                    "runs, or unmount it"
                )
            progress.entering(point)


def is_of_user(point: str) -> bool:
    """Does a process of somebody other than root and the caller answer for it?"""
    served()
    return _mounted_by.get(point, "0") not in ("0", str(os.geteuid()))


def _has_enough(point: str) -> bool:
    """Has the user who has mounted it so many others that are silent that it must not cost more?

    Whoever may mount one may mount a thousand, and each is waited for.
    """
    if not is_of_user(point):
        return False
    same = [one for one in _silent if _mounted_by.get(one) == _mounted_by[point]]
    return len(same) >= _MOST_SILENT and sum(map(is_silent, same)) >= _MOST_SILENT


def _answers(point: str) -> bool:
    """Does it answer to the question that is the easiest? A child asks."""
    if 0 <= time.monotonic() - _answered.get(point, -_LASTS) < _LASTS:
        return True
    from reconciler.host.child import Child

    child = Child(lambda: os.fsencode(str(os.statvfs(point).f_bsize)), _BOUND)
    try:
        child.wait()
    except UnknownState:
        silence(point, child.pid)
        progress.refusing(point, child.pid)
        return False
    _answered[point] = time.monotonic()
    return True


def by_mount(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths, by where their file system is mounted as far as names tell. Raises OSError."""
    known = {point: point for point, _, _ in mounts()} | {"/": "/", "": "/"}

    def mount(path: str) -> str:
        if path not in known:
            known[path] = mount(path.rpartition("/")[0])
        return known[path]

    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(mount(path), []).append(path)
    return found


def volume(path: str) -> tuple[str, str]:
    """The nearest folder above a path that is there, and where what it is on is mounted.

    Raises OSError.
    """
    folder = os.path.dirname(path)
    while True:
        try:
            os.stat(folder)
            break
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(folder)
    (mount,) = by_mount([os.path.realpath(folder)])
    return folder, mount


def mount_of(handle: int) -> str:
    """The number of the mount that a descriptor is on, proc(5), ``fdinfo``. Raises HostError."""
    try:
        with open(f"/proc/self/fdinfo/{handle}", "rb", buffering=0) as info:
            text = info.read(512)
    except FileNotFoundError:
        raise HostError("/proc is not mounted, so mount points cannot be told") from None
    return text.partition(b"mnt_id:")[2].split(None, 1)[0].decode()


_NFS_ACL = "system.nfs4_acl"
_NFS_FOR = 60.0
"""Seconds for which it is remembered whether a device has such lists."""
_nfs: dict[int, tuple[float, bool]] = {}
"""Has a device such lists, and when that was asked, by the monotonic clock."""


def has_nfs_lists(handle: int, device: int) -> bool:
    """May what is on that device have a list that its mode does not show? Asked once a minute."""
    if os.major(device):
        return False  # A block device.
    now = time.monotonic()
    known = _nfs.get(device)
    if known is None or not 0 <= now - known[0] < _NFS_FOR:
        known = now, nfs_list(handle) is not None
        _nfs[device] = known
    return known[1]


def nfs_list(handle: int) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{handle}", _NFS_ACL)
    except OSError:
        return None
