"""A plan, to a report: before each step it looks again, acts, and looks whether it helped.

It must not do anything that the plan does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.core.kind import (
    Ageing,
    Batched,
    Following,
    GetKind,
    Supervised,
    Verified,
    run_one,
)
from reconciler.core.model import (
    Action,
    Observation,
    Outcome,
    Plan,
    Report,
    Resource,
    Spec,
    Step,
)
from reconciler.core.observe import failure, observe, still_wrong
from reconciler.core.plan import difference, needed_by
from reconciler.core.proving import OnOutcomes, Proving
from reconciler.host.progress import working

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_NAMED = 3
"""Of the actions of a step that failed."""
_AT_ONCE = 64
"""Supervised resources at most that are started or stopped together: another pass that wants to
restart one of them waits for all."""
_LATELY = 0.1
"""Seconds for which a look at what is supervised is as good as another one."""
Lately = tuple[float, Mapping[str, Observation[Any]]]
"""When a look has begun, by the monotonic clock, and what was seen, by id."""
_NOTHING: Lately = (float("-inf"), {})
OnActing = Callable[[Resource[Any], Step, Any], None]
"""Told of a step that is about to act, with the state that was seen right before."""
OnBegin = Callable[[Sequence[Step]], Mapping[str, str]]
"""Told of the steps that are about to act; why some must wait, by id."""


def apply(
    plan: Plan,
    spec: Spec,
    get_kind: GetKind,
    host: Host,
    on_outcomes: OnOutcomes,
    stopping: Callable[[], bool] = lambda: False,
    begins: OnBegin = lambda steps: {},
    settle: bool = True,
    again: bool = False,
    turn: Callable[[Collection[str]], bool] = lambda ids: False,
    after: dict[str, Observation[Any]] | None = None,
    acts: OnActing = lambda resource, step, have: None,
    lately: Lately = _NOTHING,
) -> Report:
    """Run the plan's steps in order. A step that fails skips what needs it, nothing else.

    Once ``stopping`` says so, no further step is begun. A step that ``begins`` to act is reported,
    and not done when that raises HostError. With ``settle`` it waits until what must hold for a
    while has held; without, the caller asks ``proved`` when the time has come. ``again``: it is
    the short pass behind another one. ``turn`` is called before the steps of these ids are looked
    at again and done, may wait until nobody else is at one of them, and says whether nobody else
    has been. ``after`` gets what was seen last of what was done. ``acts`` is told of each step
    before it acts. ``lately`` is the look that the plan was made by, which takes the place of
    another one where it is fresh and nobody else has been at them.
    """
    after = {} if after is None else after
    by_id = {resource.id: resource for resource in spec.resources}
    settling = Proving(by_id, get_kind, host, on_outcomes)
    broken: dict[str, str] = {}
    for group in _groups(plan.steps, by_id, get_kind):
        if settle:
            # What has only just been started may yet fail, and what needs it is skipped then.
            needs = {need for step in group for need in step.needs}
            broken |= dict.fromkeys(settling.wait(needs), "failed")
        runs = [_Run(step, by_id[step.id], get_kind, again) for step in group]
        alone = not stopping() and turn([step.id for step in group])
        if stopping():
            for run in runs:
                run.leave("it was not begun, because the pass was asked to stop")
        else:
            _run_all(runs, get_kind, host, begins, acts, broken, lately if alone else _NOTHING)
        outcomes = list(_outcomes(runs, get_kind, host, broken, after))
        settling.add(outcomes)
        if not settle:
            broken |= dict.fromkeys(settling.not_ready(outcomes), "not ready")
    turn(())  # What follows takes nothing away from others.
    if settle:
        settling.wait(by_id.keys())
    return Report(plan, tuple(settling.outcomes))


def _groups(
    steps: Sequence[Step], by_id: Mapping[str, Resource[Any]], get_kind: GetKind
) -> Iterator[list[Step]]:
    """Steps that follow one another and are done together, else each alone.

    What must hold for a while before others build on it is in a group before theirs.
    """
    group: list[Step] = []
    for step in steps:
        kind = get_kind(by_id[step.id].kind)
        joins = isinstance(kind, Batched) and group and kind is get_kind(by_id[group[0].id].kind)
        if joins and isinstance(kind, Supervised):
            ids = {one.id for one in group}
            joins = len(group) < _AT_ONCE and ids.isdisjoint(step.needs)
        if group and not joins:
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def _waves(runs: Sequence[_Run]) -> list[list[_Run]]:
    """The runs in an order in which none of a wave needs, or comes after, another one of it."""
    levels: dict[str, int] = {}
    for run in runs:
        before = {*run.step.needs, *run.resource.after}
        levels[run.step.id] = 1 + max((levels.get(one, 0) for one in before), default=0)
    waves: list[list[_Run]] = [[] for _ in range(max(levels.values()))]
    for run in runs:
        waves[levels[run.step.id] - 1].append(run)
    return waves


def _run_all(
    runs: Sequence[_Run],
    get_kind: GetKind,
    host: Host,
    on_begin: OnBegin,
    acts: OnActing,
    broken: dict[str, str],
    lately: Lately,
) -> None:
    """Do the steps of a group, stage by stage; ``broken`` has what others must not build on."""
    begun, seen = lately
    known = (isinstance(run.kind, Supervised) and run.step.id in seen for run in runs)
    if host.clock.monotonic() - begun >= _LATELY or not all(known):
        seen = observe([run.resource for run in runs if not run.looks_itself], get_kind, host)
    waves = _waves(runs)
    for stage in range(max(run.stages for run in runs)):
        for wave in waves:
            acting = [run for run in wave if run.goes_on_to(stage, seen.get(run.step.id), broken)]
            if stage == 0 and acting:
                for run in acting:
                    now = seen.get(run.step.id)
                    acts(run.resource, run.step, None if now is None else now.state)
                _begin(acting, host, on_begin)
            going = [run for run in acting if run.end is None]
            _act(going, stage, host)
            for run in acting:
                run.note_if_broken(broken)


def _begin(runs: Sequence[_Run], host: Host, on_begin: OnBegin) -> None:
    """Ask what must end before; those that have to wait come to their end here."""
    kind = runs[0].kind
    awaited: Sequence[str | HostError | None] = [None] * len(runs)
    if isinstance(kind, Supervised):
        try:
            awaited = kind.awaits([(run.resource, run.step.actions) for run in runs], host)
        except Exception as error:
            awaited = [HostError(failure(error))] * len(runs)
    acting = []
    for run, why in zip(runs, awaited, strict=True):
        if isinstance(why, str):
            # A start is an attempt only once it is made.
            run.end = "begun", why
        else:
            acting.append((run, why))
    try:
        waits = on_begin([run.step for run, _ in acting])
    except Exception as error:
        for run, _ in acting:
            run.end = "failed", failure(error)
        return
    for run, failed in acting:
        if run.step.id in waits:
            run.end = "dropped", waits[run.step.id]
        elif failed is not None:
            run.end = "failed", str(failed)


def _act(runs: Sequence[_Run], stage: int, host: Host) -> None:
    """Do the actions of that stage; the first ones of all runs, then the second ones, or all."""
    most = max((len(run.actions(stage)) for run in runs), default=0)
    if not most:
        return
    kind = runs[0].kind
    size = most if isinstance(kind, Batched) and kind.together else 1
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    total = sum(len(run.actions(stage)) for run in runs)
    with working(f"{runs[0].step.verb} {runs[0].step.id}{more}", total) as work:
        for at in range(0, most, size):
            going = [run for run in runs if run.goes_on]
            acting = [(run, one) for run in going for one in run.actions(stage)[at : at + size]]
            if not acting:
                break
            host.forget()
            begin = host.clock.monotonic()
            actions = [one for _, one in acting]
            errors: Sequence[Exception | None]
            try:
                if isinstance(kind, Batched):
                    errors = kind.run_all(actions, host)
                else:
                    errors = [run_one(action, host) for action in actions]
            except Exception as failure:
                errors = [failure] * len(acting)
            seconds = (host.clock.monotonic() - begin) / len(acting)
            for (run, _), error in zip(acting, errors, strict=True):
                run.acted(error, seconds)
            work.advance(len(acting))
    for run in runs:
        run.end_stage()


def _outcomes(
    runs: Sequence[_Run],
    get_kind: GetKind,
    host: Host,
    broken: dict[str, str],
    after: dict[str, Observation[Any]],
) -> Iterator[Outcome]:
    """How the steps have ended, after one look whether they helped."""
    begin = host.clock.monotonic()
    done = [run for run in runs if run.end is None and not run.looks_itself]
    seen = observe([run.resource for run in done], get_kind, host)
    after.update(seen)
    wrong = still_wrong([(run.step, run.resource) for run in done], seen, get_kind, host)
    seconds = (host.clock.monotonic() - begin) / (len(done) or 1)
    for run in runs:
        note = lives_on = None
        if run.end is None:
            run.seconds += seconds
            problem = wrong.get(run.step.id)
            idle = False
            try:
                if isinstance(run.kind, Verified):
                    note, idle = run.kind.spared(run.step.actions)
            except Exception as error:
                problem = problem or (failure(error), None)
            run.end = ("dropped" if idle else "done", None)
            if problem is not None:
                words, lives_on = problem
                run.end = "failed", words
                broken[run.step.id] = "failed"
        yield Outcome(run.step, *run.end, run.seconds, note, lives_on)


class _Run:
    """One step on its way, from the look before it to the look after it."""

    def __init__(
        self,
        step: Step,
        resource: Resource[Any],
        get_kind: GetKind,
        again: bool,
    ) -> None:
        self.step = step
        self.resource = resource
        self.kind = get_kind(resource.kind)
        self.seconds = 0.0
        self.end: tuple[str, str | None] | None = None
        self._pending = False
        """Is it done already, but not ready for others?"""
        self._again = again
        self._failed: list[str] = []
        self._stages: Sequence[Sequence[Action]] = (step.actions,)
        try:
            if isinstance(self.kind, Batched):
                self._stages = self.kind.stages(step.actions)
        except Exception as error:
            self._stages, self.end = (), ("failed", failure(error))

    @property
    def stages(self) -> int:
        return len(self._stages)

    def actions(self, stage: int) -> Sequence[Action]:
        return self._stages[stage]

    def leave(self, why: str) -> None:
        """Do not even begin it."""
        self.end = "skipped", why

    @property
    def looks_itself(self) -> bool:
        """Is there no look before and after the step, since each of its actions takes one?"""
        return isinstance(self.kind, Ageing) and self.kind.looks_itself(self.resource.want)

    def goes_on_to(self, stage: int, seen: Observation[Any] | None, broken: dict[str, str]) -> bool:
        """Is that stage to be done? ``seen`` is the look before the first one, if there was one."""
        if self.end is not None or stage >= len(self._stages):
            return False
        need = needed_by(self.step, broken)
        if need is not None and broken[need] == "dropped":
            # It may be done yet, and then this one, too.
            self.end = "dropped", f"needs {need}, which was not done, as the host has changed"
        elif need is not None and broken[need] == "not ready":
            self.end = "skipped", f"needs {need}, which is not ready yet"
        elif need is not None:
            self.end = "skipped", f"needs {need}, which failed or was not done"
        elif stage == 0:
            try:
                self.end = self._hindrance(seen)
            except Exception as error:
                # Whatever it is, it is this step's trouble alone.
                self.end = "failed", failure(error)
        self.note_if_broken(broken)
        return self.end is None

    def note_if_broken(self, broken: dict[str, str]) -> None:
        """Others must not build on it where it has failed, or was dropped for a reason."""
        if self.end is not None and self.end[1] is not None:
            broken[self.step.id] = self.end[0]
        elif self._pending:
            # Somebody was faster, and it is only ready once somebody has asked it.
            broken[self.step.id] = "not ready"

    def _hindrance(self, seen: Observation[Any] | None) -> tuple[str, str | None] | None:
        """How it ends without being done; None: it is still what is to be done."""
        if self.step.denied is not None:
            return "failed", self.step.denied
        if seen is None:
            return None
        if seen.unknown is not None:
            return "failed", f"cannot look at it any more: {seen.unknown}"
        changes = difference(self.resource, seen, self.kind)
        if self.step.demanded:
            if not {ailment.of for ailment in seen.ailments} >= set(self.step.of):
                return "dropped", "recovered since the plan was made"
            state, of = seen.state, self.step.of
            now: Sequence[Action] = ()
            if state is not None and isinstance(self.kind, Supervised):
                now = self.kind.restart(self.resource, state, of)
        elif not changes:
            # Somebody was faster, or an earlier step has done it along the way.
            self._pending = seen.pending is not None
            return "dropped", None
        else:
            now = self.kind.actions(self.resource, seen.state, changes)
        # Where each action stands alone, others who move the host all the time must not keep it
        # from being done for ever.
        if isinstance(self.kind, Verified):
            stale = self.kind.stale(self.step.actions, now)
        else:
            stale = tuple(self.step.actions) != tuple(now)
        if stale and not (self._again and isinstance(self.kind, Following)):
            return "dropped", "the host has changed since the plan; the next pass looks again"
        return None

    @property
    def goes_on(self) -> bool:
        """Is the next action of the stage to be done, too?"""
        return not self._failed or isinstance(self.kind, Following)

    def acted(self, error: Exception | None, seconds: float) -> None:
        """One action was done, or has failed."""
        self.seconds += seconds
        if error is not None:
            self._failed.append(failure(error))

    def end_stage(self) -> None:
        """Where an action has failed, the step has."""
        failed = list(dict.fromkeys(self._failed))
        if failed:
            more = f"; and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
            self.end = "failed", "; ".join(failed[:_MOST_NAMED]) + more
