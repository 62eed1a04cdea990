"""What wants a pass of its own, until one may begin that is about it.

It must not begin a pass itself, nor know what one is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from reconciler.core.model import Resource
from reconciler.host.clock import Clock
from reconciler.watchdog.pass_work import supervised
from reconciler.watchdog.passes import Passes

PATIENCE = 0.15
"""Seconds that a pass, or a process in it, waits for another pass, before it goes beside it."""


class Backlog:
    """A part of the loop. ``begin`` begins a pass over some ids; ``is_full`` says whether one over
    everything is under way."""

    def __init__(
        self,
        clock: Clock,
        passes: Passes,
        begin: Callable[[Collection[str]], object],
        is_full: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._passes = passes
        self._begin = begin
        self._is_full = is_full
        self._by_id: Mapping[str, Resource[Any]] = {}
        self._later: set[str] = set()
        """What wants a pass as soon as one may begin that is about it."""
        self._asked = 0.0
        """When the first of them wanted it."""
        self._again = inf
        """When the processes want a pass, should a full one be busy then."""
        self._planned: set[str] = set()
        """The processes that the full pass has not come to yet."""
        self._overtaken = 0.0
        """When those get a pass of their own."""
        self._behind: dict[str, Collection[str]] = {}
        """What wants a pass once nobody is at these any more."""

    def take(self, by_id: Mapping[str, Resource[Any]]) -> None:
        """These are declared from now on."""
        self._by_id = by_id

    def add(self, ids: Collection[str]) -> None:
        """These want a pass, which begins now if it may."""
        if ids and not self._later:
            self._asked = self._clock.monotonic()
        self._later |= set(ids)
        self._begin_later()

    def put_back(self, ids: Collection[str]) -> None:
        """No process could be had for a pass over these."""
        self._later |= set(ids)

    def plan(self, resources: Iterable[Resource[Any]], patience: float = PATIENCE) -> None:
        """These are for the full pass, or, if it is busy with something else, for another."""
        self._planned = {one.id for one in supervised(resources)}
        self._overtaken = self._clock.monotonic() + max(patience, PATIENCE)

    def behind(self, needs: Mapping[str, Collection[str]]) -> None:
        """Each of these wants a pass once nobody is at what it needs."""
        self._behind.update(needs)

    def _free(self) -> set[str]:
        """What waits for nobody else any more."""
        if not self._behind:
            return set()
        busy = self._passes.of_others(None)
        return {ident for ident, needs in self._behind.items() if busy.isdisjoint(needs)}

    def acted(self, ident: str) -> None:
        """The full pass has come to that one."""
        self._planned.discard(ident)

    def again_in(self, seconds: float) -> None:
        """The processes want a pass then: a full one that is busy is not waited for."""
        self._again = min(self._again, self._clock.monotonic() + max(seconds, PATIENCE))

    def _begin_later(self) -> None:
        """Begin a pass over what waits for one, unless one that is under way may soon end."""
        waited = self._clock.monotonic() - self._asked >= PATIENCE
        if not self._passes.room() or not (self._passes.idle or waited):
            return
        # What one is about already is looked at again behind it.
        self._later &= self._by_id.keys()
        ready = self._later - self._passes.about(self._later)
        self._later -= ready
        processes = {one.id for one in supervised(self._by_id[ident] for ident in ready)}
        # Apart, for a look at anything else may take long.
        for part in filter(None, (processes, ready - processes)):
            self._begin(part)

    def descriptors(self) -> Collection[int]:
        """None of its own."""
        return ()

    def due(self) -> float | None:
        """Seconds until what waits gets a pass of its own."""
        now = self._clock.monotonic()
        times = [0.0 if self._free() else inf, self._again - now]
        if self._planned and self._is_full():
            times.append(self._overtaken - now)
        if self._later:
            waits = self._asked + PATIENCE - now
            times.append(waits if waits > 0 else 1.0)
        soonest = min(times)
        return max(0.0, soonest) if soonest < inf else None

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Begin the passes that need not wait any more."""
        now = self._clock.monotonic()
        if free := self._free():
            for ident in free:
                del self._behind[ident]
            self.add(free)
        if self._again <= now:
            self._again = inf
            if self._is_full():
                self._asked = self._asked if self._later else now
                self._later |= {one.id for one in supervised(self._by_id.values())}
        if self._planned and self._clock.monotonic() >= self._overtaken:
            planned, self._planned = self._planned, set()
            self._later |= planned
            self._asked = 0.0
        if self._later:
            self._begin_later()
        return ()

    def close(self) -> None:
        """The loop ends."""


def depending(
    others: Collection[str], steps: Sequence[str], by_id: Mapping[str, Resource[Any]]
) -> Mapping[str, Collection[str]]:
    """By the id of each of the steps, in their order, that needs one of those that are not to be
    done because they are of ``others``: what these are, also through others."""
    left: dict[str, Collection[str]] = {ident: {ident} for ident in steps if ident in others}
    found = {}
    for ident in steps:
        needs = by_id[ident].needs if ident in by_id and ident not in left else ()
        awaited = {one for need in needs for one in left.get(need, ())}
        if awaited:
            found[ident] = left[ident] = awaited
    return found
