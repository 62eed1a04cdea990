"""Whose turn it is: at most one actor on one spec, and none that hangs keeps the others out.

It must not touch anything but a loop of that spec that has stopped moving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from reconciler.state.folder import Busy, locked

if TYPE_CHECKING:
    from reconciler.state.heartbeat import WatchdogHeartbeat

_AFTER_END = 5.0
"""Seconds until the lock of one that was ended must be free."""


class LockHeld(Exception):
    """Another actor is at work on this spec. ``loop`` is it, or None when it is a pass."""

    def __init__(self, pid: int | None, loop: WatchdogHeartbeat | None) -> None:
        super().__init__(pid, loop)
        self.loop = loop
        self.pid = pid if loop is None else loop.identity.pid

    def __str__(self) -> str:
        who = f" (pid {self.pid})" if self.pid is not None else ""
        if self.loop is None:
            return f"another pass is at work{who}"
        return f"the watchdog{who} keeps it as declared"


@contextmanager
def turn(folder: str, told: Callable[[str], None], patience: float = 0.0) -> Iterator[int]:
    """Hold the lock of the state directory ``folder``; its descriptor. Raises Taken, or HostError.

    A loop that has stopped moving is ended, which is ``told``. A pass that is at work is waited
    for, ``patience`` seconds at most; a loop is not.
    """
    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(folder, patience, lambda: _loop(folder) is not None))
        except Busy as busy:
            loop = _loop(folder)
            if loop is None or loop.healthy:
                raise LockHeld(busy.pid, loop) from None
            told(
                f"the loop (pid {loop.identity.pid}) has not moved for {loop.age:.0f} s; "
                "it is ended, and its work is taken over"
            )
            _end(loop)
            try:
                lock = held.enter_context(locked(folder, _AFTER_END))
            except Busy as faster:
                raise LockHeld(faster.pid, _loop(folder)) from None
        yield lock


def ask(taken: LockHeld, folder: str, patience: float = 60.0) -> bool:
    """Have the loop that is at work make a pass now; did it within ``patience`` seconds?"""
    if taken.loop is None:
        return False
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import ask

    return ask(taken.loop, folder, Clock(), patience)


def _loop(folder: str) -> WatchdogHeartbeat | None:
    # Only where somebody is in the way, so that a pass alone need not load this.
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import pulse

    return pulse(folder, Clock())


def _end(loop: WatchdogHeartbeat) -> None:
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import end

    end(loop, Clock())
