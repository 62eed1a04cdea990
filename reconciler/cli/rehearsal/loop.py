"""An event as the watchdog would meet it: its own passes, checks and messages on a clock that is
set ahead to whatever comes next.

It must not decide what follows from anything: that is said by the code that acts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from reconciler.base.records import replace
from reconciler.cli.rehearsal.context import Answered, RehearsedContext
from reconciler.cli.rehearsal.world import World
from reconciler.core.kind import Probed, Supervised
from reconciler.core.messages import HOUR
from reconciler.core.model import Plan
from reconciler.core.restart_policy import NEXT
from reconciler.host.exit_watcher import ExitWatcher
from reconciler.host.processes import Identity
from reconciler.output.rehearsal import Entry
from reconciler.output.rehearsal import passed as _passed
from reconciler.watchdog.pass_work import PassWork
from reconciler.watchdog.probing import checks_of
from reconciler.watchdog.settling import Settling

if TYPE_CHECKING:
    from reconciler.cli.rehearsal.asked import Event
    from reconciler.core.model import Resource, Spec
    from reconciler.host.child import Child
    from reconciler.watchdog.passes import Teller

_SHORTEST = 0.05
"""Seconds from one pass to the next, as in a loop."""
_MOMENT = 0.001
"""Seconds behind a moment at which it is over for sure."""
_MOST = 50_000
"""Turns of the loop that are followed."""
_REMINDERS = 2
"""How often people are reminded of what stays wrong, before the rest is left out."""


class Rehearsal:
    """The timeline of an event. ``spec`` holds what the event is about, and what that needs."""

    def __init__(
        self, context: RehearsedContext, spec: Spec, event: Event, resource: Resource[Any]
    ) -> None:
        self.timeline: list[Entry] = []
        self._context = context
        self._clock = context.clock
        self._begun = self._clock.monotonic()
        self._spec = replace(spec, complete=True)
        self._resource = resource
        self._world = World(self._clock, event, resource, self._note)
        context.get_kind = self._world.kind
        kind = context.get_kind(resource.kind)
        self._is_check = isinstance(kind, Probed)
        self._is_paced = isinstance(kind, Supervised)
        self._settling = Settling(self._clock)
        self._exits = ExitWatcher(self._clock)
        self._exits.watch({resource.id: ()}, [resource.id] * self._is_paced)
        self._checks = checks_of(context, self._spec, _here)
        self._checks.take([resource])
        self._sender = context.messages(self._spec, self._note)
        self._due: float | None = None
        """When a pass is worth while before its time."""
        self._said: set[tuple[str, str]] = set()
        self._open = False
        """Do failed starts count?"""
        self._failed = False
        """Is the next full pass to try again what has no pauses of its own?"""
        self._reminders = 0
        ticks = int(self._clock.since_boot() * os.sysconf("SC_CLK_TCK"))
        self._before = {resource.id: Identity(ticks, 0)}
        """It has run until now, whoever had started it."""

    def run(self) -> Sequence[Entry]:
        """All that comes of it, in order."""
        if self._is_check:
            self._note("fails", self._resource.id, f"{self._resource.id} begins to fail")
        for _ in range(_MOST):
            now = self._clock.monotonic()
            wanted = {*self._exits.tend(()), *self._settling.tend(())}
            if self._is_check:
                wanted |= set(self._checks.tend(()))
            if self._world.dies():
                self._exits.call([self._resource.id])
                continue
            if wanted or (self._due is not None and self._due <= now):
                self._pass()
            self._sender.tend(())
            self._sender.held()
            wait = self._wait()
            if wait is None:
                break
            self._clock.sleep(wait)
        else:
            self._note("and so on", self._resource.id, "what follows is left out")
        return self.timeline

    def _wait(self) -> float | None:
        """Seconds until something comes; None: nothing more does."""
        now = self._clock.monotonic()
        checks = self._checks.due() if self._is_check and not self._is_well() else None
        parts = (self._world, self._exits, self._settling, self._sender)
        due = None if self._due is None else max(0.0, self._due - now)
        soon = [one for one in (due, checks, *(part.due() for part in parts)) if one is not None]
        late = sorted(self._later())
        if not soon:
            if not late:
                return None
            self._reminders += not self._failed
            if self._reminders > _REMINDERS:
                every = _passed(self._spec.notify.remind_every or HOUR)
                self._note("and so on", self._resource.id, f"and so on, every {every}")
                return None
        elif self._due is not None or checks is not None:
            self._reminders = 0
        if late and (not soon or late[0] < min(soon)):
            self._due = now + late[0]
            return late[0]
        return min(soon)

    def _is_well(self) -> bool:
        said = self._context.said.get(self._resource.id)
        return self._world.over and said is not None and said.result == "ok"

    def _later(self) -> Iterator[float]:
        """Seconds until the full passes that change something although nothing calls for them."""
        store, every = self._context.store(self._spec, True), self._spec.loop_every
        wall, passed = self._clock.wall(), self._clock.monotonic() - self._begun
        pause = store.pauses.all().get(self._resource.id)
        times = [pause.until - wall] if pause is not None and pause.until is not None else []
        remind = self._spec.notify.remind_every
        if remind is not None:
            times += [remind - (one.told or 0.0) for one in store.troubles.all().values()]
        times += [HOUR - (one.age or 0.0) for one in store.sent.all().values() if one.flaps]
        times += [_SHORTEST] if self._failed else []
        for time in times:
            # By a pass at that very moment it may have been a little too early.
            if time > -_MOMENT:
                yield -((passed + time + _MOMENT) // -every) * every - passed

    def _pass(self) -> None:
        self._failed = False
        ids = tuple(one.id for one in self._spec.resources)
        teller = cast("Teller", self)
        work = PassWork(
            self._context, self._spec, teller, self._settling, (), {}, self._before
        )  # fmt: skip
        passed = work.make(ids, lambda: False)
        now = self._clock.monotonic()
        self._due = None if passed.due is None else now + max(passed.due, _SHORTEST)
        self._checks.passed(passed.seen, passed.broken, passed.started)
        self._sender.woken()
        open_ = self._context.tracker(self._spec, True).unproven()
        was_open, self._open = self._open, self._resource.id in open_
        if was_open and not self._open:
            words = f"{self._resource.id} is healthy for long enough: retry counter reset"
            self._note("reset", self._resource.id, words)
            self._world.starts = 0
            self._said.clear()

    # -- what a pass tells, as its Teller

    def tell(self, what: str, *values: Any) -> None:
        """See ``Teller``."""
        if what == "outcome":
            outcome = values[0]
            self._settling.add(outcome, self._by_id[outcome.step.id])
            self._failed |= outcome.result == "failed" and not self._is_paced
        elif what == "proved":
            self._settling.proved(values[0])
        elif what == "ended":
            self._exits.call(values[0])

    def ask(self, what: str, *values: Any) -> Collection[str]:
        """See ``Teller``."""
        if what == "looked":
            self._looked(values[0])
        return ()

    def turn(self, ids: Collection[str]) -> tuple[Mapping[Any, Any], bool]:
        """See ``Teller``."""
        return {}, False

    @property
    def _by_id(self) -> Mapping[str, Resource[Any]]:
        return {one.id: one for one in self._spec.resources}

    def _looked(self, plan: Plan) -> None:
        given_up = set(plan.given_up)
        remarks = [
            *(("gives up" if one.id in given_up else "waits", one) for one in plan.held),
            *(("fails", one) for one in plan.failing),
            *(("left alone", one) for one in (*plan.skipped, *plan.unknown)),
        ]
        for what, one in remarks:
            lasts = what in ("gives up", "fails")
            key = one.id, what if lasts else one.reason.partition(NEXT)[0]
            if key not in self._said:
                self._said.add(key)
                self._note(what, one.id, f"{one.id} {what}: {one.reason}")
        check = self._resource.id, "fails"
        if check in self._said and not any(one.id == check[0] for one in plan.failing):
            self._said.discard(check)
            self._note("well", check[0], f"{check[0]} has recovered")

    def _note(self, what: str, ident: str, words: str) -> None:
        after = round(self._clock.monotonic() - self._begun, 3)
        self.timeline.append(Entry(after, round(self._clock.wall(), 3), what, ident, words))


def _here(work: Callable[[], bytes], timeout: float, *kept: int) -> Child:
    """Stands for ``Child``: the answer is there at once."""
    return cast("Child", Answered(work()))
