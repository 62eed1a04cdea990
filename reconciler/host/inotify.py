"""Learns at once that something was written, replaced or removed, by inotify(7).

It must not read files. Where the kernel cannot tell (a network file system, too many watches)
nothing is told, and whoever asks has to look from time to time.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from reconciler.host.clock import Clock
from reconciler.host.filesystems import path_dependencies

# <sys/inotify.h>
MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO = 0x40, 0x80
_CREATE, _DELETE = 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, ONCE = 0x01000000, 0x80000000
_ELSEWHERE = _DELETE_SELF | _MOVE_SELF
"""The folder itself has another name now, or none."""
_IN_FOLDER = (
    _CLOSE_WRITE | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ELSEWHERE | _ONLYDIR
)
_NEW_FILES = _CLOSE_WRITE | _MOVED_TO | _CREATE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_EVENT = struct.Struct("iIII")
_MOST = 16
"""Blocks of events that are read at a time."""
_CALM = 0.1
"""Seconds without a further change: an editor writes, renames and removes in one go."""


class Inotify:
    """One inotify descriptor. Raises OSError where none can be had."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self.handle = self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.handle < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def add(self, path: str, what: int) -> int:
        """Watch a path; the number of the watch. Raises OSError."""
        watch: int = self._library.inotify_add_watch(self.handle, os.fsencode(path), what)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return watch

    def remove(self, watch: int) -> None:
        """Watch it no more."""
        self._library.inotify_rm_watch(self.handle, watch)

    def events(self) -> Iterator[tuple[int, int, bytes]]:
        """What has happened by now: the number of a watch, a mask, and a name in its folder."""
        # What is left ends the next sleep: somebody may write faster than we read.
        with suppress(OSError):
            for _ in range(_MOST):
                data = os.read(self.handle, 65536)
                at = 0
                while at < len(data):
                    watch, what, _, length = _EVENT.unpack_from(data, at)
                    at += _EVENT.size
                    yield watch, what, data[at : at + length].rstrip(b"\0")
                    at += length

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self.handle)


class FolderWatch:
    """Tells that something may have happened in a folder, which may be removed and made again.

    ``why_not`` says why the kernel does not tell; then there is nothing to wait for, and
    ``changed`` has to be asked often.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._watched: tuple[int, int] | None = None
        self._watch: int | None = None
        self._modified: int | None = None
        self._inotify: Inotify | None = None
        self.why_not = ""
        try:
            self._inotify = Inotify()
        except OSError as error:
            self.why_not = str(error)

    @property
    def descriptor(self) -> int | None:
        """The one to wait for."""
        return self._inotify.handle if self._inotify is not None else None

    def ensure(self, folder: int | None) -> None:
        """Watch what is open there, which has the name now; None: nothing has it."""
        if folder is None:
            self._watched = None
            return
        status = os.fstat(folder)
        if (status.st_dev, status.st_ino) == self._watched:
            return
        if self._inotify is not None:
            try:
                if self._watch is not None:
                    self._inotify.remove(self._watch)
                self._watch = self._inotify.add(f"/proc/self/fd/{folder}", _NEW_FILES)
            except OSError as error:
                self._inotify.close()
                self._inotify, self.why_not = None, str(error)
        self._watched = status.st_dev, status.st_ino
        self._modified = None

    def changed(self) -> bool:
        """May something have happened since the last call?"""
        if self._inotify is not None:
            happened = False
            for watch, what, _ in self._inotify.events():
                happened = True
                # A new folder can have the number of the removed one.
                if watch == self._watch and what & (_IGNORED | _MOVE_SELF):
                    self._watched = None
            return happened
        try:
            modified = os.stat(self._path).st_mtime_ns
        except OSError:
            return True
        # Two changes within one tick of the clock show the same time: a fresh one counts again.
        fresh = abs(time.time_ns() - modified) < 100_000_000
        moved, self._modified = modified != self._modified, modified
        return moved or fresh


class FileWatch:
    """Tells that one of the ``files`` has changed. ``told`` is what ``tend`` gives then."""

    def __init__(self, clock: Clock, told: str) -> None:
        self._clock = clock
        self._told = told
        self._names: dict[int, set[bytes]] = {}
        self._files: frozenset[str] = frozenset()
        self._places: dict[str, tuple[int, int] | None] = {}
        """The paths that are watched for their sake, each with what its folder is."""
        self._at: float | None = None
        self._inotify: Inotify | None = None

    def watch(self, files: Iterable[str]) -> None:
        """Watch these from now on: absolute paths, whether they exist or not."""
        self._files = frozenset(files)
        found = {place for path in self._files for place in path_dependencies(path)}
        places = {path: _folder_of(path) for path in found}
        if places == self._places and self._inotify is not None:
            return
        self.close()
        self._places = places
        try:
            self._inotify = Inotify()
        except OSError:
            return
        for path in places:
            folder, _, name = path.rpartition("/")
            with suppress(OSError):
                watch = self._inotify.add(folder or "/", _IN_FOLDER)
                self._names.setdefault(watch, set()).add(os.fsencode(name))

    def descriptors(self) -> Collection[int]:
        """The one to wait for."""
        return (self._inotify.handle,) if self._inotify is not None else ()

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """``told``, once all has been calm for a moment after a change."""
        if self._inotify is not None and self._inotify.handle in ready and self._changed():
            self.watch(self._files)  # They may be somewhere else now.
            self._at = self._clock.monotonic() + _CALM
        if self._at is None or self._clock.monotonic() < self._at:
            return ()
        self._at = None
        return (self._told,)

    def _changed(self) -> bool:
        assert self._inotify is not None
        found = False
        for watch, what, name in self._inotify.events():
            elsewhere = bool(what & (_OVERFLOW | _ELSEWHERE))
            found = found or elsewhere or name in self._names.get(watch, ())
        return found

    def due(self) -> float | None:
        """Seconds until a change is told."""
        return None if self._at is None else max(0.0, self._at - self._clock.monotonic())

    def close(self) -> None:
        """Watch nothing any more."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
        self._names = {}


def _folder_of(path: str) -> tuple[int, int] | None:
    """Device and inode of the folder in which that is."""
    with suppress(OSError):
        status = os.stat(path.rpartition("/")[0] or "/")
        return status.st_dev, status.st_ino
    return None
