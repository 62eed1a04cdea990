"""What wakes the loop, and what a pass may do.

It must not look at the host, plan or act by itself: a pass is handed in, and so is the spec.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from types import FrameType
from typing import Protocol, TypeVar

from reconciler.host.clock import Clock
from reconciler.host.progress import readable

T = TypeVar("T")
EVERYTHING = "*"
"""Among ids that want a look: all of them do."""
_REST = 30.0
"""Seconds for which a part that has failed is left alone."""
_STOPS = (signal.SIGTERM, signal.SIGINT)
_NOW = (signal.SIGUSR1, signal.SIGHUP)


class PassMaker(Protocol):
    """What the loop keeps doing."""

    def left(self) -> float | None:
        """Seconds until the next pass over everything; None: one is under way."""

    def full_pass(self, reread: bool) -> None:
        """Begin a pass over everything.

        ``reread``: somebody wants the spec read anew, whether it looks changed or not.
        """

    def partial_pass(self, ids: Collection[str]) -> None:
        """Begin a pass over these and what they need."""

    def part_failed(self, part: Part, error: Exception) -> None:
        """A part has failed, and is tried again later. It must not raise."""

    def moved(self) -> None:
        """The loop is alive: it goes to sleep now, or has just been woken."""

    @property
    def longest_sleep(self) -> float:
        """Seconds after which somebody wants to hear that the loop is alive."""


class Part(Protocol):
    """Something that goes on beside the passes. Nothing of it may wait."""

    def descriptors(self) -> Collection[int]:
        """What ends the sleep when it can be read."""

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """See to what is ``ready`` or due; the ids that want a pass now, or EVERYTHING."""

    def due(self) -> float | None:
        """Seconds until it wants ``tend``, whatever is ready; None: not before."""

    def close(self) -> None:
        """The loop ends."""


class _Guarded:
    """A part whose failure ends neither the loop nor the other parts.

    It rests for a while then, so that what fails at once is not tried without end.
    """

    def __init__(self, part: Part, clock: Clock, failed: Callable[[Part, Exception], None]) -> None:
        self.part = part
        self._clock = clock
        self._failed = failed
        self._rests = 0.0

    def descriptors(self) -> Collection[int]:
        return self._guard(self.part.descriptors, ())

    def tend(self, ready: Collection[int]) -> Collection[str]:
        return self._guard(lambda: self.part.tend(ready), ())

    def due(self) -> float | None:
        left = self._rests - self._clock.monotonic()
        rests: float | None = _REST
        return left if left > 0 else self._guard(self.part.due, rests)

    def close(self) -> None:
        self._rests = 0.0
        self._guard(self.part.close, None)

    def _guard(self, work: Callable[[], T], instead: T) -> T:
        if self._clock.monotonic() < self._rests:
            return instead
        try:
            return work()
        except Exception as error:
            self._rests = self._clock.monotonic() + _REST
            self._failed(self.part, error)
            return instead


class Loop:
    """Passes, one at start, one every interval, and one over what an event concerns.

    SIGUSR1 asks for a full pass now, SIGHUP for the spec to be read anew and then a pass;
    SIGTERM and SIGINT end it, and so does the SIGHUP of a terminal that was closed: the actions
    in hand come to their end if that is soon. What is managed goes on in all cases.
    """

    def __init__(self, work: PassMaker, clock: Clock, parts: Sequence[Part] = ()) -> None:
        self._work = work
        self._clock = clock
        self._parts = [_Guarded(part, clock, work.part_failed) for part in parts]
        self.stopping = False
        """Was its end asked for?"""
        self.asked_to_end = 0.0
        """When, by the monotonic clock."""
        # Only ever set by the handlers of signals, which come between any two steps of ours.
        self._asked = False
        self._reread = False
        self._wanted: set[str] = set()
        self._terminal = os.isatty(0)

    def run(self, begun: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. Only for the main thread.

        ``begun`` says that it runs; whoever is told so may send it any signal from then on.
        """
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        # A signal becomes a byte that ends the wait, so that none is lost before it, signal(7).
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._signalled) for number in (*_STOPS, *_NOW)}
        # Until now they were held: one that came while we began asks for a pass, and is no end.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOW)
        try:
            begun()
            while not self.stopping:
                self._pass()
                self._sleep(woken)
        finally:
            for part in self._parts:
                part.close()
            signal.set_wakeup_fd(before)
            if not self.stopping:
                # Held for the program that takes over, if one does.
                signal.pthread_sigmask(signal.SIG_BLOCK, _NOW)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            woken.close()
            wake.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        closed = number == signal.SIGHUP and self._terminal and not os.isatty(0)
        if number in _STOPS or closed:
            self.stopping, self.asked_to_end = True, self._clock.monotonic()
        else:
            if number == signal.SIGHUP:
                self._reread = True
            self._asked = True

    def _pass(self) -> None:
        """Begin a pass over all when one is due, else over what some event concerns."""
        left = self._work.left()
        wanted, self._wanted = self._wanted, set()
        if EVERYTHING in wanted:
            wanted.discard(EVERYTHING)
            self._asked = True
        if left is not None and (self._asked or left <= 0):
            # A signal that comes from here on asks for another one.
            self._asked = False
            reread = self._reread
            if reread:
                self._reread = False
            self._work.full_pass(reread)
        elif wanted:
            self._work.partial_pass(wanted)

    def _sleep(self, woken: socket.socket) -> None:
        self._work.moved()
        left = self._work.left()
        if left is not None and self._asked:
            left = 0.0
        seconds = [self._work.longest_sleep, *(part.due() for part in self._parts), left]
        longest = max(0.0, min(one for one in seconds if one is not None))
        parts = (descriptor for part in self._parts for descriptor in part.descriptors())
        if self.stopping:
            return
        found = set(readable((woken.fileno(), *parts), longest))
        with suppress(BlockingIOError):
            while os.read(woken.fileno(), 512):
                pass
        self._work.moved()
        for part in self._parts:
            self._wanted.update(part.tend(found))
