"""The starts of a spec's processes that failed, and what follows from it.

It must not start anything; it says what has to wait, and remembers what was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.core.kind import GetKind, Supervised
from reconciler.core.model import Outcome, Plan, Resource, Step
from reconciler.core.plan import STARTS, may_wait
from reconciler.core.restart_policy import NEXT, Hold, Policy, in_words
from reconciler.state.store.tables import Attempt

if TYPE_CHECKING:
    from reconciler.state.store.tables import Attempts

Unwritten = tuple[str, int, float]
"""Attempts that the store did not take: of which version, how many, and when the last was made by
the monotonic clock."""

_NOTHING: Mapping[str, str] = {}
SOON = 0.01
"""Seconds until something is looked at again whose time has come during the pass."""


@dataclass(slots=True)
class _UnwrittenStart:
    """A start that is not written down yet: when it was made, and how it went."""

    version: str
    count: int
    at: float
    counts: bool = True
    failed: bool = False
    behind: bool = False


class RestartTracker:
    """The attempts that a pass knows of, read once; ``write`` writes down what was added.

    What its methods raise is the store's HostError. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        resources: Mapping[str, Resource[Any]],
        get_kind: GetKind,
        table: Attempts,
        begun: set[str],
        unwritten: dict[str, Unwritten],
        clock: Callable[[], float],
    ) -> None:
        self.resources = resources
        self._get_kind = get_kind
        self._table = table
        # A start may be found dead only in a later pass.
        self._begun = begun
        self._unwritten = unwritten
        self._clock = clock
        self._starts: dict[str, _UnwrittenStart] = {}
        self._found_dead: dict[str, bool] = {}
        self._reset_ids: set[str] = set()
        self._running: set[str] = set()
        self._read_at = 0.0
        self._open: dict[str, Attempt] = {}
        self.read()

    def read(self) -> None:
        """Read the attempts again: another pass may have added some."""
        self._read_at = self._clock()
        try:
            self._open = self._table.all()
        except HostError:
            self._open = {}  # Whoever writes or reads more of it is told.
        for ident, (version, count, at) in self._unwritten.items():
            self._open[ident] = Attempt(version, count, self._read_at - at)

    def holds(self, lives_on: Mapping[str, str] = _NOTHING) -> Mapping[str, Hold]:
        """What must not be started now, by id, and why.

        ``lives_on`` has, by id, what is there of those that count as ended.
        """
        found = {}
        for ident, attempt, policy in self._counted():
            if attempt.behind and ident in lives_on:
                found[ident] = Hold(f"not started again: {lives_on[ident]}", True)
                continue
            left = policy.left(attempt.count, attempt.since)
            if left <= 0:
                continue
            final = policy.given_up(attempt.count)
            starts = f"{attempt.count} failed start{'' if attempt.count == 1 else 's'}"
            words = f"gave up after {starts}" if final else starts
            found[ident] = Hold(f"{words}{NEXT}{in_words(left)}", final)
        return found

    def unproven(self) -> set[str]:
        """What has come up, and was not healthy for long enough yet."""
        return {ident for ident, attempt, _ in self._counted() if attempt.count}

    def _counted(self) -> Iterator[tuple[str, Attempt, Policy]]:
        passed = self._clock() - self._read_at
        for ident, attempt in self._open.items():
            resource = self.resources.get(ident)
            if resource is None or not resource.present or resource.skip is not None:
                continue
            kind = self._get_kind(resource.kind)
            if isinstance(kind, Supervised) and attempt.version == kind.version(resource.want):
                if attempt.since is not None:
                    attempt = replace(attempt, since=round(attempt.since + passed, 6))
                yield ident, attempt, kind.policy(resource.want)

    def begin_all(self, steps: Sequence[Step]) -> dict[str, str]:
        """Steps are about to act, and starts among them are attempts. Why some must wait, by id,
        where another pass has tried them since the plan was made."""
        kinds = {step.id: self._get_kind(self.resources[step.id].kind) for step in steps}
        starts = [one for one in steps
                  if one.verb in STARTS and isinstance(kinds[one.id], Supervised)]  # fmt: skip
        if not starts:
            return {}
        self.read()
        holds, held = self.holds(), {}
        for step in starts:
            if step.id in holds and may_wait(step, kinds[step.id]):
                held[step.id] = holds[step.id].words
            else:
                self.begins(step)
        return held

    def begins(self, step: Step) -> None:
        """A step is about to act; a start is an attempt."""
        resource = self.resources[step.id]
        kind = self._get_kind(resource.kind)
        if step.verb not in ("start", "restart") or not isinstance(kind, Supervised):
            return
        self._begun.add(step.id)
        version = kind.version(resource.want)
        known = self._open.get(step.id)
        # The first one counts only once it has failed.
        count = known.count if known is not None and known.version == version else -1
        counts = not kind.renews(step.changes)
        count = max(0, count + counts)
        now = self._clock()
        self._starts[step.id] = _UnwrittenStart(version, count, now, counts)
        self._open[step.id] = Attempt(version, count, self._read_at - now)

    def ended(self, outcome: Outcome) -> None:
        """A step has come to its end; a start that failed counts."""
        ident = outcome.step.id
        if outcome.result != "failed" or ident not in self._begun:
            return
        behind = outcome.lives_on is not None
        start = self._starts.get(ident)
        if start is not None:
            start.failed, start.behind = True, behind
            start.count = max(start.count, 1)
        else:
            self._found_dead[ident] = behind
        if ident in self._open:
            known = self._open[ident]
            self._open[ident] = replace(known, count=max(known.count, 1), behind=behind)
        if ident in self._unwritten:
            version, count, at = self._unwritten[ident]
            self._unwritten[ident] = version, max(count, 1), at

    @property
    def has_news(self) -> bool:
        """Is there something to be written down?"""
        return bool(self._starts or self._found_dead or self._reset_ids or self._running)

    def write(self) -> None:
        """Write down what was begun, failed and reset; then ``written``, or ``lost``."""
        for ident in self._reset_ids:
            self._table.reset(ident)
        for ident in self._running:
            self._table.seen_running(ident)
        for ident, start in self._starts.items():
            least = start.count if ident in self._unwritten or start.failed else 0
            self._table.begun(ident, start.version, least, start.at, start.counts)
            if start.failed:
                self._table.failed(ident, start.behind)
        for ident, behind in self._found_dead.items():
            self._table.failed(ident, behind)

    def written(self) -> None:
        """It is on the disk."""
        for ident in self._starts:
            self._unwritten.pop(ident, None)
        self._starts, self._found_dead = {}, {}
        self._running, self._reset_ids = set(), set()

    def lost(self) -> None:
        """The store did not take it: the starts still count."""
        for ident, start in self._starts.items():
            self._unwritten[ident] = start.version, start.count, start.at
        self._starts, self._found_dead = {}, {}
        self._running, self._reset_ids = set(), set()

    def learn(self, plan: Plan, seen: Collection[str]) -> None:
        """Reset what has stayed healthy, and what nobody wants any more.

        ``seen`` are the ids that the plan is about.
        """
        counted = {ident: (attempt, policy) for ident, attempt, policy in self._counted()}
        wrong = {step.id for step in plan.steps}
        wrong |= {remark.id for remark in (*plan.unknown, *plan.held, *plan.skipped)}
        for ident, known in list(self._open.items()):
            if ident not in counted:
                if known.count or ident not in self.resources:
                    self._reset(ident)
                continue
            attempt, policy = counted[ident]
            if ident in wrong or ident not in seen or not attempt.count:
                continue
            if attempt.since is None or attempt.since < 0:
                self._running.add(ident)
                self._open[ident] = replace(known, since=self._read_at - self._clock())
            elif policy.is_reset(attempt.since):
                self._reset(ident)

    def _reset(self, ident: str) -> None:
        self._unwritten.pop(ident, None)
        del self._open[ident]
        self._reset_ids.add(ident)

    def due(self, plan: Plan, lives_on: Collection[str] = ()) -> float | None:
        """Seconds until a wait is over, or a retry counter would be reset; None: nothing is open.

        ``lives_on`` are those of ``holds``, whose end is learnt when it comes.
        """
        waiting = {remark.id for remark in plan.held}
        begun = {step.id for step in plan.steps}
        # What is not known, or waits for something else, is for the next full pass.
        blocked = {remark.id for remark in (*plan.unknown, *plan.skipped)}
        times = []
        for ident, attempt, policy in self._counted():
            if not attempt.count or ident in blocked or (attempt.behind and ident in lives_on):
                continue
            left = policy.left(attempt.count, attempt.since)
            if ident in begun and policy.given_up(attempt.count):
                left = 0.0  # Should it have failed, that is told at once.
            # The wait may have come to its end since the plan was made.
            times.append(max(left, SOON) if ident in waiting or ident in begun else left)
            if ident not in waiting:
                times.append(policy.healthy_after - (attempt.since or 0.0))
        return min((time for time in times if time > 0), default=None)
