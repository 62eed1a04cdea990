"""The loop's sign of life in the state directory: who it is, and when it was last seen to move.

It must not decide what follows from it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from reconciler.host.clock import Clock
from reconciler.host.processes import Identity, Processes, boot_id, look_up
from reconciler.store import make_folder

_NAME = "loop"
_BEATS = 3
_PATIENCE = 30.0
"""A loop counts as hung when it has not moved for three intervals and so many seconds."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A loop that runs, or hangs. ``age`` is in seconds since it moved last."""

    identity: Identity
    age: float
    every: float

    @property
    def healthy(self) -> bool:
        """Has it moved lately?"""
        return self.age <= _BEATS * self.every + _PATIENCE


class Heart:
    """What the loop beats with; the file is there as long as it runs."""

    def __init__(self, folder: str, clock: Clock) -> None:
        make_folder(folder)
        self._path = os.path.join(folder, _NAME)
        self._clock = clock
        self._last = -1.0
        entry = look_up(os.getpid())
        start = entry.identity.start if entry is not None else 0
        self._who = f"{boot_id()} {os.getpid()} {start}"
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # Whatever stands there, nobody else's file is written to.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self._path, flags, 0o600)

    def beat(self, every: float) -> None:
        """Say that the loop has moved; at most once a second reaches the file."""
        now = self._clock.monotonic()
        if 0 <= now - self._last < 1.0:
            return
        self._last = now
        # A full disk must not end the loop, and the file keeps its place once it is written.
        with suppress(OSError):
            os.pwrite(self._handle, f"{self._who} {now:15.3f} {every:12.3f}\n".encode(), 0)

    def stop(self) -> None:
        """The loop ends in an orderly way."""
        os.close(self._handle)
        with suppress(OSError):
            os.unlink(self._path)


def pulse(folder: str, clock: Clock) -> Pulse | None:
    """The loop of that state directory; None when none runs, or not since this boot."""
    try:
        handle = os.open(
            os.path.join(folder, _NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return None
    try:
        words = os.read(handle, 200).decode(errors="replace").split()
    finally:
        os.close(handle)
    try:
        boot, pid, start, moved, every = words
        identity = Identity(int(start), int(pid))
        age, interval = clock.monotonic() - float(moved), float(every)
    except ValueError:
        return None
    entry = look_up(identity.pid)
    if boot != boot_id() or entry is None or entry.identity != identity:
        return None
    return Pulse(identity, age, interval)


def end(hung: Pulse, clock: Clock) -> None:
    """End a loop that hangs; what it manages goes on. Raises HostError when it stays."""
    Processes(clock).kill(hung.identity)
