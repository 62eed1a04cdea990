"""What a loop has started a moment ago, and must hold for a while before it is believed.

It must not wait for that, nor look at it: whoever makes a pass does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from reconciler import kinds
from reconciler.core.kind import Readied, Running, Supervised
from reconciler.core.model import Outcome, Resource
from reconciler.host.clock import Clock

_SLACK = 30.0
"""Seconds beyond its own time in which one is asked that may be ready, and is late then."""
_AGAIN = 0.25
"""Seconds between two calls for a look at one that has had its time: the first is under way."""
Goal = tuple[bool, str]


def goal(resource: Resource[Any]) -> Goal:
    """What is wanted of a resource, as far as what was started can tell."""
    kind = kinds.get(resource.kind)
    return resource.present, kind.version(resource.want) if isinstance(kind, Supervised) else ""


class Settling:
    """What was started a moment ago, and must hold for a while: a part of the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, Outcome, Goal]] = {}
        self._called: dict[str, float] = {}
        """When a look at each was called for last."""

    def add(self, outcome: Outcome, resource: Resource[Any]) -> None:
        """How a step about that resource has ended: perhaps it has to prove itself."""
        kind = kinds.get(resource.kind)
        self._until.pop(resource.id, None)
        self._called.pop(resource.id, None)
        if outcome.result == "done" and isinstance(kind, Running) and kind.settle:
            until = self._clock.monotonic() + kind.settle
            if isinstance(kind, Readied):
                until += _SLACK + limit if (limit := kind.readiness(resource.want)) else 0.0
            self._until[resource.id] = (until, outcome, goal(resource))

    def ready(self, ident: str) -> None:
        """It need not become ready any more, only hold."""
        if ident in self._until:
            at, outcome, wanted = self._until[ident]
            kind = kinds.get(outcome.step.id.partition(":")[0])
            settle = kind.settle if isinstance(kind, Running) else 0.0
            self._until[ident] = (min(at, self._clock.monotonic() + settle), outcome, wanted)

    def looked_at(self, ids: Collection[str]) -> list[tuple[Outcome, Goal]]:
        """Those that a pass over these ids, or all, looks at; a look at any other may take long."""
        return [
            (outcome, wanted)
            for ident, (_, outcome, wanted) in self._until.items()
            if not ids or ident in ids
        ]

    def told(self, failed: Collection[str]) -> set[str]:
        """Those of them of which a pass has told before; the others are told of by this one."""
        known = set(failed) - self._until.keys()
        for ident in set(failed) - known:
            del self._until[ident]
        return known

    def proved(self, outcome: Outcome) -> None:
        """It has failed, or has held so far."""
        if outcome.step.id not in self._until:
            return  # Another pass has looked at it meanwhile.
        at, _, _ = self._until[outcome.step.id]
        if outcome.result == "failed" or at <= self._clock.monotonic():
            del self._until[outcome.step.id]

    def held(self, ends: Mapping[str, float]) -> None:
        """Those whose end was noticed after their time have proved themselves."""
        for ident in [one for one, (at, _, _) in self._until.items() if at <= ends.get(one, 0.0)]:
            del self._until[ident]

    def descriptors(self) -> Collection[int]:
        return ()

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """What has had its time."""
        now = self._clock.monotonic()
        over = [ident for ident in self._until if self._when(ident) <= now]
        known = {one: at for one, at in self._called.items() if one in self._until}
        self._called = known | dict.fromkeys(over, now)
        return over

    def due(self) -> float | None:
        """Seconds until the first has had its time."""
        if not self._until:
            return None
        return max(0.0, min(map(self._when, self._until)) - self._clock.monotonic())

    def _when(self, ident: str) -> float:
        """When a look at it is to be called for."""
        return max(self._until[ident][0], self._called.get(ident, -_AGAIN) + _AGAIN)

    def close(self) -> None:
        self._until.clear()
