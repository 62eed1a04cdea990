"""All that is remembered between passes, as one pass needs it.

It must not look at the host, plan or act. A store that fails stops nothing: it is told, and
nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import replace
from reconciler.base.values import ProbeHistory
from reconciler.core.kind import Ageing, GetKind, Probed
from reconciler.core.model import Observation, Outcome, Past, Plan, Resource, Step
from reconciler.state.folder import Newer, Unreadable

if TYPE_CHECKING:
    from reconciler.state.restarts import RestartTracker, Unwritten
    from reconciler.state.store import Store
    from reconciler.state.store.journal import Noted
    from reconciler.state.store.tables import Condition, Deeds, Pause
    from reconciler.undo.journal import PassJournal

_FLUSH = 1.0
"""Seconds that what was done may wait for being written: each writing waits for the disk."""


class Tracker:
    """What is remembered of one spec; ``store`` None: there is nothing yet, and nothing to add.

    ``begun`` holds the ids of what was started in this call of the program, ``by`` says who that
    is (see store.history.Deed). ``clean`` takes secrets, and what cannot be printed, out of a text.
    ``said`` is what probes have said in this call, and ``unwritten`` holds the attempts that the
    store did not take: what cannot be written down still counts.
    """

    def __init__(
        self,
        resources: Sequence[Resource[Any]],
        get_kind: GetKind,
        store: Store | None,
        warn: Callable[[str], None],
        begun: set[str],
        by: Callable[[], str],
        clean: Callable[[str], str],
        said: dict[str, ProbeHistory],
        unwritten: dict[str, Unwritten],
    ) -> None:
        self.store = store
        self._unwritten = unwritten
        self._said = said
        self._resources = {resource.id: resource for resource in resources}
        self._get_kind = get_kind
        self._warn = warn
        self._begun = begun
        self._by = by
        self._clean = clean
        self._deeds: Deeds | None = None
        self._tracker: RestartTracker | None = None
        self._lasting: Mapping[Condition, float] | None = None
        self._checks: Mapping[str, ProbeHistory] | None = None
        self._flushed = store.base.clock.monotonic() if store is not None else 0.0
        self.journal: PassJournal | None = None
        """Notes what each step does, for ``--undo``."""
        self.number: int | None = None
        """That of the pass, once it has written something."""
        self.goes_on = False
        """Has somebody else begun this pass, and noted something of it?"""
        self._noted = False
        """Is something of it noted that would have to go again?"""

    @contextmanager
    def _guarded(self, *fatal: type[HostError]) -> Iterator[None]:
        try:
            yield
        except HostError as error:
            if isinstance(error, (Newer, *fatal)):
                raise
            self._warn(f"{error}; failed starts are not remembered")
        if self.store is not None and self.store.base.damaged is not None:
            self._warn(self.store.base.damaged)

    def take(self, resources: Sequence[Resource[Any]], store: Store | None) -> None:
        """It is about these resources now, and that store."""
        if store is not self.store:
            self.store, self._tracker = store, None
        self._resources = {resource.id: resource for resource in resources}
        if self._tracker is not None:
            self._tracker.resources = self._resources

    def refresh(self) -> None:
        """Another pass begins, and reads what the one before it, or somebody else, has written."""
        self._tracker = self._lasting = self._checks = None

    def _restarts(self, store: Store) -> RestartTracker:
        if self._tracker is None:
            from reconciler.state.restarts import RestartTracker

            self._tracker = RestartTracker(
                self._resources, self._get_kind, store.attempts, self._begun, self._unwritten,
                store.base.clock.monotonic,
            )  # fmt: skip
        return self._tracker

    def _conditions(self, store: Store) -> Mapping[Condition, float]:
        if self._lasting is None:
            self._lasting = store.conditions.all()
        return self._lasting

    def past(self, seen: Mapping[str, Observation[Any]] | None = None) -> Past:
        """What a plan must know about what was ``seen``.

        Raises Unreadable where it cannot be known what is paused.
        """
        past = Past()
        if self.store is not None:
            # What a person has paused stays so once the store is damaged.
            past = replace(past, paused=_paused(self.store.pauses.known))
            with self._guarded(Unreadable):
                past = replace(past, paused=_paused(self.store.pauses.all()))
                past = replace(past, holds=self._restarts(self.store).holds(_lives_on(seen or {})))
                past = replace(past, lasting=self._conditions(self.store))
        return past

    def said(self) -> Mapping[str, ProbeHistory]:
        """What probes have said last, by id."""
        found: dict[str, ProbeHistory] = {}
        if self.store is not None:
            with self._guarded():
                self._checks = found = self.store.checks.all()
        return found | self._said

    def keep(self, said: Mapping[str, ProbeHistory]) -> None:
        """Write down what probes have said."""
        if self.store is not None:
            with self._guarded():
                self.store.checks.say(said)

    def begins(self, steps: Sequence[Step]) -> dict[str, str]:
        """Steps are about to act. A start is made before it is written down, for the disk may take
        its time: who is killed in between loses that one attempt.

        Why some must wait, by id, where another pass has tried them since the plan was made.
        """
        held: dict[str, str] = {}
        if self.store is not None:
            with self._guarded():
                held = self._restarts(self.store).begin_all(steps)
            going = [step for step in steps if step.id not in held]
            self._acts({ident for step in going for ident in (step.id, *step.demanded)})
        return held

    def _acts(self, ids: Collection[str]) -> None:
        """What these ask for is being done, whatever comes of it: it is not done at each pass."""
        probed = [ident for ident in ids if self._is_probed(ident)]
        for ident in self._said.keys() & set(probed):
            before = self._said[ident]
            self._said[ident] = replace(before, failures=0, acted=before.acted + 1)
        if probed and self.store is not None:
            with self._guarded():
                self.store.checks.acted(probed)

    def _is_wanted(self, ident: str) -> bool:
        resource = self._resources.get(ident)
        return resource is not None and resource.present and resource.skip is None

    def _is_probed(self, ident: str) -> bool:
        resource = self._resources.get(ident)
        return resource is not None and isinstance(self._get_kind(resource.kind), Probed)

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Steps have come to their end."""
        if self.store is None:
            return
        for outcome in outcomes:
            self._note(self.store, outcome)
        has_news = self._tracker is not None and self._tracker.has_news
        if has_news or self.store.base.clock.monotonic() - self._flushed > _FLUSH:
            self.flush()

    def _note(self, store: Store, outcome: Outcome) -> None:
        from reconciler.state.store.tables import Deed, Deeds

        clock = store.base.clock
        step = outcome.step
        if outcome.result == "begun":
            # The start itself is made by a later pass, for which it is simply missing.
            self._acts({step.id, *step.demanded})
        if outcome.result != "dropped" or outcome.error is not None:
            if self._deeds is None:
                self._deeds = Deeds()
            self._deeds.keep(
                step,
                Deed(clock.wall(), self._by(), step.id, step.verb, outcome.result,
                     self._clean(step.why), outcome.error and self._clean(outcome.error),
                     outcome.seconds, self._freed(outcome)),
            )  # fmt: skip
        with self._guarded():
            self._restarts(store).ended(outcome)

    def _freed(self, outcome: Outcome) -> int | None:
        resource = self._resources.get(outcome.step.id)
        if resource is None or outcome.result not in ("done", "failed"):
            return None
        kind = self._get_kind(resource.kind)
        if not isinstance(kind, Ageing):
            return None
        try:
            return kind.freed(outcome.step.actions)
        except Exception:
            return None  # It is one figure of the history.

    def intends(self) -> None:
        """Write down what takes back what is about to be done: who is killed leaves that."""
        noted = self.journal.intents() if self.store and self.journal else {}
        if self.store is None or not noted:
            return
        try:
            self._journal(self.store, noted)
        except Newer:
            return  # Each step says so.
        except HostError as error:
            self.store.journal.lost()
            self._warn(f"{error}; what is done now cannot be undone")

    def flush(self, last: bool = False) -> None:
        """Write down what was done, at once. ``last``: behind all steps of the pass."""
        noted: Noted | None = {}
        if last and self.store is not None and self.journal is not None:
            # A look at the host takes its time, and others wait for the store.
            noted = self.journal.rows(self.goes_on)
            noted = {} if noted is None and not self._noted else noted
        has_news = noted != {} or self._deeds or (self._tracker and self._tracker.has_news)
        if self.store is not None and has_news:
            with self._guarded():
                try:
                    self._journal(self.store, noted)
                except HostError as error:
                    if noted and self.number is None and not isinstance(error, Newer):
                        self.store.journal.lost()
                    raise
                if noted:
                    self.store.journal.kept()

    def _journal(self, store: Store, noted: Noted | None) -> None:
        """Write what was done, and these notes of it; less where there is no room for them."""
        deeds, undone = self._deeds.taken() if self._deeds else ((), ())
        definitions = self.journal.definitions() if self.journal is not None else {}
        number = self.number

        def add(noted: Noted | None) -> None:
            nonlocal number
            begins = self.number is None and (deeds or noted)
            number = store.journal.begin(self._by()) if begins else self.number
            store.history.add(deeds, undone, number)
            if number is not None:
                store.journal.add(number, noted, definitions)

        less = self.journal.not_noted(noted) if self.journal is not None and noted else {}
        self._flushed = store.base.clock.monotonic()
        whole = self._write(store, partial(add, noted), partial(add, less) if noted else None)
        self.number, self._noted = number, self._noted or bool(noted)
        if self.journal is not None and noted and whole:
            self.journal.wrote()

    def _write(
        self, store: Store, more: Callable[[], None], less: Callable[[], None] | None = None
    ) -> bool:
        """Write the restarts and ``more`` in one change; where there is no room for it, ``less``,
        and say False."""
        tracker = self._tracker
        lost: HostError | None = None
        for one in (more, less):
            if one is None:
                break
            try:
                with store.base.change():
                    if tracker is not None:
                        tracker.write()
                    one()
            except HostError as error:
                lost = error
                if isinstance(error, Newer):
                    break
            else:
                if tracker is not None:
                    tracker.written()
                if lost is None:
                    return True
                self._warn(f"{lost}; what was done can perhaps not be undone")
                return False
        if tracker is not None:
            tracker.lost()
        assert lost is not None
        raise lost

    def learn(self, plan: Plan, seen: Mapping[str, Observation[Any]]) -> None:
        """What was seen in a pass: reset what runs well, note what ails."""
        if self.store is not None:
            with self._guarded():
                tracker = self._restarts(self.store)
                tracker.learn(plan, seen)
                store = self.store
                begun, over = _conditions(self._conditions(store), seen, self._resources)
                known = self._checks if self._checks is not None else store.checks.all()
                gone = [ident for ident in known if not self._is_wanted(ident)]

                def note() -> None:
                    if begun or over:
                        store.conditions.note(begun, over)
                        self._lasting = None
                    if gone:
                        store.checks.forget(gone)

                if tracker.has_news or begun or over or gone:
                    self._write(store, note)
            # What was started for another reason need not be started again for this one.
            starts = {step.id for step in plan.steps if not step.demanded}
            self._acts([i for i, one in seen.items() if starts.intersection(one.demands)])

    def due(self, plan: Plan, seen: Mapping[str, Observation[Any]]) -> float | None:
        """Seconds until another pass is worth while before its time; None: nothing is open."""
        times: list[float | None] = []
        if self.store is not None:
            with self._guarded():
                times.append(self._restarts(self.store).due(plan, _lives_on(seen)))
                times += self._ripening(self.store, plan, seen)
        return min((time for time in times if time is not None and time > 0), default=None)

    def _ripening(
        self, store: Store, plan: Plan, seen: Mapping[str, Observation[Any]]
    ) -> Iterator[float]:
        """Seconds until something has ailed for long enough."""
        from reconciler.state.restarts import SOON

        lasting = self._conditions(store)
        seen_to = {step.id for step in plan.steps}
        seen_to |= {remark.id for remark in (*plan.unknown, *plan.skipped, *plan.held)}
        for ident, one in seen.items():
            for ailment in one.ailments:
                left = ailment.lasting - lasting.get((ident, ailment.what, ailment.of), 0.0)
                if left <= 0 and (ident in seen_to or not ailment.lasting):
                    continue
                # It may have become long enough since the plan was made.
                yield max(left, SOON)

    def waits(self) -> dict[str, str]:
        """The words about failed starts, by id, of what is not started now."""
        if self.store is not None:
            with self._guarded():
                return {i: one.words for i, one in self._restarts(self.store).holds().items()}
        return {}

    def unproven(self) -> set[str]:
        """What has failed starts behind it, and has not been healthy for long enough yet."""
        if self.store is not None:
            with self._guarded():
                return self._restarts(self.store).unproven()
        return set()


