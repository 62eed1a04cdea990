"""How often the starts of a spec's processes were tried in vain, and what follows from it.

It must not start anything; it says what has to wait, and remembers what was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reconciler.backoff import Policy, in_words
from reconciler.contract import GetKind
from reconciler.model import HostError, Outcome, Plan, Resource, Step

if TYPE_CHECKING:
    from reconciler.store import Attempts, Store


class Tries:
    """The attempts of one pass; ``store`` None: there is nothing to remember yet.

    A store that fails stops nothing: it is told to ``warn``, and nothing is remembered.
    """

    def __init__(
        self,
        resources: Sequence[Resource[Any]],
        get_kind: GetKind,
        store: Store | None,
        warn: Callable[[str], None],
    ) -> None:
        self._store = store
        self._warn = warn
        self._begun: set[str] = set()
        self._resources = {resource.id: resource for resource in resources}
        self._get_kind = get_kind
        self._open: Mapping[str, Attempts] = {}
        with self._guarded():
            self._open = store.attempts() if store is not None else {}

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except HostError as error:
            self._warn(f"{error}; what was tried in vain is not remembered")
        if self._store is not None and self._store.damaged is not None:
            self._warn(self._store.damaged)
            self._store.damaged = None

    def holds(self) -> Mapping[str, str]:
        """What must not be started now, by id, and why."""
        found = {}
        for ident, tries, policy in self._counted():
            left = policy.left(tries.count, tries.since)
            if left <= 0:
                continue
            times = "once" if tries.count == 1 else f"{tries.count} times"
            words = f"was tried {times} in vain and is tried again in {in_words(left)}"
            if policy.given_up(tries.count):
                words = f"was given up after {tries.count} attempts; the next in {in_words(left)}"
            found[ident] = words
        return found

    def _counted(self) -> list[tuple[str, Attempts, Policy]]:
        found = []
        for ident, tries in self._open.items():
            resource = self._resources.get(ident)
            if resource is None or not resource.present or resource.skip is not None:
                continue
            kind = self._get_kind(resource.kind)
            policy = kind.policy(resource.want)
            if policy is not None and tries.version == kind.version(resource.want):
                found.append((ident, tries, policy))
        return found

    def begins(self, step: Step) -> None:
        """A step is about to act; a start is on the disk before it is made."""
        resource = self._resources[step.id]
        kind = self._get_kind(resource.kind)
        starts = step.verb in ("start", "restart")
        if self._store is not None and starts and kind.policy(resource.want) is not None:
            self._begun.add(step.id)
            with self._guarded():
                self._store.attempt(step.id, kind.version(resource.want))

    def ended(self, outcome: Outcome) -> None:
        """A step has come to its end; a start that failed counts as one in vain."""
        if (
            self._store is not None
            and outcome.result == "failed"
            and outcome.step.id in self._begun
        ):
            with self._guarded():
                self._store.failed(outcome.step.id)

    def learn(self, plan: Plan) -> None:
        """Forgive what has stayed healthy, and what nobody wants any more."""
        if self._store is not None:
            with self._guarded():
                self._learn(plan, self._store)

    def _learn(self, plan: Plan, store: Store) -> None:
        counted = {ident: (tries, policy) for ident, tries, policy in self._counted()}
        wrong = {step.id for step in plan.steps}
        wrong |= {remark.id for remark in (*plan.unknown, *plan.held, *plan.skipped)}
        for ident in self._open:
            if ident not in counted:
                if self._open[ident].count or ident not in self._resources:
                    store.forgive(ident)
                continue
            tries, policy = counted[ident]
            if ident in wrong or not tries.count:
                continue
            if tries.since is None or tries.since < 0:
                store.seen_running(ident)
            elif policy.forgiven(tries.since):
                store.forgive(ident)

    def due(self, plan: Plan) -> float | None:
        """Seconds until a wait is over, or an attempt would be forgiven; None: nothing is open."""
        waiting = {remark.id for remark in plan.held}
        # What is not known, or waits for something else, is seen to by the next full pass.
        blocked = {remark.id for remark in (*plan.unknown, *plan.skipped)}
        times = []
        for ident, tries, policy in self._counted():
            if not tries.count or ident in blocked:
                continue
            times.append(policy.left(tries.count, tries.since))
            if ident not in waiting:
                times.append(policy.healthy_after - (tries.since or 0.0))
        return min((time for time in times if time > 0), default=None)
