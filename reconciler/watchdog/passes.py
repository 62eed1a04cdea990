"""The passes of a loop, each in a child of its own, so that none holds up another.

It must not decide what is due. It knows which resources each pass is at, and lets no two be at
the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, field
from reconciler.base.text import error_in_words
from reconciler.host.bounded import StallDetector
from reconciler.host.child import ChildLine, Forked, Interrupted
from reconciler.host.clock import Clock
from reconciler.host.filesystems import silence
from reconciler.host.progress import BEAT, on_entering, on_waiting, readable

_SILENCE = 90.0
"""Seconds without a sign of life after which a pass counts as hung."""
_GLANCE = 1.0
"""Seconds between two looks whether one does anything that has entered what may not answer."""
_MOST = 8
"""Passes at the same time."""
_GRACE = 1.0
"""Seconds that the loop's end waits for the step in hand, and as long again for its undoing."""


class Teller:
    """The child's side of a pass: says what is done, and asks before it does it."""

    def __init__(self, line: ChildLine, clock: Clock) -> None:
        self._line = line
        self._clock = clock
        self._said = clock.monotonic()
        on_waiting(self._alive)
        on_entering(partial(self.tell, "entered"), partial(self.tell, "silent"))

    def tell(self, what: str, *values: Any) -> None:
        """Say it; the parent's ``heard`` gets it."""
        self._said = self._clock.monotonic()
        self._line.say((what, values))

    def ask(self, what: str, *values: Any) -> Any:
        """Say it, and wait for the answer. Raises HostError when that is one."""
        self.tell(what, *values)
        answer = self._line.wait()
        if isinstance(answer, HostError):
            raise answer
        return answer

    def turn(self, ids: Collection[str]) -> Any:
        """Wait until nobody else is at these; from now on this pass is, and at nothing else.

        Gives what ``news`` gave in the parent then, and whether nobody else has been at any of
        these since this pass began.
        """
        return self.ask("turn", frozenset(ids))

    def _alive(self) -> None:
        if self._clock.monotonic() - self._said >= BEAT:
            self.tell("alive")


@dataclass(slots=True, eq=False)
class Pass:
    """A pass that is under way. ``only`` are the ids that it is about, empty for all.

    ``at`` are those that it acts on now, and ``waits`` those that it wants to be at. ``entered``
    is where that is mounted which it has looked into last, of what may not answer; it has
    ``hung`` there where it is to be made again without that.
    """

    child: Forked
    only: frozenset[str]
    begun: float
    heard: float
    at: frozenset[str] = field(default=frozenset())
    waits: frozenset[str] | None = field(default=None)
    result: Any = field(default=None)
    error: str | None = field(default=None)
    entered: str | None = field(default=None)
    still: StallDetector | None = field(default=None)
    hung: bool = field(default=False)


