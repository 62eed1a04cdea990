"""The log of a running command, kept within its bound.
Must not bound what a command writes elsewhere, unless it fills its log at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time

from reconciler.executor.leftovers import EVERY
from reconciler.executor.processes import bound_writers, free_writers
from reconciler.executor.watch import inotify_open

_NEAR = 0.9  # of the bound: from here on no writer can go over it
_AHEAD = 1.0  # seconds in which the bound could be reached at the speed of the last look
_FIRST = 0.005  # seconds from the first write to the look that tells the speed
_GROWING = 0.025  # seconds between two looks at a log that grows
_MODIFY_ONCE = 0x2 | 0x80000000  # IN_MODIFY and IN_ONESHOT, inotify(7)


class Output:
    """Looks at the log that is open as `fd` when it is written to.

    A limit of the size of files (RLIMIT_FSIZE) would hold for every file of the command, and a
    backup is longer than its log may be. So only who has the log open gets one, while the log is
    nearly full or grows so fast that it would be full before long; the kernel ends it then.
    """

    def __init__(self, fd: int, most: int, pidfd: int | None) -> None:
        self._fd = fd
        self._most = most
        self._size = 0
        self._at = time.monotonic()
        self._near_at: float | None = None
        self._armed = False
        self._epoll = select.epoll()
        self.wakes = None if pidfd is None else self._epoll.fileno()
        """Readable as soon as the log is written to, or that process has ended."""
        if pidfd is not None:
            self._epoll.register(pidfd, select.EPOLLIN)
        self._notify, self._libc = -1, None
        with contextlib.suppress(OSError):  # Without it, the log is looked at every EVERY.
            self._notify, self._libc = inotify_open()
            self._epoll.register(self._notify, select.EPOLLIN)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *error: object) -> None:
        self._epoll.close()
        if self._notify >= 0:
            os.close(self._notify)

    def look(self) -> float | None:
        """Seconds until it has to be looked at again; None: it is over its bound."""
        if self._libc is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._notify, 4096)
        now, size = time.monotonic(), os.fstat(self._fd).st_size
        grown, speed = size > self._size, (size - self._size) / max(now - self._at, 0.001)
        self._size, self._at = size, now
        if size > self._most:
            bound_writers(os.fstat(self._fd), self._most + 1)
            return None
        if size > _NEAR * self._most or size + _AHEAD * speed > self._most:
            if grown or self._near_at is None:
                # One byte more, so that it is seen to have written too much.
                bound_writers(os.fstat(self._fd), self._most + 1, for_good=False)
            self._near_at = now
        elif self._near_at is not None and now - self._near_at > _AHEAD:
            free_writers(os.fstat(self._fd), self._most + 1)
            self._near_at = None
        if grown:
            first, self._armed = self._armed, False
            return _FIRST if first else _GROWING
        if self._libc is not None:
            path = ctypes.c_char_p(f"/proc/self/fd/{self._fd}".encode())
            self._armed = self._libc.inotify_add_watch(self._notify, path, _MODIFY_ONCE) >= 0
        return EVERY