def has_ailments(seen: Mapping[str, Observation[Any]]) -> bool:
    """Is there something that must be noted even where nothing was noted before?"""
    return any(ailment.lasting for one in seen.values() for ailment in one.ailments)


def _conditions(
    known: Mapping[Condition, float],
    seen: Mapping[str, Observation[Any]],
    declared: Collection[str],
) -> tuple[list[Condition], list[Condition]]:
    """Those that have begun, and those that are over; of what is unknown, none is over."""
    now = {
        (ident, ailment.what, ailment.of)
        for ident, one in seen.items()
        for ailment in one.ailments
        if ailment.lasting
    }
    looked_at = {ident for ident, one in seen.items() if one.unknown is None}
    gone = {one for one in known if one[0] not in declared or one[0] in looked_at} - now
    return sorted(now - known.keys()), sorted(gone)


def _lives_on(seen: Mapping[str, Observation[Any]]) -> dict[str, str]:
    return {ident: one.lives_on for ident, one in seen.items() if one.lives_on is not None}


def _paused(pauses: Mapping[str, Pause]) -> dict[str, str]:
    from reconciler.core.messages import moment

    until = {i: f", until {moment(one.until)}" for i, one in pauses.items() if one.until}
    words = {i: f"{one.reason or 'no reason given'} (by {one.by})" for i, one in pauses.items()}
    return {ident: one + until.get(ident, "") for ident, one in words.items()}
