"""What commands have left in the background and what still writes to their logs, within a bound.
Must not wait for it, nor end what writes elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from reconciler.executor import files
from reconciler.executor.eventlog import EventLog
from reconciler.executor.folders import held
from reconciler.executor.layout import Layout
from reconciler.executor.processes import bound_writers, end_writers
from reconciler.host.openfiles import leased

MAX_LOG = 100 * 1024 * 1024  # bytes of output of one command, and of what it leaves behind
EVERY = 0.25  # seconds between two looks at the sizes
_ENDED = 2.0  # seconds between two looks whether somebody still writes
_MOST = 256  # logs; each is an open descriptor


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
                killed = ", ".join(map(str, end_writers(os.fstat(fd)))) or "none"
                cut_log(fd)
                self._log.error(
                    f"what {name.removesuffix('.log')} left behind wrote on until its output was "
                    f"over {MAX_LOG} bytes; the log was cut, processes killed: {killed}"
                )
            if ended and not _has_writer(fd):
                os.close(self._open.pop(name))

    def _note(self, logs: int, name: str) -> None:
        with contextlib.suppress(OSError):
            fd = files.open_regular(name, logs)
            writer = _has_writer(fd)
            if writer:
                # One byte more, so that it is seen to have written too much.
                bound_writers(os.fstat(fd), MAX_LOG + 1)
            if len(self._open) >= _MOST or not writer:
                os.close(fd)
                return
            if name in self._open:  # an earlier command of this id
                os.close(self._open.pop(name))
            self._open[name] = fd


def cut_log(fd: int) -> None:
    """Leave MAX_LOG bytes of an open log, and say so in it."""
    note = f"\n[output over {MAX_LOG} bytes: cut here, and the command was ended]\n"
    with contextlib.suppress(OSError):
        writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(writable, MAX_LOG)
            os.write(writable, note.encode())
        finally:
            os.close(writable)


def _has_writer(fd: int) -> bool:
    """Whether somebody has the file open for writing; True where that cannot be known."""
    return leased(fd, fcntl.F_RDLCK) is not True
