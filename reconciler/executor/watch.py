"""Notices that something happened in one directory: by inotify, or by looking often without it.
Must not look at the files themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time

from reconciler.executor.home import UntrustedFolder, opened

LOOK_EVERY = 0.04  # seconds, without inotify

# inotify(7)
_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_DELETE_SELF, _MOVE_SELF, _ONLYDIR = 0x400, 0x800, 0x01000000
_MASK = _CLOSE_WRITE | _MOVED_TO | _CREATE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name after it
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


def inotify_open() -> tuple[int, ctypes.CDLL]:
    """An inotify descriptor and the library to use it with. Raises OSError."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
    except AttributeError as error:
        raise OSError(str(error)) from None
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd, libc


class Watch:
    """A watch on `path`, which may be removed and made again.

    `fd` becomes readable when something happened; where it is None, ask `changed` every
    LOOK_EVERY seconds.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd: int | None = None
        self.why_looking = ""
        self._libc: ctypes.CDLL | None = None
        self._watched: tuple[int, int] | None = None
        self._number = -1
        self._seen: int | None = None
        try:
            self.fd, self._libc = inotify_open()
        except OSError as error:
            self.why_looking = str(error)

    def ensure(self) -> bool:
        """Watch the directory that has the name now. True if that is another one than before.

        Raises Untrusted.
        """
        try:
            folder = opened(self.path)
        except UntrustedFolder:
            raise
        except OSError:
            self._watched = None
            return False
        try:
            return self._ensure(folder)
        finally:
            os.close(folder)

    def _ensure(self, folder: int) -> bool:
        info = os.fstat(folder)
        if (info.st_dev, info.st_ino) == self._watched:
            return False
        if self._libc is not None and self.fd is not None:
            if self._number >= 0:
                self._libc.inotify_rm_watch(self.fd, self._number)
            path = f"/proc/self/fd/{folder}".encode()
            self._number = self._libc.inotify_add_watch(self.fd, path, _MASK)
            if self._number < 0:
                self._look_instead(os.strerror(ctypes.get_errno()))
        self._watched = (info.st_dev, info.st_ino)
        self._seen = None
        return True

    def changed(self) -> bool:
        """Whether something may have happened since the last call."""
        if self.fd is not None:
            return self._drain()
        try:
            modified = os.stat(self.path).st_mtime_ns
        except OSError:
            return True
        # Two changes within one tick of the clock show the same time: a fresh one counts again.
        fresh = abs(time.time_ns() - modified) < 100_000_000
        moved = modified != self._seen
        self._seen = modified
        return moved or fresh

    def _drain(self) -> bool:
        assert self.fd is not None
        happened = False
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self.fd, 65536):
                happened = True
                self._notice_removal(events)
        return happened

    def _notice_removal(self, events: bytes) -> None:
        """A new directory can have the number of the removed one: only the kernel tells."""
        at = 0
        while at < len(events):
            number, mask, _, length = _EVENT.unpack_from(events, at)
            if number == self._number and mask & (_IGNORED | _MOVE_SELF):
                self._watched = None
            at += _EVENT.size + length

    def _look_instead(self, why: str) -> None:
        assert self.fd is not None
        os.close(self.fd)
        self.fd, self._libc, self._number = None, None, -1
        self.why_looking = why
