"""From what a pass has brought to what people have read: queued in the store, then delivered.

It must not hold a pass up: a delivery is a child's work, and what is not taken is tried again
later. It must not show a URL, and only the child ever reads one from its file.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.delivery import TIMEOUT, Off, off, understood, work
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.messages import Message, Meter, News, Trouble, judge, moment, quiet_left
from reconciler.model import HostError, Notify, Remark, Remedy, Spec, Target, UnknownState
from reconciler.state import quiet

if TYPE_CHECKING:
    from reconciler.store import Store
    from reconciler.store.outbox import Letter

_TOGETHER = 4
"""Deliveries at the same time: each takes some 45 MB while it lasts."""
_LATE = 300.0
"""Seconds after which a message says when it was written."""
_REST = 60.0
"""Seconds until a store that could not be used is tried again."""

_FOR_GOOD = frozenset(("HTTP 400", "HTTP 413", "HTTP 422"))
"""What a service says of a message that it will not take however often it is sent."""
_SHORT = 900
"""Characters of a message that every service takes."""

Told = Callable[[str, bool], None]
"""Takes words about a target, and whether something is wrong with it."""


def title(spec: Spec) -> str:
    """What stands above every message."""
    return spec.notify.title or f"reconcile: {spec.name} on {os.uname().nodename}"


def remarks(notify: Notify) -> tuple[Remark, ...]:
    """The targets that are off, and why; and those whose URL somebody else may read."""
    off_ = ((target.name, off(target)) for target in notify.targets)
    found = [Remark(f"notify:{name}", f"is off: {why}") for name, why in off_ if why]
    for ident, words, command in readable(notify):
        found.append(Remark(ident, f"{words}; fix it with: {command}", remedy=command))
    return tuple(found)


def readable(notify: Notify) -> Iterator[tuple[str, str, Remedy]]:
    """The targets whose URL somebody else may read: which one, how, and what ends that."""
    from reconciler.host.remedy import remedy
    from reconciler.host.trust import readers

    for target in notify.targets:
        path = target.secret_file
        who = readers(path) if path is not None else None
        if path is not None and who is not None:
            words = f"its URL stands in {path}, which is readable by {who}"
            yield f"notify:{target.name}", words, remedy("chmod", "go-r", path)


def tell(
    spec: Spec,
    store: Store,
    news: News,
    reports: Sequence[str],
    blot: Callable[[str], str],
) -> None:
    """Judge what a pass has brought, and queue it for all who want to know. Raises HostError.

    ``reports`` are further words about the program itself; ``blot`` takes out of a line what
    nobody may see. While nobody is there to be told, nothing counts as told.
    """
    known = store.troubles.all()
    targets = [target for target in spec.notify.targets if off(target) is None]
    letters: list[tuple[str, Message]] = []
    now: dict[str, Trouble] = {}
    meter: Meter | None = None
    if targets:
        wall = store.base.clock.wall()
        heard = {event for target in targets for event in target.on}
        meter = Meter(store.sent.all(), wall, heard)
        messages, now = judge(known, news, wall, spec.notify.remind_every, blot, meter)
        about = ("\n".join(map(blot, words.splitlines())) for words in reports)
        messages = [*(Message("report", words) for words in about), *messages]
        letters = [
            (target.name, one)
            for one in messages
            for target in targets
            if (one.about or one.event) in target.on
        ]
    changed = meter is not None and meter.changed
    if letters or changed or now != known or any(one.told is None for one in known.values()):
        with store.base.change() as base:
            store.troubles.replace(base, known, now)
            if meter is not None and changed:
                store.sent.replace(base, meter.sent)
            store.outbox.add(base, blot(title(spec)), letters)


def announce(spec: Spec, store: Store, message: Message, blot: Callable[[str], str]) -> None:
    """Queue words about the program itself, for all who want to know. Raises HostError."""
    body = "\n".join(map(blot, message.body.splitlines()))
    letters = [
        (target.name, Message(message.event, body))
        for target in spec.notify.targets
        if message.event in target.on and off(target) is None
    ]
    if letters:
        with store.base.change() as base:
            store.outbox.add(base, blot(title(spec)), letters)


class Post:
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
        start: Callable[[Callable[[], bytes], float], Child] = Child,
    ) -> None:
        self._folder = folder
        self._opened = opened
        self._clock = clock
        self._told = told
        self._child = start
        self._notify = Notify()
        self._targets: dict[str, Target] = {}
        self._busy: dict[str, tuple[Child, Letter]] = {}
        self._failing: set[str] = set()
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
            self._busy.pop(name)[0].kill()
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
        self._at = None if quiet(self._folder) else self._clock.monotonic()
        if self._adopted and self._at is not None:
            self._guarded(lambda: self._opened().outbox.only(self._targets))
        self._adopted = False

    # -- as a part of the loop

    def descriptors(self) -> Collection[int]:
        """Those of the deliveries that are on their way."""
        return [child.descriptor for child, _ in self._busy.values()]

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Collect what has come to its end, and begin what is due."""
        for name, (child, _) in list(self._busy.items()):
            if child.descriptor in ready or child.left <= 0:
                self._guarded(lambda name=name: self._collect(name))  # type: ignore[misc]
        if self._at is not None and self._at <= self._clock.monotonic():
            self._guarded(self._begin)
        return ()

    def due(self) -> float | None:
        """Seconds until a delivery has had its time, or another one is to begin."""
        times = [child.left for child, _ in self._busy.values()]
        if self._at is not None:
            times.append(max(0.0, self._at - self._clock.monotonic()))
        return min(times, default=None)

    def close(self) -> None:
        """Whoever comes next delivers the rest."""
        for child, _ in self._busy.values():
            child.kill()
        self._busy.clear()

    # -- for a single pass

    def deliver(self, bound: float) -> None:
        """Deliver what is due now, for ``bound`` seconds at most."""
        end = self._clock.monotonic() + bound
        self.woken()
        self.tend(())
        while self._busy and (left := end - self._clock.monotonic()) > 0:
            poller = select.poll()
            for descriptor in self.descriptors():
                poller.register(descriptor, select.POLLIN)
            found = poller.poll(max(1.0, min(left, self.due() or left) * 1000))
            self.tend([descriptor for descriptor, _ in found])
        for name, (child, letter) in list(self._busy.items()):
            del self._busy[name]
            child.kill()
            self._guarded(
                lambda name=name, letter=letter: self._refused(  # type: ignore[misc]
                    name, letter, f"no answer within {bound:g} s"
                )
            )

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
        self._at = None
        outbox = self._opened().outbox
        now, wall = self._clock.monotonic(), self._clock.wall()
        held = quiet_left(self._notify.quiet, wall)
        letters = outbox.heads("gave_up" if held is not None else None)
        times = []
        for letter in letters:
            target = self._targets.get(letter.target)
            if target is None or letter.target in self._busy:
                continue
            if letter.left > 0:
                times.append(letter.left)
            elif len(self._busy) < _TOGETHER:
                self._start(target, self._folded(letter))
        if held is not None and outbox.heads():
            # Looked at again sooner: the wall clock may be set.
            times.append(min(held, _REST))
        if times:
            self._at = now + max(0.05, min(times))

    def _folded(self, letter: Letter) -> Letter:
        """The same, or the digest of all that the quiet hours have held back."""
        outbox = self._opened().outbox
        found = [
            one
            for one in outbox.fresh(letter.target)
            if quiet_left(self._notify.quiet, one.wall) is not None and one.event != "gave_up"
        ]
        if len(found) < 2 or letter.seq != found[0].seq:
            return letter
        outbox.fold(found)
        (letter,) = (one for one in outbox.heads() if one.target == letter.target)
        return letter

    def _start(self, target: Target, letter: Letter) -> None:
        body = letter.body
        if abs(self._clock.wall() - letter.wall) > _LATE:
            body += f" ({moment(letter.wall)})"
        todo = work(target, letter.title, body, letter.event)
        self._busy[target.name] = (self._child(todo, TIMEOUT), letter)

    def _collect(self, name: str) -> None:
        child, letter = self._busy[name]
        over = child.left <= 0
        why: str | None
        try:
            answer = child.collect()
            if answer is None:
                return
            why = understood(answer)
        except Off as reason:
            why = f"it is off: {reason}"
        except UnknownState:
            why = f"no answer within {TIMEOUT:g} s" if over else "its delivery came to no end"
        del self._busy[name]
        self._at = self._clock.monotonic()
        if why is not None:
            self._refused(name, letter, why)
            return
        self._opened().outbox.taken(letter)
        if name in self._failing:
            self._failing.discard(name)
            self._told(f"target {name} takes messages again", False)

    def _refused(self, name: str, letter: Letter, why: str) -> None:
        if why in _FOR_GOOD:
            self._settle(name, letter, why)
            return
        if name not in self._failing:
            self._failing.add(name)
            self._told(f"target {name} did not take a message: {why}; it is tried again", True)
        self._opened().outbox.refused(letter)

    def _settle(self, name: str, letter: Letter, why: str) -> None:
        """This message will never be taken as it is: a shorter one may be, and those behind it."""
        outbox = self._opened().outbox
        if len(letter.body) > _SHORT:
            end = f" ... (shortened, for {why})"
            outbox.shorten(letter, letter.body[: _SHORT - len(end)] + end)
            return
        outbox.taken(letter)
        self._told(f"target {name} refuses a message for good ({why}); it was left out", True)


