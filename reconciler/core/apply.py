"""A plan, to a report: before each step it looks again, acts, and looks whether it helped.

It must not do anything that the plan does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.base.text import error_in_words
from reconciler.core.kind import GetKind
from reconciler.core.model import Observation, Outcome, Plan, Report, Resource, Spec, Step
from reconciler.core.observe import observe
from reconciler.core.plan import difference, needed_by
from reconciler.host.progress import working

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_NAMED = 3
"""Of the actions of a step that failed."""
OnBegin = Callable[[Step], str | None]
"""Told of each step that is about to act; why it must wait, if so."""
OnOutcome = Callable[[Outcome], None]
"""Told of each step as it ends; a step that is found dead at the end is told again."""


def apply(
    plan: Plan,
    spec: Spec,
    get_kind: GetKind,
    host: Host,
    told: OnOutcome,
    stopping: Callable[[], bool] = lambda: False,
    begins: OnBegin = lambda step: None,
    settle: bool = True,
    again: bool = False,
    turn: Callable[[Collection[str]], None] = lambda ids: None,
) -> Report:
    """Run the plan's steps in order. A step that fails skips what needs it, nothing else.

    Once ``stopping`` says so, no further step is begun. A step that ``begins`` to act is told,
    and not done when that raises HostError. With ``settle`` it waits until what must hold for a
    while has held; without, the caller asks ``proved`` when the time has come. ``again``: it is
    the short pass behind another one. ``turn`` is called before the steps of these ids are looked
    at again and done, and may wait until nobody else is at one of them.
    """
    by_id = {resource.id: resource for resource in spec.resources}
    settling = _Settling(by_id, get_kind, host, told)
    broken: dict[str, str] = {}
    for group in _groups(plan.steps, by_id, get_kind):
        if settle:
            # What has only just been started may yet fail, and what needs it is skipped then.
            needs = {need for step in group for need in step.needs}
            broken |= dict.fromkeys(settling.wait(needs), "failed")
        runs = [_Run(step, by_id[step.id], get_kind, host, begins, again) for step in group]
        if not stopping():
            turn([step.id for step in group])
        if stopping():
            for run in runs:
                run.leave("it was not begun, because the pass was asked to stop")
        for stage in range(max(run.stages for run in runs)):
            for run in runs:
                run.go_on(stage, broken)
        for run in runs:
            settling.add(run.outcome(broken))
    turn(())  # What follows takes nothing away from others.
    if settle:
        settling.wait(by_id.keys())
    return Report(plan, tuple(settling.outcomes))


def _groups(
    steps: Sequence[Step], by_id: Mapping[str, Resource[Any]], get_kind: GetKind
) -> Iterator[list[Step]]:
    """Steps that follow one another and are done together, else each alone."""
    group: list[Step] = []
    for step in steps:
        kind = get_kind(by_id[step.id].kind)
        if group and not (kind.together and kind is get_kind(by_id[group[0].id].kind)):
            yield group
            group = []
        group.append(step)
    if group:
        yield group


class _Run:
    """One step on its way, from the look before it to the look after it."""

    def __init__(
        self,
        step: Step,
        resource: Resource[Any],
        get_kind: GetKind,
        host: Host,
        begins: OnBegin,
        again: bool,
    ) -> None:
        self.step = step
        self._again = again
        self._begins = begins
        self.resource = resource
        self.get_kind = get_kind
        self.kind = get_kind(resource.kind)
        self.host = host
        self._end: tuple[str, str | None] | None = None
        self._seconds = 0.0
        try:
            self._stages = self.kind.stages(step.actions)
        except Exception as error:
            self._stages, self._end = (), ("failed", _failure(error))

    @property
    def stages(self) -> int:
        return len(self._stages)

    def leave(self, why: str) -> None:
        """Do not even begin it."""
        self._end = "skipped", why

    def go_on(self, stage: int, broken: dict[str, str]) -> None:
        """Do the next stage, unless the step has come to its end already.

        ``broken`` has those that others must not build on, with their results.
        """
        if self._end is not None or stage >= len(self._stages):
            return
        begin = self.host.clock.monotonic()
        need = needed_by(self.step, broken)
        if need is not None and broken[need] == "dropped":
            # It may be done yet, and then this one, too.
            self._end = "dropped", f"needs {need}, which was not done, as the host has changed"
        elif need is not None:
            self._end = "skipped", f"needs {need}, which failed or was not done"
        else:
            try:
                self._end = (self._begin() if stage == 0 else None) or self._act(stage)
            except Exception as error:
                # Whatever it is, it is this step's trouble alone.
                self._end = "failed", _failure(error)
        if self._end is not None and self._end[1] is not None:
            broken[self.step.id] = self._end[0]
        self._seconds += self.host.clock.monotonic() - begin

    def _begin(self) -> tuple[str, str | None] | None:
        """Look again: is the step still what is to be done?"""
        if self.step.denied is not None:
            return "failed", self.step.denied
        seen = _look(self.resource, self.get_kind, self.host)
        if seen.unknown is not None:
            return "failed", f"cannot look at it any more: {seen.unknown}"
        changes = difference(self.resource, seen, self.kind)
        if self.step.demanded:
            if not {ailment.of for ailment in seen.ailments} >= set(self.step.of):
                return "dropped", "it is well again since the plan was made"
            state, of = seen.state, self.step.of
            now = self.kind.again(self.resource, state, of) if state is not None else ()
        elif not changes:
            # Somebody was faster, or an earlier step has done it along the way.
            return "dropped", None
        else:
            now = self.kind.actions(self.resource, seen.state, changes)
        # Where each action stands alone, others who move the host all the time must not keep it
        # from being done for ever.
        if not (self._again and self.kind.apart) and self.kind.stale(self.step.actions, now):
            return "dropped", "the host has changed since the plan; the next pass looks again"
        failed = None
        try:
            awaited = self.kind.awaits(self.resource, self.step.actions, self.host)
        except HostError as error:
            awaited, failed = None, str(error)
        if awaited is not None:
            # A start is an attempt only once it is made.
            return "begun", awaited
        try:
            waits = self._begins(self.step)
        except HostError as error:
            return "failed", str(error)
        if waits is not None:
            return "dropped", waits
        return None if failed is None else ("failed", failed)

    def _act(self, stage: int) -> tuple[str, str | None] | None:
        actions = self._stages[stage]
        failed: list[str] = []
        with working(f"{self.step.verb} {self.step.id}", len(actions)) as work:
            for action in actions:
                self.host.forget()
                try:
                    action.run(self.host)
                except Exception as error:
                    failed.append(_failure(error))
                if failed and not self.kind.apart:
                    break
                work.advance()
        if not failed:
            return None
        more = f"; and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        return "failed", "; ".join(failed[:_MOST_NAMED]) + more

    def outcome(self, broken: dict[str, str]) -> Outcome:
        """How the step has ended, after a look whether it helped."""
        begin = self.host.clock.monotonic()
        note = lives_on = None
        if self._end is None:
            wrong = _wrong(self.step, self.resource, self.get_kind, self.host)
            idle = False
            try:
                note, idle = self.kind.spared(self.step.actions)
            except Exception as error:
                wrong = wrong or (_failure(error), None)
            self._end = ("dropped" if idle else "done", None)
            if wrong is not None:
                words, lives_on = wrong
                self._end = "failed", words
                broken[self.step.id] = "failed"
        self._seconds += self.host.clock.monotonic() - begin
        return Outcome(self.step, *self._end, self._seconds, note, lives_on)


def _look(resource: Resource[Any], get_kind: GetKind, host: Host) -> Observation[Any]:
    return observe((resource,), get_kind, host)[resource.id]


def _failure(error: Exception) -> str:
    """Why a step has failed, in words."""
    if isinstance(error, OSError) and not isinstance(error, HostError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return error_in_words(error)


Wrong = tuple[str, str | None]
"""What is wrong after a step, and what lives on of it all the same."""


def _wrong(step: Step, resource: Resource[Any], get_kind: GetKind, host: Host) -> Wrong | None:
    """What is still not as it should be, with what the host tells about it; None when all is."""
    try:
        return _still_wrong(step, resource, get_kind, host)
    except Exception as error:
        return f"done, but cannot look at it any more: {_failure(error)}", None


def _still_wrong(
    step: Step, resource: Resource[Any], get_kind: GetKind, host: Host
) -> Wrong | None:
    kind = get_kind(resource.kind)
    seen = _look(resource, get_kind, host)
    if seen.unknown is not None:
        return f"done, but cannot look at it any more: {seen.unknown}", None
    expected = kind.expected(resource.want) if resource.present else None
    left = kind.left(step.actions, expected, seen.state)
    if not left:
        return None
    evidence = seen.lives_on or kind.evidence(resource, host)
    words = f"still wrong after it was done: {kind.words(left)}"
    return f"{words} ({evidence})" if evidence else words, seen.lives_on


class _Settling:
    """The outcomes of a pass; of what must hold for a while, until it has had the time to break."""

    def __init__(
        self,
        by_id: Mapping[str, Resource[Any]],
        get_kind: GetKind,
        host: Host,
        told: OnOutcome,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._by_id = by_id
        self._get_kind = get_kind
        self._host = host
        self._told = told
        self._fresh: dict[str, tuple[int, float]] = {}
        """What must yet hold: the place of its outcome, and until when."""

    def add(self, outcome: Outcome) -> None:
        """A step has come to its end."""
        kind = self._get_kind(self._by_id[outcome.step.id].kind)
        if outcome.result == "done" and kind.settle:
            until = self._host.clock.monotonic() + kind.settle
            self._fresh[outcome.step.id] = len(self.outcomes), until
        self.outcomes.append(outcome)
        self._told(outcome)

    def wait(self, ids: Collection[str]) -> set[str]:
        """Wait until those of ``ids`` have held; the ids that have not."""
        due = {ident: self._fresh.pop(ident) for ident in self._fresh.keys() & set(ids)}
        left = max((until for _, until in due.values()), default=0.0)
        left -= self._host.clock.monotonic() if due else 0.0
        if left > 0:
            self._host.clock.sleep(left)
        failed = set()
        for ident, (at, _) in due.items():
            found = proved(self.outcomes[at], self._by_id[ident], self._get_kind, self._host)
            self.outcomes[at] = found
            if found.result == "failed":
                failed.add(ident)
                self._told(found)
        return failed


def proved(outcome: Outcome, resource: Resource[Any], get_kind: GetKind, host: Host) -> Outcome:
    """The outcome of a step that was done, after another look whether it has held."""
    wrong = _wrong(outcome.step, resource, get_kind, host)
    if wrong is None:
        return outcome
    words, lives_on = wrong
    return replace(outcome, result="failed", error=words, lives_on=lives_on)
