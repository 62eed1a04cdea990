"""Which files the processes of this host hold open, as far as the caller may see: proc(5).

It must not open what it looks at. Without root only the caller's own processes are visible.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from reconciler.host.clock import Clock

_FRESH = 0.2
"""Seconds for which one look at the process table is believed."""


class OpenFiles:
    """Device and inode of what is open: only ``of`` those files, or of all with None."""

    def __init__(self, clock: Clock, of: Iterable[tuple[int, int]] | None) -> None:
        self._clock = clock
        self._of = None if of is None else frozenset(of)
        self._open: set[tuple[int, int]] = set()
        self._seen: float | None = None

    def holds(self, device: int, inode: int) -> bool:
        """Does a process other than this one have it open, as of a moment ago?"""
        if self._of is not None and not self._of:
            return False
        now = self._clock.monotonic()
        if self._seen is None or now - self._seen > _FRESH:
            self._open = self._look()
            self._seen = self._clock.monotonic()
        return (device, inode) in self._open

    def _look(self) -> set[tuple[int, int]]:
        found = set()
        me = str(os.getpid())
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or pid == me:
                continue
            folder = f"/proc/{pid}/fd"
            try:
                numbers = os.listdir(folder)
            except OSError:
                continue  # It has ended, or is somebody else's.
            for number in numbers:
                try:
                    status = os.stat(f"{folder}/{number}")
                except OSError:
                    continue
                key = status.st_dev, status.st_ino
                if self._of is None or key in self._of:
                    found.add(key)
        return found