def test(spec: Spec) -> list[tuple[str, str, str]]:
    """One message to every target: its name, ``taken``, ``refused`` or ``off``, and why."""
    found: dict[str, tuple[str, str]] = {}
    busy: dict[str, Child] = {}
    todo = list(spec.notify.targets)
    words = f"this is a test of {spec.path}, asked for with --notify-test"
    while todo or busy:
        while todo and len(busy) < _TOGETHER:
            target = todo.pop(0)
            why = off(target)
            if why is not None:
                found[target.name] = ("off", why)
                continue
            busy[target.name] = Child(work(target, title(spec), words, "report"), TIMEOUT)
        poller = select.poll()
        for child in busy.values():
            poller.register(child.descriptor, select.POLLIN)
        if busy:
            poller.poll(min(child.left for child in busy.values()) * 1000 + 1)
        for name, child in list(busy.items()):
            over = child.left <= 0
            try:
                answer = child.collect()
                if answer is None:
                    continue
                why = understood(answer)
                found[name] = ("taken", "") if why is None else ("refused", why)
            except Off as reason:
                found[name] = ("off", str(reason))
            except UnknownState:
                words_ = f"no answer within {TIMEOUT:g} s" if over else "it came to no end"
                found[name] = ("refused", words_)
            del busy[name]
    return [(target.name, *found[target.name]) for target in spec.notify.targets]
