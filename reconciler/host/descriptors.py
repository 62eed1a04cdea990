"""What a process of ours has open: what a child must let go of, and how much there may be.

It must not open anything but the null device.
"""

from __future__ import annotations

import os
import resource
import stat
from contextlib import suppress

_before: list[tuple[int, int]] = []
"""The limit of open files as our caller has handed it down, where it was raised."""


def is_awaited(status: os.stat_result) -> bool:
    """May somebody wait until the last one has closed it? A pipe, or a socket."""
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)


def let_go_of_streams(*numbers: int) -> None:
    """Have the null device in place of these standard streams, where somebody waits for their end.

    For a child that may hang in the kernel, where no signal ends it.
    """
    awaited = [number for number in numbers if is_awaited(os.fstat(number))]
    if awaited:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in awaited:
            os.dup2(nowhere, number)
        os.close(nowhere)


def close_all_but(*kept: int) -> None:
    """Close every descriptor but 0, 1, 2 and those, close_range(2)."""
    try:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    except OSError:
        highest = 65536  # Nothing is left to look with.
    begin = 3
    for one in sorted(kept):
        os.closerange(begin, one)
        begin = max(begin, one + 1)
    os.closerange(begin, highest + 1)


def raise_limit() -> None:
    """Open as many files as this process may ever, getrlimit(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some kernels refuse a hard limit that was set before theirs was lowered.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _before.append((soft, hard))


def usual_limit() -> None:
    """As many as before that: for a child, and for what it runs."""
    if _before:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, _before.pop())
