"""How often the starts of a spec's processes were tried in vain, and what follows from it.

It must not start anything; it says what has to wait, and remembers what was begun.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.core.kind import GetKind, Supervised
from reconciler.core.model import Hold, Outcome, Plan, Resource, Step
from reconciler.core.restart_policy import Policy, in_words
from reconciler.state.store.attempts import Attempt

if TYPE_CHECKING:
    from reconciler.state.store.attempts import Attempts

Unwritten = tuple[str, int, float]
"""Attempts that the store did not take: of which version, how many, and when the last was made by
the monotonic clock."""

_NOTHING: Mapping[str, str] = {}
SOON = 0.01
"""Seconds until something is looked at again whose time has come during the pass."""


class RestartTracker:
    """The attempts that a pass knows of. What its methods raise is the store's HostError."""

    def __init__(
        self,
        resources: Mapping[str, Resource[Any]],
        get_kind: GetKind,
        table: Attempts,
        begun: set[str],
        unwritten: dict[str, Unwritten],
        now: float,
    ) -> None:
        self._table = table
        self._unwritten = unwritten
        self._now = now
        # A start may be found dead only in a later pass.
        self._begun = begun
        self._resources = resources
        self._get_kind = get_kind
        try:
            self._open = table.all()
        except HostError:
            self._open = {}  # Whoever writes or reads more of it is told.
        for ident, (version, count, at) in unwritten.items():
            self._open[ident] = Attempt(version, count, now - at)

    def holds(self, lives_on: Mapping[str, str] = _NOTHING) -> Mapping[str, Hold]:
        """What must not be started now, by id, and why.

        ``lives_on`` has, by id, what is there of those that count as ended.
        """
        found = {}
        for ident, tries, policy in self._counted():
            if tries.behind and ident in lives_on:
                found[ident] = Hold(f"was not started again: {lives_on[ident]}", True)
                continue
            left = policy.left(tries.count, tries.since)
            if left <= 0:
                continue
            times = "once" if tries.count == 1 else f"{tries.count} times"
            words = f"was tried {times} in vain and is tried again in {in_words(left)}"
            final = policy.given_up(tries.count)
            if final:
                words = f"was given up after {tries.count} attempts; the next in {in_words(left)}"
            found[ident] = Hold(words, final)
        return found

    def unproven(self) -> set[str]:
        """What has come up, and was not well for long enough to be forgiven yet."""
        return {ident for ident, tries, _ in self._counted() if tries.count}

    def _counted(self) -> list[tuple[str, Attempt, Policy]]:
        found = []
        for ident, tries in self._open.items():
            resource = self._resources.get(ident)
            if resource is None or not resource.present or resource.skip is not None:
                continue
            kind = self._get_kind(resource.kind)
            if isinstance(kind, Supervised) and tries.version == kind.version(resource.want):
                found.append((ident, tries, kind.policy(resource.want)))
        return found

    def begins(self, step: Step) -> None:
        """A step is about to act; a start is on the disk before it is made."""
        resource = self._resources[step.id]
        kind = self._get_kind(resource.kind)
        starts = step.verb in ("start", "restart")
        if starts and isinstance(kind, Supervised):
            self._begun.add(step.id)
            version = kind.version(resource.want)
            known = self._open.get(step.id)
            count = known.count + 1 if known is not None and known.version == version else 0
            try:
                self._table.begun(step.id, version, count if step.id in self._unwritten else 0)
            except HostError:
                self._unwritten[step.id] = version, count, self._now
                raise
            self._unwritten.pop(step.id, None)

    def ended(self, outcome: Outcome) -> None:
        """A step has come to its end; a start that failed counts as one in vain."""
        ident = outcome.step.id
        if outcome.result == "failed" and ident in self._begun:
            if ident in self._unwritten:
                version, count, at = self._unwritten[ident]
                self._unwritten[ident] = version, max(count, 1), at
            self._table.failed(ident, outcome.lives_on is not None)

    def learn(self, plan: Plan, seen: Collection[str]) -> None:
        """Forgive what has stayed healthy, and what nobody wants any more.

        ``seen`` are the ids that the plan is about.
        """
        counted = {ident: (tries, policy) for ident, tries, policy in self._counted()}
        wrong = {step.id for step in plan.steps}
        wrong |= {remark.id for remark in (*plan.unknown, *plan.held, *plan.skipped)}
        for ident in self._open:
            if ident not in counted:
                if self._open[ident].count or ident not in self._resources:
                    self._unwritten.pop(ident, None)
                    self._table.forgive(ident)
                continue
            tries, policy = counted[ident]
            if ident in wrong or ident not in seen or not tries.count:
                continue
            if tries.since is None or tries.since < 0:
                self._table.seen_running(ident)
            elif policy.forgiven(tries.since):
                self._unwritten.pop(ident, None)
                self._table.forgive(ident)

    def due(self, plan: Plan, lives_on: Collection[str] = ()) -> float | None:
        """Seconds until a wait is over, or an attempt would be forgiven; None: nothing is open.

        ``lives_on`` are those of ``holds``, whose end is learnt when it comes.
        """
        waiting = {remark.id for remark in plan.held}
        begun = {step.id for step in plan.steps}
        # What is not known, or waits for something else, is seen to by the next full pass.
        blocked = {remark.id for remark in (*plan.unknown, *plan.skipped)}
        times = []
        for ident, tries, policy in self._counted():
            if not tries.count or ident in blocked or (tries.behind and ident in lives_on):
                continue
            left = policy.left(tries.count, tries.since)
            if ident in begun and policy.given_up(tries.count):
                left = 0.0  # Should it have failed, that is told at once.
            # The wait may have come to its end since the plan was made.
            times.append(max(left, SOON) if ident in waiting or ident in begun else left)
            if ident not in waiting:
                times.append(policy.healthy_after - (tries.since or 0.0))
        return min((time for time in times if time > 0), default=None)
