"""Delivers what waits in the outbox: a child for each target, and a pause where one refuses.

It must not hold a pass up: what is not taken is tried again later. It must not show a URL, and
only the child ever reads one from its file. A message comes twice only where the child is killed
between its arrival and the note of it: one whose loop is killed goes on, and is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.base.values import Notify, Target
from reconciler.core.messages import dated
from reconciler.core.model import Spec
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.host.progress import readable
from reconciler.notify.delivery import TIMEOUT, Off, off, unanswered, understood, work
from reconciler.notify.outbox import title
from reconciler.notify.transitions import quiet_left
from reconciler.state.folder import delivery_lock, quiet

if TYPE_CHECKING:
    from reconciler.state.store import Store
    from reconciler.state.store.outbox import QueuedMessage

URGENT, DIGEST = "gave_up", "digest"
"""See ``store.outbox``, which a pass need not load."""

_TOGETHER = 4
"""Deliveries at the same time: each takes some 45 MB while it lasts."""
_FEW = 5
"""Messages for one target that go out one by one; more are put together into one."""
_CALM = 10.0
"""Seconds behind such a digest until the next one, so that a storm comes in few messages."""
_LATE = 300.0
"""Seconds after which a message says when it was written."""
_REST = 60.0
"""Seconds until a store that could not be used is tried again."""
_OTHERS = 0.5
"""Seconds between two looks whether those of a loop that was killed have ended."""

_FOR_GOOD = frozenset(("HTTP 400", "HTTP 413", "HTTP 422"))
"""What a service says of a message that it will not take however often it is sent."""
_SHORT = 900
"""Characters of a message that every service takes."""

Told = Callable[[str, bool], None]
"""Takes words about a target, and whether something is wrong with it."""


class Sender:
    """Delivers what waits in the outbox of a spec: a part of the loop.

    ``opened`` gives the store; ``told`` hears when a target begins to fail, is well again, or is
    off.
    """

    def __init__(
        self,
        folder: str,
        opened: Callable[[], Store],
        clock: Clock,
        told: Told,
        start: Callable[..., Child] = Child,
    ) -> None:
        self._folder = folder
        self._opened = opened
        self._clock = clock
        self._told = told
        self._child = start
        self._notify = Notify()
        self._targets: dict[str, Target] = {}
        self._busy: dict[str, _Delivery] = {}
        self._calm: dict[str, float] = {}
        """Until when a target gets only what was given up, by the monotonic clock."""
        self._failing: set[str] = set()
        self._unnoted: list[QueuedMessage] = []
        """What has arrived, and is in the store all the same."""
        self._lock: int | None = None
        self._hindrance: str | None = None
        self._off: dict[str, str] = {}
        self._adopted = False
        self._at: float | None = None
        """When something is to be begun, by the monotonic clock; None: nothing is waiting."""

    def adopt(self, notify: Notify) -> None:
        """These are the targets from the next ``woken`` on."""
        self._notify = notify
        self._targets = {target.name: target for target in notify.targets}
        for name in self._busy.keys() - self._targets.keys():
            self._busy.pop(name).child.kill()
        self._failing &= self._targets.keys()
        self._adopted = True

    def woken(self) -> None:
        """There may be new messages; and is every target that was off still so?"""
        found = {
            name: why for name, target in self._targets.items() if (why := off(target)) is not None
        }
        for name, why in found.items():
            if self._off.get(name) != why:
                self._told(f"target {name} is off: {why}", False)
        for name in self._off.keys() - found.keys():
            if name in self._targets:
                self._told(f"target {name} is on", False)
        self._off = found
        self._at = None if self._is_quiet() else self._clock.monotonic()
        if self._adopted and self._at is not None:
            self._guarded(lambda: self._opened().outbox.only(self._targets))
        self._adopted = False

    def _is_quiet(self) -> bool:
        return quiet(self._folder)

    # -- as a part of the loop

    def descriptors(self) -> Collection[int]:
        """Those of the deliveries that are on their way."""
        return [one.child.descriptor for one in self._busy.values()]

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Collect what has come to its end, and begin what is due."""
        for name, one in list(self._busy.items()):
            if one.child.descriptor in ready or one.child.left <= 0:
                self._guarded(lambda name=name: self._collect(name))  # type: ignore[misc]
        if self._at is not None and self._at <= self._clock.monotonic():
            self._guarded(self._begin)
        return ()

    def due(self) -> float | None:
        """Seconds until a delivery has had its time, or another one is to begin."""
        times = [one.child.left for one in self._busy.values()]
        if self._at is not None:
            times.append(max(0.0, self._at - self._clock.monotonic()))
        return min(times, default=None)

    def close(self) -> None:
        """Whoever comes next delivers the rest."""
        for one in self._busy.values():
            one.child.kill()
        self._busy.clear()
        self._let_go()

    # -- for a single pass

    def deliver(self, bound: float) -> None:
        """Deliver what is due now, for ``bound`` seconds at most."""
        end = self._clock.monotonic() + bound
        self.woken()
        self.tend(())
        while self._busy and (left := end - self._clock.monotonic()) > 0:
            self.tend(readable(self.descriptors(), max(0.001, min(left, self.due() or left))))
        for name, one in list(self._busy.items()):
            del self._busy[name]
            one.child.kill()
            self._guarded(
                lambda name=name, one=one: self._refused(  # type: ignore[misc]
                    name, one.message, f"no answer within {bound:g} s"
                )
            )
        self._let_go()

    # -- deliveries

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._hindrance = None
        except (HostError, OSError) as error:
            # No store, or no process.
            words = str(error) if isinstance(error, HostError) else error.strerror
            if words != self._hindrance:  # Told once, for it may be so for years.
                self._told(f"{words}; messages wait", True)
            self._hindrance = words
            self._at = self._clock.monotonic() + _REST

    def _begin(self) -> None:
        """Begin every delivery that is due, one for each target."""
        from reconciler.state.store.outbox import BATCH

        self._at = None
        now = self._clock.monotonic()
        if self._unnoted:
            self._opened().outbox.taken(self._unnoted)
            self._unnoted.clear()
        if not self._opened().outbox.waiting():
            return
        if not self._alone():
            self._at = now + _OTHERS
            return
        times = []
        for name, messages in self._opened().outbox.waiting().items():
            target = self._targets.get(name)
            if target is None or name in self._busy:
                continue
            ready, wait = self._ready(name, messages)
            if wait is not None:
                times.append(wait)
            if ready and len(self._busy) < _TOGETHER:
                self._start(target, ready[:BATCH])
        if times:
            self._at = now + max(0.05, min(times))
        self._let_go()

    def _alone(self) -> bool:
        """Does nobody deliver but us, from now on? The lock lasts as long as a child has it."""
        if self._lock is None:
            self._lock = delivery_lock(self._folder)
        return self._lock is not None

    def _let_go(self) -> None:
        if self._lock is not None and not self._busy:
            os.close(self._lock)
            self._lock = None

    def _ready(
        self, name: str, messages: Sequence[QueuedMessage]
    ) -> tuple[list[QueuedMessage], float | None]:
        """What can go to that target now, and in how many seconds there may be more."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        urgent = [one for one in messages if one.event == URGENT]
        rest = [one for one in messages if one.event != URGENT]
        calm = self._calm.get(name, 0.0) - now
        held = quiet_left(self._notify.quiet, wall)
        wait = None
        if rest and (held is not None or calm > 0):
            # Looked at again sooner: the wall clock may be set.
            wait = calm if held is None else min(held, _REST)
            rest = []
        first = [*urgent, *rest][:1]
        if first and first[0].left > 0:
            return [], min(first[0].left, wait or first[0].left)
        night = [one for one in rest if quiet_left(self._notify.quiet, one.wall) is not None]
        if len(rest) > _FEW or len(night) > 1:
            outbox = self._opened().outbox
            outbox.fold(name)
            self._calm[name] = now + _CALM
            rest = [one for one in outbox.waiting()[name] if one.event != URGENT]
        return [*urgent, *rest], wait

    def _start(self, target: Target, messages: Sequence[QueuedMessage]) -> None:
        wall, urgent = self._clock.wall(), max(one.seq * (one.event == URGENT) for one in messages)
        todo = []
        for one in messages:
            # What was given up has overtaken it, or it is late.
            late = one.event not in (URGENT, DIGEST) and one.seq < urgent
            late = late or abs(wall - one.wall) > _LATE
            todo.append((one.title, dated(one.body, one.wall) if late else one.body, one.event))
        child = self._delivers(target, todo, messages)
        self._busy[target.name] = _Delivery(child, list(messages))

    def _delivers(
        self,
        target: Target,
        todo: Sequence[tuple[str, str, str]],
        messages: Sequence[QueuedMessage],
    ) -> Child:
        # It ends itself when one of them takes too long.
        todo_ = work(target, todo, partial(_note, self._folder, list(messages)))
        return self._child(todo_, 2 * TIMEOUT, self._lock)

    def _collect(self, name: str) -> None:
        """Take what a delivery has said by now."""
        one = self._busy[name]
        hung: str | None = None
        try:
            ended = one.child.collect() is not None
        except UnknownState as error:
            ended, hung = True, unanswered(error)
        *answers, _ = one.child.said.split(b"\n")
        taken = []
        for answer in answers[one.told :]:
            one.told += 1
            one.refused = _why_not(answer)
            if one.refused is not None:
                break
            taken.append(one.messages.pop(0))
        if taken:
            if name in self._failing:
                self._failing.discard(name)
                self._told(f"target {name} takes messages again", False)
            self._unnoted += taken
        if ended:
            del self._busy[name]
            self._at = self._clock.monotonic()
        if taken:
            self._opened().outbox.taken(self._unnoted)
            self._unnoted.clear()
        if ended:
            self._let_go()
            why = one.refused or hung
            if why is not None and one.messages:
                self._refused(name, one.message, why)

    def _refused(self, name: str, message: QueuedMessage, why: str) -> None:
        if why in _FOR_GOOD:
            self._settle(name, message, why)
            return
        if name not in self._failing:
            self._failing.add(name)
            self._told(f"target {name} did not take a message: {why}; retrying", True)
        self._opened().outbox.refused(name)

    def _settle(self, name: str, message: QueuedMessage, why: str) -> None:
        """This message will never be taken as it is: a shorter one may be, and those behind it."""
        outbox = self._opened().outbox
        if len(message.body) > _SHORT:
            end = f" ... (shortened, for {why})"
            outbox.shorten(message, message.body[: _SHORT - len(end)] + end)
            return
        outbox.taken([message])
        self._told(f"target {name} will never take a message ({why}); it was dropped", True)


def _note(folder: str, messages: Sequence[QueuedMessage], number: int) -> None:
    """In the child: that one has arrived."""
    from reconciler.state.store import Store

    with suppress(HostError, OSError):  # Its parent tries it too, if it lives.
        store = Store(folder, Clock(), True)
        store.outbox.taken([messages[number]])
        store.close()


def _why_not(answer: bytes) -> str | None:
    try:
        return understood(answer)
    except Off as reason:
        return f"it is off: {reason}"


@dataclass(slots=True)
class _Delivery:
    """One that is on its way: what is left of its ``messages``, how many answers were told, and why
    the first of what is left was ``refused``, if so."""

    child: Child
    messages: list[QueuedMessage]
    told: int = 0
    refused: str | None = None

    @property
    def message(self) -> QueuedMessage:
        """The one that is on its way."""
        return self.messages[0]


def test(spec: Spec) -> list[tuple[str, str, str]]:
    """One message to every target: its name, ``taken``, ``refused`` or ``off``, and why."""
    found: dict[str, tuple[str, str]] = {}
    busy: dict[str, Child] = {}
    todo = list(spec.notify.targets)
    words = f"this is a test of {spec.path}, requested with --notify-test"
    while todo or busy:
        while todo and len(busy) < _TOGETHER:
            target = todo.pop(0)
            why = off(target)
            if why is not None:
                found[target.name] = ("off", why)
                continue
            todo_ = work(target, [(title(spec), words, "report")])
            busy[target.name] = Child(todo_, 2 * TIMEOUT)
        if busy:
            children = busy.values()
            readable((one.descriptor for one in children), min(one.left for one in children))
        for name, child in list(busy.items()):
            try:
                answer = child.collect()
                if answer is None:
                    continue
                why = understood(answer.removesuffix(b"\n"))
                found[name] = ("taken", "") if why is None else ("refused", why)
            except Off as reason:
                found[name] = ("off", str(reason))
            except UnknownState as error:
                found[name] = ("refused", unanswered(error))
            del busy[name]
    return [(target.name, *found[target.name]) for target in spec.notify.targets]
