"""Learns at once that one of some files was written, replaced or removed, by inotify(7).

It must not read them. Where the kernel cannot tell (a network file system, too many watches)
nothing is told, and whoever asks has to look from time to time.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection, Iterable

from reconciler.host.clock import Clock
from reconciler.host.filesystems import turnings

# <sys/inotify.h>
_CLOSE_WRITE, _ATTRIB = 0x8, 0x4
_MOVED_FROM, _MOVED_TO = 0x40, 0x80
_CREATE, _DELETE = 0x100, 0x200
_ONLYDIR, _OVERFLOW = 0x01000000, 0x4000
_WHAT = _CLOSE_WRITE | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_EVENT = struct.Struct("iIII")
_MOST = 16
"""Blocks of events that are read at a time."""
_CALM = 0.1
"""Seconds without a further change: an editor writes, renames and removes in one go."""


class FileWatch:
    """Tells that one of the ``files`` has changed. ``told`` is what ``tend`` gives then."""

    def __init__(self, clock: Clock, told: str) -> None:
        self._clock = clock
        self._told = told
        self._names: dict[int, set[bytes]] = {}
        self._files: frozenset[str] = frozenset()
        self._places: frozenset[str] = frozenset()
        """The paths that are watched for their sake."""
        self._at: float | None = None
        self._library = ctypes.CDLL(None, use_errno=True)
        self._handle = -1

    def watch(self, files: Iterable[str]) -> None:
        """Watch these from now on: absolute paths, whether they exist or not."""
        self._files = frozenset(files)
        places = frozenset(place for path in self._files for place in turnings(path))
        if places == self._places and self._handle >= 0:
            return
        self.close()
        self._places = places
        handle = self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if handle < 0:
            return
        self._handle = handle
        for path in places:
            folder, _, name = path.rpartition("/")
            watch = self._library.inotify_add_watch(handle, os.fsencode(folder or "/"), _WHAT)
            if watch >= 0:
                self._names.setdefault(watch, set()).add(os.fsencode(name))

    def descriptors(self) -> Collection[int]:
        """The one to wait for."""
        return (self._handle,) if self._handle >= 0 else ()

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """``told``, once all has been calm for a moment after a change."""
        if self._handle in ready and self._changed():
            self.watch(self._files)  # They may be somewhere else now.
            self._at = self._clock.monotonic() + _CALM
        if self._at is None or self._clock.monotonic() < self._at:
            return ()
        self._at = None
        return (self._told,)

    def _changed(self) -> bool:
        found = False
        # What is left ends the next sleep: somebody may write faster than we read.
        for _ in range(_MOST):
            try:
                data = os.read(self._handle, 65536)
            except OSError:
                return found
            at = 0
            while at < len(data):
                watch, what, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                found = found or bool(what & _OVERFLOW) or name in self._names.get(watch, ())
        return found

    def due(self) -> float | None:
        """Seconds until a change is told."""
        return None if self._at is None else max(0.0, self._at - self._clock.monotonic())

    def close(self) -> None:
        """Watch nothing any more."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1
        self._names = {}
