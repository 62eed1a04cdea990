"""What wakes the loop, and what a pass may do.

It must not look at the host, plan or act by itself: a pass is handed in, and so is the spec.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from reconciler.host.clock import Clock

_SHORTEST = 0.05
"""Seconds between two passes that nobody has asked for."""
_STOPS = (signal.SIGTERM, signal.SIGINT)
_NOW = (signal.SIGUSR1, signal.SIGHUP)


class Work(Protocol):
    """What the loop keeps doing."""

    def reload(self, asked: bool) -> float:
        """Take a changed spec, or keep the last good one; the seconds between two full passes.

        ``asked``: somebody wants it read anew, whether it looks changed or not.
        """

    def full_pass(self, stopping: Callable[[], bool]) -> float | None:
        """One pass over everything; it begins no further step once ``stopping`` says so.

        Seconds until another one is worth while before its time, or None.
        """

    def moved(self) -> None:
        """The loop is alive: it goes to sleep now, or has just been woken."""

    @property
    def longest_sleep(self) -> float:
        """Seconds after which somebody wants to hear that the loop is alive."""


class Loop:
    """Passes, one at start and then one every interval, until a signal ends it.

    SIGUSR1 asks for a pass now, SIGHUP for the spec to be read anew and then a pass; SIGTERM
    and SIGINT let the action in hand come to its end, and so does the SIGHUP of a terminal that
    was closed. What is managed goes on in all cases.
    """

    def __init__(self, work: Work, clock: Clock) -> None:
        self._work = work
        self._clock = clock
        self._stopping = False
        self._reload = False
        self._due = clock.monotonic()
        self._terminal = os.isatty(0)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Only for the main thread."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        # A signal becomes a byte that ends the wait, so that none is lost before it, signal(7).
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._signalled) for number in (*_STOPS, *_NOW)}
        poller = select.poll()
        poller.register(woken, select.POLLIN)
        try:
            while not self._stopping:
                self._pass()
                self._sleep(poller, woken)
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            woken.close()
            wake.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        closed = number == signal.SIGHUP and self._terminal and not os.isatty(0)
        if number in _STOPS or closed:
            self._stopping = True
        else:
            self._due = self._clock.monotonic()
            self._reload = self._reload or number == signal.SIGHUP

    def _pass(self) -> None:
        """A pass, when one is due."""
        begin = self._clock.monotonic()
        if begin < self._due:
            return
        asked, self._reload = self._reload, False
        every = self._work.reload(asked)
        self._due = begin + every
        sooner = self._work.full_pass(lambda: self._stopping)
        if sooner is not None:
            self._due = min(self._due, self._clock.monotonic() + max(sooner, _SHORTEST))

    def _sleep(self, poller: select.poll, woken: socket.socket) -> None:
        self._work.moved()
        left = self._due - self._clock.monotonic()
        if left > 0 and not self._stopping:
            poller.poll(min(left, self._work.longest_sleep) * 1000)
        try:
            while os.read(woken.fileno(), 512):
                pass
        except BlockingIOError:
            pass
        self._work.moved()
