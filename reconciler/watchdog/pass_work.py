"""What one pass of the loop does, in a child of its own.

It must not decide what is due; what others are at it leaves to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.core.kind import Readied, Running, Supervised
from reconciler.core.model import Observation, Outcome, Report, Resource, Spec
from reconciler.core.observe import Snapshot, observe, proved, watched
from reconciler.core.plan import difference
from reconciler.host.processes import Identity
from reconciler.host.stops import WantedStops
from reconciler.watchdog.passes import Teller
from reconciler.watchdog.probing import aftermath
from reconciler.watchdog.settling import Settling, goal

if TYPE_CHECKING:
    from reconciler.cli.call_state import Learned
    from reconciler.cli.context import Context
    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class Passed:
    """What has become of a pass: what the loop goes on with.

    ``due``: seconds until a full pass is worth while before its time.
    """

    seen: frozenset[str]
    broken: frozenset[str]
    started: frozenset[str]
    due: float | None
    learned: Learned


_NONE: Mapping[str, Identity] = {}


class _StopsOfLoop:
    """The stops that the loop makes, as a pass in a child knows them."""

    def __init__(self, going: Mapping[Identity, str], teller: Teller) -> None:
        self.going = going
        self._teller = teller

    def of(self, ident: str) -> list[Identity]:
        """See ``Stops.of``; as of the beginning of the step in hand."""
        return [identity for identity, whose in self.going.items() if whose == ident]

    def make(self, wanted: Sequence[WantedStops]) -> Sequence[str | HostError | None]:
        """See ``Stops.make``."""
        found: Sequence[str | HostError | None] = self._teller.ask("stop", wanted)
        return found


class PassWork:
    """A pass over one spec. ``untold`` is what people are to be told of besides, ``going`` the
    stops of the loop when it began, and ``last`` by id what has run before."""

    def __init__(
        self,
        context: Context,
        spec: Spec,
        teller: Teller,
        settling: Settling,
        untold: Sequence[Outcome],
        going: Mapping[Identity, str],
        last: Mapping[str, Identity] = _NONE,
    ) -> None:
        self._context = context
        self._spec = spec
        self._teller = teller
        self._settling = settling
        self._untold = list(untold)
        self._going = going
        self._last = last

    def make(self, only: Sequence[str], stopping: Callable[[], bool]) -> Passed:
        """Look, plan, act, and remember. Raises HostError."""
        context, spec, teller = self._context, self._spec, self._teller
        stops = _StopsOfLoop(self._going, teller)
        context.forked(lambda lines: teller.tell("lines", lines), stops)
        outcomes = self._untold
        context.recover(spec)
        host = context.host(spec)

        def ended(outcome: Outcome) -> None:
            outcomes.append(outcome)
            teller.tell("outcome", outcome)

        self._prove(only, ended)
        begun = context.clock.monotonic()
        look = replace(context.look(spec, host, tuple(only)), begun=begun)
        plan = replace(look.plan, steps=())
        steps = [step.id for step in look.plan.steps]
        others = teller.ask("looked", plan, frozenset(look.seen), steps)
        if others:
            # What others are at was seen in the midst of it, and is theirs.
            seen = {ident: one for ident, one in look.seen.items() if ident not in others}
            look = replace(look, plan=look.plan.without(others), seen=seen)
        self._watch(look, look.seen, host)
        report = Report(look.plan)
        after: dict[str, Observation[Any]] = {}
        if look.plan.steps:
            moved: list[Resource[Any]] = []
            by_id = {resource.id: resource for resource in look.spec.resources}

            def watch_moved() -> None:
                # Of what is supervised it is known which process it was.
                known = {one.id for one in supervised(moved)} & after.keys()
                seen = {ident: after[ident] for ident in known}
                seen |= observe(
                    [one for one in moved if one.id not in known], context.get_kind, host
                )
                self._watch(look, seen, host)
                # What was there when the step had ended, and is not any more; what must hold for
                # a while is looked at again when that is over.
                helped = {one.step.id for one in outcomes if one.result == "done"}
                ended = [
                    one.id
                    for one in moved
                    if one.id in helped
                    and isinstance(kind := context.get_kind(one.kind), Running)
                    and not kind.settle
                    and difference(one, seen[one.id], kind)
                ]
                teller.tell("ended", ended)
                moved.clear()

            def turn(ids: Collection[str]) -> bool:
                # The steps that come may take long, and what was started may end meanwhile.
                if supervised(moved) and not supervised(by_id[ident] for ident in ids):
                    watch_moved()
                stops.going, alone = teller.turn(ids)
                moved.extend(by_id[ident] for ident in ids)
                return bool(alone)

            report = context.act(look, host, ended, stopping, settle=False, turn=turn, after=after)
            watch_moved()
        broken, started = aftermath(report)
        # A check of what is not ready yet is asked when it is.
        broken |= {
            ident
            for ident, one in {**look.seen, **after}.items()
            if one.pending and isinstance(kinds.get(ident.partition(":")[0]), Readied)
        }
        due = context.learn(look, host)
        context.tell(look, outcomes, self._last)
        if spec.metrics is not None and not only:
            context.write_metrics(look, host, outcomes)
        return Passed(
            frozenset(look.seen), frozenset(broken), frozenset(started), due, context.learned()
        )

    def _prove(self, only: Collection[str], ended: Callable[[Outcome], None]) -> None:
        """What was started a moment ago, and is looked at now: has it held?"""
        due = self._settling.looked_at(only)
        if not due:
            return
        tracker = self._context.tracker(self._spec, True)
        by_id = {resource.id: resource for resource in self._spec.resources}
        host = self._context.host(self._spec)
        paused = tracker.past().paused
        # What is wanted by now may be something else than what was started, and what is
        # paused may have been ended by the one who wants it left alone.
        same = [
            (outcome, by_id[outcome.step.id])
            for outcome, started in due
            if outcome.step.id in by_id
            and goal(by_id[outcome.step.id]) == started
            and outcome.step.id not in paused
        ]
        held = {one.step.id: one for one in proved(same, self._context.get_kind, host)}
        failed = [ident for ident, one in held.items() if one.result == "failed"]
        moved = self._teller.ask("moved", failed)
        for outcome, _ in due:
            if outcome.step.id in moved:
                continue  # It is another step by now that has to hold.
            now = held.get(outcome.step.id, outcome)
            if now.result == "failed":
                tracker.ended([now])
                ended(now)
            self._teller.tell("proved", now)
        tracker.flush()

    def _watch(self, look: Snapshot, seen: Mapping[str, Observation[Any]], host: Host) -> None:
        """Have the end of every process that was seen, or started just now, wake the loop."""
        by_id = {resource.id: resource for resource in look.spec.resources}
        wanted: dict[str, list[Identity]] = {}
        paced = set()
        for ident, one in seen.items():
            resource = by_id[ident]
            kind = self._context.get_kind(resource.kind)
            if isinstance(kind, Supervised):
                paced.add(ident)
            wanted[ident] = []
            if one.unknown is None and resource.present:
                wanted[ident] = watched(kind, resource, one.state, host)
        self._teller.tell("watch", wanted, paced)
        self._teller.tell("pending", _asked(by_id, seen))


def _asked(
    by_id: Mapping[str, Resource[Any]], seen: Mapping[str, Observation[Any]]
) -> dict[str, Any]:
    """What was seen of those that are asked whether they are ready; None where nothing runs."""
    return {
        ident: one.state if by_id[ident].present else None
        for ident, one in seen.items()
        if isinstance(kind := kinds.get(by_id[ident].kind), Readied)
        and kind.readiness(by_id[ident].want) is not None
    }


def supervised(resources: Iterable[Resource[Any]]) -> list[Resource[Any]]:
    """Those that are to be started anew whenever they end."""
    return [
        one
        for one in resources
        if one.present and one.skip is None and isinstance(kinds.get(one.kind), Supervised)
    ]
