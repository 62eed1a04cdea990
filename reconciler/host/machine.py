"""The machine itself: its load, its processors, and its memory.

It must not judge them, nor know how much of them is whose.
"""

from __future__ import annotations

import os

from reconciler.base.records import dataclass


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """In bytes; ``available`` is what can be had without swapping."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def memory() -> MemoryFigures:
    """Of /proc/meminfo, proc(5). Raises OSError."""
    found = {}
    with open("/proc/meminfo", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return MemoryFigures(
        found.get("MemTotal", 0),
        found.get("MemAvailable", found.get("MemFree", 0)),
        found.get("SwapTotal", 0),
        found.get("SwapFree", 0),
    )


def load() -> tuple[float, float, float]:
    """How many wanted to run, as an average of 1, 5 and 15 minutes. Raises OSError."""
    return os.getloadavg()


def processors() -> int:
    """How many we may run on."""
    return len(os.sched_getaffinity(0))
