"""What must hold, or become ready, after its step before others build on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.records import replace
from reconciler.core.kind import GetKind, Readied, Running
from reconciler.core.model import Outcome, Resource
from reconciler.core.observe import observe, proved

if TYPE_CHECKING:
    from reconciler.host import Host

OnOutcomes = Callable[[Sequence[Outcome]], None]
"""Told of steps as they end; a step that is found dead at the end is told again."""


class Proving:
    """The outcomes of a pass; of what must hold for a while, until it has had the time to break."""

    def __init__(
        self,
        by_id: Mapping[str, Resource[Any]],
        get_kind: GetKind,
        host: Host,
        told: OnOutcomes,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._by_id = by_id
        self._get_kind = get_kind
        self._host = host
        self._told = told
        self._fresh: dict[str, tuple[int, float]] = {}
        """What must yet hold: the place of its outcome, and until when."""

    def not_ready(self, outcomes: Sequence[Outcome]) -> set[str]:
        """What was started just now, and is only ready for others once somebody has asked it."""
        return {
            one.step.id
            for one in outcomes
            if one.result == "done" and _is_asked(self._by_id[one.step.id], self._get_kind)
        }

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Steps have come to their end."""
        for outcome in outcomes:
            kind = self._get_kind(self._by_id[outcome.step.id].kind)
            if outcome.result == "done" and isinstance(kind, Running) and kind.settle:
                until = self._host.clock.monotonic() + kind.settle
                self._fresh[outcome.step.id] = len(self.outcomes), until
            self.outcomes.append(outcome)
        self._told(outcomes)

    def wait(self, ids: Collection[str]) -> set[str]:
        """Wait until those of ``ids`` have held; the ids that have not."""
        due = {ident: self._fresh.pop(ident) for ident in self._fresh.keys() & set(ids)}
        left = max((until for _, until in due.values()), default=0.0)
        left -= self._host.clock.monotonic() if due else 0.0
        if left > 0:
            self._host.clock.sleep(left)
        resources = [self._by_id[ident] for ident in due]
        words = wait_until_ready(resources, self._get_kind, self._host)
        outcomes = [(self.outcomes[at], self._by_id[ident]) for ident, (at, _) in due.items()]
        found = [
            replace(one, error=f"{one.error}; last answer: {words[one.step.id]}")
            if one.result == "failed" and one.step.id in words
            else one
            for one in proved(outcomes, self._get_kind, self._host)
        ]
        for (at, _), outcome in zip(due.values(), found, strict=True):
            self.outcomes[at] = outcome
        failed = [outcome for outcome in found if outcome.result == "failed"]
        self._told(failed)
        return {outcome.step.id for outcome in failed}


def _is_asked(resource: Resource[Any], get_kind: GetKind) -> bool:
    kind = get_kind(resource.kind)
    if not resource.present or not isinstance(kind, Readied):
        return False
    return kind.readiness(resource.want) is not None


def wait_until_ready(
    resources: Sequence[Resource[Any]], get_kind: GetKind, host: Host
) -> Mapping[str, str]:
    """Wait until these are ready, late or have ended; what was said last of the others."""
    asked = [one for one in resources if _is_asked(one, get_kind)]
    if not asked:
        return {}
    from reconciler.core.readiness import Readiness

    seen = observe(asked, get_kind, host)
    readiness = Readiness(host.clock, get_kind, lambda: host)
    readiness.take([(one, seen[one.id].state) for one in asked])
    readiness.wait()
    return readiness.words
