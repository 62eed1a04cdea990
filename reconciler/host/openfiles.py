"""Whether other processes hold a file open.

The kernel is asked by a lease, which is to be had only for what nobody else has open (fcntl(2)):
that costs the same however many descriptors people hold, and sees every process. Where there are
no leases (NFS) or none for us (another user's file), the processes are looked through, proc(5).

It must not take "cannot be seen" for "nobody", nor look for longer than its bound.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from reconciler.host.clock import Clock

_FRESH = 0.2
"""Seconds for which one look at the processes is believed,"""
_SHARE = 50.0
"""or so many times what it took, if that is longer."""
_LONGEST = 1.0
"""Seconds after which a look ends, however many descriptors are left."""
_STEP = 1000
"""Descriptors between two looks at the clock."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def leased(handle: int, kind: int) -> bool | None:
    """Is a lease to be had? None: not on this file system, or not for us.

    ``handle`` is open for reading only. ``kind`` is fcntl.F_WRLCK (nobody else has it open) or
    fcntl.F_RDLCK (nobody has it open for writing, nor mapped so). It is given back at once.
    """
    try:
        # Whoever opens it meanwhile has us told by this signal, which by default is ignored.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, kind)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def has_writer(handle: int) -> bool | None:
    """Has anybody on this host open for writing what ``handle`` has for reading? None: unknown."""
    free = leased(handle, fcntl.F_RDLCK)
    return None if free is None else not free


def visible_writer(handle: int) -> int | None:
    """A process that has it open for writing, among those that the caller can see, proc(5)."""
    return next(writers(handle), None)


def writers(handle: int) -> Iterator[int]:
    """All of them, those of the caller first: others may hold as many descriptors as they like."""
    wanted = os.fstat(handle)
    _, number = _opened("self", str(handle))
    end = time.monotonic() + _LONGEST
    count = 0
    for pid in sorted(filter(str.isdigit, os.listdir("/proc")), key=_is_foreign):
        # That has ended, or is somebody else's.
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                count += 1
                if not count % _STEP and time.monotonic() > end:
                    return
                if _writes(pid, entry.name, wanted, number):
                    yield int(pid)
                    break


def _is_foreign(pid: str) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid != os.geteuid()
    except OSError:
        return True


def _writes(pid: str, handle: str, wanted: os.stat_result, number: int | None) -> bool:
    try:
        flags, its = _opened(pid, handle)
        # Any other file is not asked for: its file system may not answer.
        if flags & os.O_ACCMODE == os.O_RDONLY or its != number:
            return False
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{handle}"), wanted)
    except OSError:
        return False


def _opened(pid: str, handle: str) -> tuple[int, int | None]:
    """The flags of a descriptor, and the kernel's number of its file, if told (Linux 5.14).

    See proc(5), fdinfo. The number can only be compared with another one from there.
    """
    with open(f"/proc/{pid}/fdinfo/{handle}", "rb") as file:
        words = file.read(512).split()
    number = int(words[words.index(b"ino:") + 1]) if b"ino:" in words else None
    return int(words[words.index(b"flags:") + 1], 8), number


class Careless:
    """Processes that write to a file and do not append: where it is cut, they leave a hole.

    ``of`` are the devices and inodes of all files that will be asked for: one look is for all.
    """

    def __init__(self, clock: Clock, of: Collection[tuple[int, int]]) -> None:
        self._clock = clock
        self._of = frozenset(of)
        self._found: dict[tuple[int, int], int] | None = None

    def writer(self, handle: int) -> int | None:
        """The number of such a process, if one was seen; ``handle`` is open for reading only.

        Those that may not be looked at are not seen, nor those for which there was no time.
        """
        if leased(handle, fcntl.F_RDLCK):
            return None
        if self._found is None:
            self._found = dict(self._look(self._clock.monotonic() + _LONGEST))
        status = os.fstat(handle)
        return self._found.get((status.st_dev, status.st_ino))

    def _look(self, end: float) -> Iterator[tuple[tuple[int, int], int]]:
        count = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    count += 1
                    if not count % _STEP and self._clock.monotonic() >= end:
                        return
                    with suppress(OSError):
                        if not _overwrites(_opened(pid, entry.name)[0]):
                            continue
                        status = os.stat(f"/proc/{pid}/fd/{entry.name}")
                        key = status.st_dev, status.st_ino
                        if key in self._of:
                            yield key, int(pid)


def _overwrites(flags: int) -> bool:
    """Is a descriptor with these flags for writing, and not at the end of its file?"""
    return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND


class OpenFiles:
    """Asks whether somebody else has a file open. Unless ``asked``, nobody has any."""

    def __init__(self, clock: Clock, asked: bool = True) -> None:
        self._clock = clock
        self._asked = asked
        self._open: set[tuple[int, int]] = set()
        self._blind = self._cut = False
        self._until: float | None = None

    def held(self, handle: int) -> bool | None:
        """Has anybody it open besides this descriptor, which is for reading only?

        None where nobody is seen, and some processes may not be looked at.
        """
        if not self._asked:
            return False
        free = leased(handle, fcntl.F_WRLCK)
        if free is not None:
            return not free
        status = os.fstat(handle)
        return self._looked_up(status.st_dev, status.st_ino)

    def held_at(self, folder: int, name: str, device: int, inode: int) -> bool | None:
        """The same of a file by its name; of another one than is meant there, it is True.

        Raises OSError where nothing, or a symlink, has that name.
        """
        if not self._asked:
            return False
        try:
            handle = os.open(name, _FLAGS, dir_fd=folder)
        except BlockingIOError:
            return True  # Somebody else has a lease on it.
        except PermissionError:
            return self._looked_up(device, inode)
        try:
            status = os.fstat(handle)
            return (status.st_dev, status.st_ino) != (device, inode) or self.held(handle)
        finally:
            os.close(handle)

    def _looked_up(self, device: int, inode: int) -> bool | None:
        """Is it among what the processes have open, as of a moment ago?"""
        now = self._clock.monotonic()
        if self._until is None or now >= self._until:
            self._look(now + _LONGEST)
            took = self._clock.monotonic() - now
            self._until = now + max(_FRESH, took * _SHARE)
        if (device, inode) in self._open or self._cut:
            return True
        return None if self._blind else False

    def _look(self, end: float) -> None:
        self._open, self._blind, self._cut = set(), False, False
        me, count = str(os.getpid()), 0
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or pid == me:
                continue
            folder = f"/proc/{pid}/fd"
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        count += 1
                        if not count % _STEP and self._clock.monotonic() >= end:
                            self._cut = True
                            return
                        try:
                            status = os.stat(f"{folder}/{entry.name}")
                        except OSError:
                            continue
                        self._open.add((status.st_dev, status.st_ino))
            except PermissionError:
                self._blind = True
            except OSError:
                continue  # It has ended.