class Passes:
    """A part of the loop.

    ``work`` is done in the child, and what it gives is the pass's ``result``. ``heard`` takes
    what a child tells, and gives the answer to what it asks, or raises HostError with it.
    ``over`` takes a pass that has ended, with its result or the ``error`` that ended it. ``news``
    gives what a pass should know whose turn has come.
    """

    def __init__(
        self,
        clock: Clock,
        work: Callable[[Teller, Sequence[str], Callable[[], bool]], Any],
        heard: Callable[[Pass, str, Sequence[Any]], Any],
        over: Callable[[Pass], None],
        news: Callable[[], Any],
    ) -> None:
        self._clock = clock
        self._work = work
        self._heard = heard
        self._over = over
        self._news = news
        self.ending = False
        """Does the loop end, and with it the passes?"""
        self._going: list[Pass] = []
        self._left: dict[str, float] = {}
        """When a pass that was at each of these was so for the last time."""

    def begin(self, only: Collection[str]) -> Pass:
        """Begin a pass over these ids and what they need, or over all. Raises OSError."""

        def work(line: ChildLine, asked: Callable[[], bool]) -> None:
            teller = Teller(line, self._clock)
            try:
                teller.tell("end", self._work(teller, sorted(only), asked))
            except Interrupted:
                teller.tell("error", "it was interrupted, because the loop ends")
            except Exception as error:
                teller.tell("error", error_in_words(error))

        now = self._clock.monotonic()
        begun = Pass(Forked(work), frozenset(only), now, now)
        self._going.append(begun)
        return begun

    @property
    def idle(self) -> bool:
        """Is none under way?"""
        return not self._going

    def room(self) -> bool:
        """May another one begin?"""
        return len(self._going) < _MOST

    def about(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that some pass over a part is about already."""
        return {ident for one in self._going for ident in one.only if ident in ids}

    def of_others(self, one: Pass | None) -> set[str]:
        """The ids that other passes are at now, or that one over a part is about."""
        others = (other for other in self._going if other is not one)
        return {ident for other in others for ident in other.at | other.only}

    def at_of_others(self, one: Pass) -> set[str]:
        """The ids that other passes are at now."""
        return {ident for other in self._going if other is not one for ident in other.at}

    def descriptors(self) -> Collection[int]:
        """One for each pass; readable when it has told something, or has ended."""
        return [one.child.line.descriptor for one in self._going]

    def due(self) -> float | None:
        """Seconds until one that stays silent counts as hung, or may do so."""
        now = self._clock.monotonic()
        times = (
            _GLANCE if one.entered else max(0.0, one.heard + _SILENCE - now) for one in self._going
        )
        return min(times, default=None)

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Hear what is told, and bury those that have ended or hang."""
        now = self._clock.monotonic()
        for one in list(self._going):
            try:
                if one.child.line.descriptor in ready:
                    one.heard = now
                    for what, values in one.child.line.hear():
                        self._take(one, what, values)
                elif now - one.heard >= _SILENCE:
                    where = f" at {', '.join(sorted(one.at))}" if one.at else ""
                    one.error = f"no sign of life for {_SILENCE:g} s{where}, so it was ended"
                    self._end(one)
                    continue
                if one.entered and one.still and one.still.is_hung(one.entered):
                    silence(one.entered, one.child.pid)
                    one.hung = True
                    self._end(one)
            except EOFError:
                self._end(one)
            except Exception as error:
                one.error = error_in_words(error)
                self._end(one)
        return ()

    def _take(self, one: Pass, what: str, values: Sequence[Any]) -> None:
        if what == "turn":
            self._leave(one)
            one.at, one.waits = frozenset(), values[0]
            self._grant()
        elif what == "end":
            one.result = values[0]
        elif what == "error":
            one.error = values[0]
        elif what == "entered":
            one.entered, one.still = values[0], one.still or StallDetector(one.child.pid)
        elif what == "silent":
            silence(*values)
        elif what != "alive":
            try:
                answer = self._heard(one, what, values)
            except HostError as error:
                answer = error
            if what in ASKS:
                one.child.line.say(answer)

    def _grant(self) -> None:
        """Let those go on that wait for something which nobody is at any more."""
        for one in self._going:
            if one.waits is None or any(one.waits & other.at for other in self._going):
                continue
            one.at, one.waits = one.waits, None
            alone = all(self._left.get(ident, 0.0) < one.begun for ident in one.at)
            try:
                one.child.line.say((self._news(), alone))
            except OSError:
                continue  # It has ended, which is heard next.

    def _leave(self, one: Pass) -> None:
        self._left |= dict.fromkeys(one.at, self._clock.monotonic())

    def _end(self, one: Pass) -> None:
        self._going.remove(one)
        self._leave(one)
        if not self._going:
            self._left.clear()  # Those that begin later look later.
        ending = "killed"
        try:
            one.child.line.close()
            ending = one.child.kill()
        finally:
            if one.result is None and one.error is None and not one.hung:
                one.error = f"its process ended without a word ({ending})"
            self._grant()
            self._over(one)

    def close(self) -> None:
        """The loop ends: the steps in hand may come to their end, if that is soon."""
        self.ending = True
        for act in (Forked.ask_to_end, Forked.interrupt):
            for one in self._going:
                act(one.child)
            end = self._clock.monotonic() + _GRACE
            while self._going and (left := end - self._clock.monotonic()) > 0:
                self.tend(readable(self.descriptors(), left))
        for one in list(self._going):
            one.error = "it was killed, because the loop ends"
            self._end(one)


ASKS = frozenset(("stop", "looked", "moved"))
"""What a child waits for the answer to, besides its turn."""
