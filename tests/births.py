"""Workers that tell when they begin, exactly: for tests and benchmarks that kill them."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from support import Machine

_LONGEST = 120.0
"""Seconds within which a worker must be back."""


class Births:
    """Workers that tell of themselves as the first thing they do, down a FIFO."""

    def __init__(self, machine: Machine, base: Path | None = None, seen: str = "") -> None:
        """``base``: their folder, if it is not the machine's own, which they see as ``seen``."""
        base = machine.base if base is None else base
        path = base / "births"
        self._path = Path(seen) / "births" if seen else path
        os.mkfifo(path)
        # Both ends, so that no worker ever waits for a reader, fifo(7).
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self._told: list[tuple[float, str, int]] = []
        self.names: dict[int, str] = {}
        """All that were ever born: the name of each, by its number."""
        self.broken = base / "broken"
        """A worker whose name is a file in this folder ends at once, and tells nothing."""
        self.broken.mkdir()
        shown = Path(seen) if seen else base
        self._worker = shown / "worker.sh"
        (base / "worker.sh").write_text(
            f'#!/bin/sh\ntest -e "{shown}/broken/$1" && exit 3\n'
            f'echo "$1 $$" > "{self._path}"\nexec sleep 100000\n'
        )

    def close(self) -> None:
        """Nobody listens from now on."""
        os.close(self._fifo)

    def living(self, machine: Machine) -> list[str]:
        """The names of the workers that run now, sorted; a "?" for one that told nothing."""
        pids = machine.running("sleep 100000")
        self.left()  # Each has told of itself before it became what is looked for.
        return sorted(self.names.get(pid, "?") for pid in pids)

    def argv(self, name: str) -> list[str]:
        """The command line of a worker of that name."""
        return ["/bin/sh", str(self._worker), name]

    def next(self, name: str, seconds: float = _LONGEST) -> tuple[float, int]:
        """When (time.monotonic) the next worker of that name ran, and its number."""
        end = time.monotonic() + seconds
        while True:
            for at, (when, who, pid) in enumerate(self._told):
                if who == name:
                    del self._told[at]
                    return when, pid
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{name}: no worker within {seconds:g} s")

    def many(self, number: int, seconds: float = _LONGEST) -> list[tuple[float, str, int]]:
        """So many births, of whoever."""
        end = time.monotonic() + seconds
        while len(self._told) < number:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"only {len(self._told)} of {number} within {seconds:g} s")
        told, self._told = self._told[:number], self._told[number:]
        return told

    def left(self) -> int:
        """Births that nobody has asked for."""
        while self._read(0):
            pass
        return len(self._told)

    def _read(self, seconds: float) -> bool:
        """Take what has been told by then; False when that is nothing."""
        if not select.select([self._fifo], [], [], max(0.0, seconds))[0]:
            return False
        now = time.monotonic()
        *lines, self._rest = (self._rest + os.read(self._fifo, 65536)).split(b"\n")
        for line in lines:
            name, pid = line.decode().split()
            self._told.append((now, name, int(pid)))
            self.names[int(pid)] = name
        return True
