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
from collections.abc import Collection, Iterator
from contextlib import suppress

from reconciler.host.clock import Clock
from reconciler.host.walk import closing

_FRESH = 0.2
"""Seconds for which one look at the processes is believed,"""
_SHARE = 50.0
"""or so many times what it took, if that is longer."""
_LONGEST = 1.0
"""Seconds after which a look ends, however many descriptors are left."""
_STEP = 1000
"""Descriptors between two looks at the clock."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def leased(handle: int, kind: int, keep: bool = False) -> bool | None:
    """Is a lease to be had? None: not on this file system, or not for us.

    ``handle`` is open for reading only. ``kind`` is fcntl.F_WRLCK (nobody else has it open) or
    fcntl.F_RDLCK (nobody has it open for writing, nor mapped so). It is given back at once,
    or with ``keep`` when the descriptor is closed.
    """
    try:
        # Whoever opens it meanwhile has us told by this signal, which by default is ignored.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, kind)
        if not keep:
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def has_writer(handle: int) -> bool | None:
    """Has anybody on this host open for writing what ``handle`` has for reading? None: unknown."""
    free = leased(handle, fcntl.F_RDLCK)
    return None if free is None else not free


class _Descriptors:
    """All that processes have open, each as the number of the process and of the descriptor.

    ``cut``: it has come to its end before all was seen; ``blind``: some may not be looked at.
    """

    def __init__(self, clock: Clock, own_first: bool = False) -> None:
        self.cut = self.blind = False
        self._clock = clock
        found = filter(str.isdigit, os.listdir("/proc"))
        self._pids = sorted(found, key=_is_foreign) if own_first else list(found)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        end, count = self._clock.monotonic() + _LONGEST, 0
        for pid in self._pids:
            try:
                with os.scandir(f"/proc/{pid}/fd") as entries:
                    for entry in entries:
                        count += 1
                        if not count % _STEP and self._clock.monotonic() >= end:
                            self.cut = True
                            return
                        yield pid, entry.name
            except PermissionError:
                self.blind = True
            except OSError:
                continue  # It has ended.


def visible_writer(handle: int) -> int | None:
    """A process that has it open for writing, among those that the caller can see, proc(5)."""
    return next(writers(handle), None)


def writers(handle: int) -> Iterator[int]:
    """All of them, those of the caller first: others may hold as many descriptors as they like."""
    wanted = os.fstat(handle)
    _, number = _opened("self", str(handle))
    seen = ""
    for pid, one in _Descriptors(Clock(), own_first=True):
        if pid != seen and _writes(pid, one, wanted, number):
            seen = pid
            yield int(pid)


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


class NonAppendingWriters:
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
            self._found = dict(self._look())
        status = os.fstat(handle)
        return self._found.get((status.st_dev, status.st_ino))

    def _look(self) -> Iterator[tuple[tuple[int, int], int]]:
        for pid, one in _Descriptors(self._clock):
            with suppress(OSError):
                if _overwrites(_opened(pid, one)[0]):
                    status = os.stat(f"/proc/{pid}/fd/{one}")
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

    def held(self, handle: int, closing: bool = False) -> bool | None:
        """Has anybody it open besides this descriptor, which is for reading only?

        None where nobody is seen, and some processes may not be looked at. ``closing``: the
        descriptor is closed at once.
        """
        if not self._asked:
            return False
        free = leased(handle, fcntl.F_WRLCK, closing)
        if free is not None:
            return not free
        status = os.fstat(handle)
        return self._looked_up(status.st_dev, status.st_ino)

    def held_at(self, folder: int, name: str, device: int, inode: int) -> bool | None:
        """The same of a file by its name; of another one than is asked for there, it is True.

        Raises OSError where nothing, or a symlink, has that name.
        """
        if not self._asked:
            return False
        status, held = self.look(folder, name)
        return (status.st_dev, status.st_ino) != (device, inode) or held

    def look(self, folder: int, name: str) -> tuple[os.stat_result, bool | None]:
        """The status of what has that name, and whether anybody else has it open.

        Raises OSError where nothing has that name.
        """
        if not self._asked:
            return os.stat(name, dir_fd=folder, follow_symlinks=False), False
        try:
            handle = os.open(name, _FLAGS, dir_fd=folder)
        except OSError as error:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if error.errno == errno.EAGAIN:
                return status, True  # Somebody else has a lease on it.
            return status, self._looked_up(status.st_dev, status.st_ino)
        with closing(handle):
            status = os.fstat(handle)
            free = leased(handle, fcntl.F_WRLCK, True)
            if free is not None:
                return status, not free
            return status, self._looked_up(status.st_dev, status.st_ino)

    def visible(self) -> set[tuple[int, int]] | None:
        """Devices and inodes of all that processes have open, in one look; None: not all is seen.

        What is only mapped into memory, or open in a container that root of this one does not
        see, is not among it: ``look`` tells of that.
        """
        if not self._asked:
            return set()
        self._look()
        return None if self._cut or self._blind else self._open

    def _looked_up(self, device: int, inode: int) -> bool | None:
        """Is it among what the processes have open, as of a moment ago?"""
        now = self._clock.monotonic()
        if self._until is None or now >= self._until:
            self._look()
            took = self._clock.monotonic() - now
            self._until = now + max(_FRESH, took * _SHARE)
        if (device, inode) in self._open or self._cut:
            return True
        return None if self._blind else False

    def _look(self) -> None:
        self._open = set()
        me, found = str(os.getpid()), _Descriptors(self._clock)
        for pid, one in found:
            with suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{one}")
                if pid != me:
                    self._open.add((status.st_dev, status.st_ino))
        self._blind, self._cut = found.blind, found.cut
