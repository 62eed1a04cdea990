"""The logs of commands, and of what they leave in the background, kept within a limit.
Must not limit what a command writes elsewhere, nor wait for what writes.
"""

from __future__ import annotations

import contextlib
import os
import select
import time

from reconciler.executor import files
from reconciler.executor.eventlog import EventLog
from reconciler.executor.home import Layout, held
from reconciler.executor.processes import bound_writers, end_writers, free_writers
from reconciler.host.inotify import MODIFY, ONCE, Inotify
from reconciler.host.openfiles import has_writer
from reconciler.host.walk import closing

MAX_LOG = 100 * 1024 * 1024  # bytes of output of one command, and of what it leaves behind
EVERY = 0.25  # seconds between two looks at the sizes
_NEAR = 0.9  # of the limit: from here on no writer can go over it
_AHEAD = 1.0  # seconds in which the limit could be reached at the speed of the last look
_FIRST = 0.005  # seconds from the first write to the look that tells the speed
_GROWING = 0.025  # seconds between two looks at a log that grows
_ENDED = 2.0  # seconds between two looks whether somebody still writes
_MOST = 256  # logs; each is an open descriptor


class Output:
    """Looks at the log that is open as `fd` when it is written to.

    A limit of the size of files (RLIMIT_FSIZE) would hold for every file of the command, and a
    backup is longer than its log may be. So only who has the log open gets one, while the log is
    nearly full or grows so fast that it would be full before long; the kernel ends it then.
    """

    def __init__(self, fd: int, most: int, pid: int) -> None:
        self._fd = fd
        self._most = most
        self._size = 0
        self._at = time.monotonic()
        self._near_at: float | None = None
        self._armed = False
        self._epoll = select.epoll()
        self.wakes = self._epoll.fileno()
        """Readable as soon as the log is written to, or the process has ended."""
        self._pidfd = os.pidfd_open(pid)
        self._epoll.register(self._pidfd, select.EPOLLIN)
        self._inotify: Inotify | None = None
        with contextlib.suppress(OSError):  # Without it, the log is looked at every EVERY.
            self._inotify = Inotify()
            self._epoll.register(self._inotify.handle, select.EPOLLIN)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *error: object) -> None:
        self._epoll.close()
        os.close(self._pidfd)
        if self._inotify is not None:
            self._inotify.close()

    def look(self) -> float | None:
        """Seconds until it has to be looked at again; None: it is over its limit."""
        if self._inotify is not None:
            for _ in self._inotify.events():
                pass
        now, size = time.monotonic(), os.fstat(self._fd).st_size
        grown, speed = size > self._size, (size - self._size) / max(now - self._at, 0.001)
        self._size, self._at = size, now
        if size > self._most:
            bound_writers(self._fd, self._most + 1)
            return None
        if size > _NEAR * self._most or size + _AHEAD * speed > self._most:
            if grown or self._near_at is None:
                # One byte more, so that it is seen to have written too much.
                bound_writers(self._fd, self._most + 1, for_good=False)
            self._near_at = now
        elif self._near_at is not None and now - self._near_at > _AHEAD:
            free_writers(self._fd, self._most + 1)
            self._near_at = None
        if grown:
            first, self._armed = self._armed, False
            return _FIRST if first else _GROWING
        if self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.add(f"/proc/self/fd/{self._fd}", MODIFY | ONCE)
                self._armed = True
        return EVERY


class Leftovers:
    """The logs of ended commands that somebody still writes to."""

    def __init__(self, layout: Layout, log: EventLog) -> None:
        self._layout = layout
        self._log = log
        self._open: dict[str, int] = {}
        self._look_at = 0.0
        self._ended_at = 0.0

    def find(self) -> None:
        """Those that an earlier worker has left. Raises OSError."""
        with held(self._layout.logs, readable=True) as logs:
            for name in os.listdir(logs):
                if name.endswith(".log"):
                    self._note(logs, name)

    def note(self, command_id: str) -> None:
        """The command has ended; has what it left behind?"""
        with contextlib.suppress(OSError), held(self._layout.logs) as logs:
            self._note(logs, f"{command_id}.log")

    def wake_in(self) -> float:
        """Seconds until `look` is to be called; infinite while nobody writes."""
        return self._look_at - time.monotonic() if self._open else float("inf")

    def look(self) -> None:
        """End what has written too much."""
        now = time.monotonic()
        if not self._open or now < self._look_at:
            return
        self._look_at = now + EVERY
        ended = now >= self._ended_at
        if ended:
            self._ended_at = now + _ENDED
        for name, fd in list(self._open.items()):
            if os.fstat(fd).st_size > MAX_LOG:
                killed = ", ".join(map(str, end_writers(fd))) or "none"
                cut_log(fd)
                self._log.error(
                    f"what {name.removesuffix('.log')} left behind wrote on until its output was "
                    f"over {MAX_LOG} bytes; the log was cut, processes killed: {killed}"
                )
            if ended and has_writer(fd) is False:
                os.close(self._open.pop(name))

    def _note(self, logs: int, name: str) -> None:
        with contextlib.suppress(OSError):
            fd = files.open_regular(name, logs)
            writer = has_writer(fd) is not False
            if writer:
                # One byte more, so that it is seen to have written too much.
                bound_writers(fd, MAX_LOG + 1)
            if len(self._open) >= _MOST or not writer:
                os.close(fd)
                return
            if name in self._open:  # an earlier command of this id
                os.close(self._open.pop(name))
            self._open[name] = fd


def cut_log(fd: int) -> None:
    """Leave MAX_LOG bytes of an open log, and say so in it."""
    note = f"\n[output over {MAX_LOG} bytes: cut here, and the command was ended]\n"
    flags = os.O_WRONLY | os.O_APPEND
    with contextlib.suppress(OSError), closing(os.open(f"/proc/self/fd/{fd}", flags)) as writable:
        os.ftruncate(writable, MAX_LOG)
        os.write(writable, note.encode())
