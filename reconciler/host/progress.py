"""What takes long: how far work has come, that we wait and do not hang, and with an end to it.

Whoever watches is told. It must not know who that is, nor cost anything that counts where nobody
watches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from reconciler.base.records import dataclass, field

BEAT = 1.0
"""Seconds between two signs of life while something is waited for."""

_listeners: list[Callable[[], None]] = []


def on_waiting(listener: Callable[[], None]) -> None:
    """Have ``listener`` called again and again while this host waits for something with an end."""
    _listeners.append(listener)


def forget_parent() -> None:
    """For a child: its parent has the listeners, and the children that are still to end."""
    _listeners.clear()
    _dying.clear()
    on_entering()


def readable(descriptors: Iterable[int], seconds: float) -> list[int]:
    """Which of them can be read, as soon as one can; none when so many seconds are over."""
    import select

    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    # Rounded up: who waits for what is due in half a millisecond would spin. A C int, poll(2).
    wait = -(-max(0.0, min(seconds, 2e6)) * 1000 // 1)
    return [descriptor for descriptor, _ in poller.poll(wait)]


def still_waiting() -> None:
    """To be called now and then by whatever takes long: a wait with an end is no hang."""
    for listener in _listeners:
        listener()


_deadline: list[float] = []


def limit_waits(seconds: float) -> None:
    """From now on no program is waited for longer than until so many seconds from now, but for
    those in which we have no processor."""
    _deadline[:] = [time.monotonic() - starved(os.getpid()) + seconds]


def limited(timeout: float) -> float:
    """So many seconds, or what is left of that time."""
    if not _deadline:
        return timeout
    return min(timeout, max(0.0, _deadline[0] + starved(os.getpid()) - time.monotonic()))


_FAMILY = 16
"""Children of a process at most that are asked what they have waited for."""
_MOST_STARVED = 3.0
"""Times its own time that one gets besides, at most, for want of a processor."""


def starved(pid: int) -> float:
    """Seconds for which that process and the children that it has now have waited for a processor,
    proc_pid_schedstat(5): who does nothing else does not hang."""
    found = 0
    with suppress(OSError, IndexError, ValueError):
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            children = file.read(4096).split()
        for one in (str(pid).encode(), *children[:_FAMILY]):
            with open(b"/proc/%b/schedstat" % one, "rb") as file:
                found += int(file.read().split()[1])
    return found / 1e9


def extended(timeout: float, pid: int) -> float:
    """So many seconds, with those in which that process has waited for a processor."""
    return timeout + min(starved(pid), _MOST_STARVED * timeout)


COUNT, BYTES = "", "bytes"
"""What work is counted in: things, or bytes."""


@dataclass(slots=True, eq=False)
class Work:
    """Something that may take long: what in words, and how much of it is done.

    ``unit`` is COUNT or BYTES; ``total`` None: nobody knows how much there is.
    """

    what: str
    unit: str
    total: int | None
    done: int = field(default=0)

    def advance(self, by: int = 1) -> None:
        """So much more is done. To be called now and then; that it hangs is said by its silence."""
        self.done += by
        still_waiting()
        for watcher in _watchers:
            watcher.moved(self)


class Watcher(Protocol):
    """Hears of work. It must not raise, nor take long."""

    def begins(self, work: Work) -> None:
        """It begins; work within work begins later and ends sooner."""

    def moved(self, work: Work) -> None:
        """More of it is done."""

    def ends(self, work: Work) -> None:
        """It has come to an end, whichever."""


_watchers: list[Watcher] = []


def watch(watcher: Watcher) -> None:
    """Have ``watcher`` told of all work of this process from now on."""
    _watchers.append(watcher)


def unwatched() -> None:
    """Nobody is told any more: for a child, whose parent has the watchers."""
    _watchers.clear()


@contextmanager
def working(what: str, total: int | None, unit: str = COUNT) -> Iterator[Work]:
    """Work that is done within this context; call ``advance`` of what it gives."""
    work = Work(what, unit, total)
    for watcher in _watchers:
        watcher.begins(work)
    try:
        yield work
    finally:
        for watcher in _watchers:
            watcher.ends(work)


_entering: Callable[[str], None] | None = None
_refusing: Callable[[str, int], None] | None = None


def on_entering(
    entering: Callable[[str], None] | None = None,
    refusing: Callable[[str, int], None] | None = None,
) -> None:
    """Have ``entering`` told where what may hang is mounted before each look into it.

    ``refusing`` is told of what was found to be silent, as ``filesystems.silence`` takes it. From
    now on nobody else is told.
    """
    global _entering, _refusing
    _entering, _refusing = entering, refusing


def entering(point: str) -> None:
    """We are about to look into what is mounted there, and may hang."""
    if _entering is not None:
        _entering(point)


def refusing(point: str, pid: int) -> None:
    """It does not answer; that process may still wait for it."""
    if _refusing is not None:
        _refusing(point, pid)


_dying: set[int] = set()
_PATIENCE = 0.1
"""Seconds until a child that was killed is left to end by itself."""


def reap(pid: int) -> int | None:
    """How a child that was killed has ended, as waitpid(2) has it; None where it has not.

    One that hangs in the kernel, such as over a file server that is gone, is waited for by nobody.
    """
    ended = os.pidfd_open(pid)
    try:
        readable([ended], _PATIENCE)
    finally:
        os.close(ended)
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        return status
    _dying.add(pid)
    return None


def reap_killed() -> None:
    """Take note of the end of those that took their time to die."""
    for pid in list(_dying):
        if os.waitpid(pid, os.WNOHANG)[0]:
            _dying.discard(pid)


def is_dying(pid: int) -> bool:
    """Was that child killed, and has not ended yet? Its number is nobody else's until then."""
    reap_killed()
    return pid in _dying
