"""What the loop keeps doing: take the spec as it is now, and a pass over the host.

It must not decide when; ``loop`` does. Nothing that goes wrong in a pass may end it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress

from reconciler import kinds
from reconciler.apply import proved
from reconciler.asking import aftermath, checks_of
from reconciler.fresh import Fresh, goal
from reconciler.host.clock import Clock
from reconciler.host.command import on_waiting
from reconciler.host.deaths import Deaths
from reconciler.host.inotify import FileWatch
from reconciler.host.processes import Identity
from reconciler.host.stops import Stops
from reconciler.host.supervisor import Supervisor
from reconciler.kept import Kept
from reconciler.loop import EVERYTHING, Loop, Part
from reconciler.model import HostError, Outcome, Plan, Report, Spec
from reconciler.observe import observe
from reconciler.pulse import Heart
from reconciler.session import Look, Session, in_words
from reconciler.state import Newer
from reconciler.turns import turn
from reconciler.views.log import Log
from reconciler.views.text import trusts

_PATIENCE = 60.0
"""Seconds that a starting loop waits for a pass that is at work."""

_NOTHING = Plan("", "", "", 0)


class Watchdog:
    """One spec, kept as it is declared."""

    def __init__(
        self, session: Session, spec: Spec, heart: Heart, log: Log, supervisor: Supervisor
    ) -> None:
        self._session = session
        self._supervisor = supervisor
        self._clock = Clock()
        self._heart = heart
        self._log = log
        self._deaths = Deaths(self._clock)
        self._files = FileWatch(self._clock, EVERYTHING)
        self._fresh = Fresh(self._clock)
        self._stops = session.stops = Stops(self._clock, EVERYTHING)
        self._wrong: set[str] = set()
        self._ended_well = True
        """Has the last pass come to its end? Who supervises us hears of us only then."""
        self._error = ""
        """Why it has not; told once, for it may be so for years."""
        self._part_errors: dict[str, str] = {}
        self._post = session.post(spec, self._posted)
        self._outcomes: list[Outcome] = []
        self._checks = checks_of(session, spec)
        self._reports = session.reports(self._post.woken, lambda words: self._posted(words, True))
        self._kept = Kept(
            session, spec, log, supervisor, self._clock, self._taken, self._files.watch
        )
        self.parts: tuple[Part, ...]
        self.parts = (
            self._deaths, self._files, self._fresh, self._checks, self._stops, self._reports,
            self._post,
        )  # fmt: skip
        """What goes on beside the passes."""

    @property
    def _spec(self) -> Spec:
        return self._kept.spec

    def _taken(self, spec: Spec) -> None:
        """It is this spec from now on."""
        self._post.adopt(spec.notify)
        self._checks.take(spec.resources)
        self._reports.take(spec)

    def full_pass(self, stopping: Callable[[], bool], reread: bool) -> float:
        """One pass over everything; what goes wrong in it is told. Seconds until the next one.

        It is held back while somebody changes the spec, for a few seconds at most.
        """
        self._heart.beat(self._spec.loop_every)
        wait = self._kept.reload(reread)
        if wait.held:
            return wait.seconds
        self._heart.begin(self._spec.loop_every)
        sooner = self._pass((), stopping)
        self._heart.done(self._spec.loop_every)
        every = self._spec.loop_every
        soon = wait.seconds or every
        return min(every, soon, every if sooner is None else sooner)

    def partial_pass(self, ids: Collection[str], stopping: Callable[[], bool]) -> float | None:
        """One pass over what some event concerns, and what that needs."""
        declared = {resource.id for resource in self._spec.resources}
        known = sorted(declared.intersection(ids))
        return self._pass(known, stopping) if known else None

    def _pass(self, only: Collection[str], stopping: Callable[[], bool]) -> float | None:
        """Seconds until something need not wait any longer."""
        try:
            self._session.recover(self._spec)
            host = self._session.host(self._spec)
            self._prove(only)
            look = self._session.look(self._spec, host, tuple(only))
            self._log.remarks(look.plan, look.seen)
            report = Report(look.plan)
            if look.plan.steps:
                report = self._session.act(look, host, self._told, stopping, settle=False)
                self._fresh.add(report.outcomes, look.spec)
            self._watch(look)
            if not look.only:
                self._reports.passed(look.spec, look.seen)
            self._checks.passed(look.seen, *aftermath(report))
            self._status(look.plan, look.seen)
            if not self._ended_well:
                words = "passes come to their end again"
                self._log.event("well", words, "good")
                self._session.report(words)
            self._ended_well, self._error = True, ""
            due = self._session.learn(look, host)
            outcomes, self._outcomes = self._outcomes, []
            self._session.tell(look, outcomes)
            self._post.woken()
            return due
        except Newer:
            raise
        except Exception as error:
            words = f"this pass came to no end: {in_words(error)}"
            if words != self._error:
                self._error = words
                self._log.event("error", words, "bad")
            if self._ended_well:
                self._ended_well = False
                self._session.report(words)
                with suppress(Exception):
                    self._session.tell(Look(self._spec, _NOTHING, {}, ("-",)), ())
                    self._post.woken()
            return None

    def part_failed(self, part: Part, error: Exception) -> None:
        """The passes go on without it; told once, for it may be so for years."""
        name, words = type(part).__name__.lower(), in_words(error)
        if self._part_errors.get(name) != words:
            self._part_errors[name] = words
            words = f"a part of the loop ({name}) failed, and is tried again: {words}"
            self._log.event("error", words, "bad")
            self._session.report(words)

    def _prove(self, only: Collection[str]) -> None:
        """What was started a moment ago, and is looked at now: has it held?"""
        due = self._fresh.looked_at(only)
        if not due:
            return
        memory = self._session.memory(self._spec, True)
        by_id = {resource.id: resource for resource in self._spec.resources}
        host = self._session.host(self._spec)
        paused = memory.past().paused
        for outcome, started in due:
            resource = by_id.get(outcome.step.id)
            # What is wanted by now may be something else than what was started, and what is
            # paused may have been ended by the one who wants it left alone.
            same = resource is not None and goal(resource) == started
            same = same and outcome.step.id not in paused
            now = proved(outcome, resource, kinds.get, host) if resource and same else outcome
            if now.result == "failed":
                memory.ended(now)
                self._told(now)
            self._fresh.proved(now)
        memory.flush()

    def _watch(self, look: Look) -> None:
        """Have the end of every process that was seen, or started just now, wake the loop."""
        host = self._session.host(look.spec)
        by_id = {resource.id: resource for resource in look.spec.resources}
        moved = [by_id[step.id] for step in look.plan.steps]
        seen = {**look.seen, **observe(moved, kinds.get, host)}
        wanted: dict[str, list[Identity]] = {}
        paced = set()
        for ident, one in seen.items():
            resource = by_id[ident]
            kind = kinds.get(resource.kind)
            if kind.policy(resource.want) is not None:
                paced.add(ident)
            wanted[ident] = []
            if one.unknown is None and resource.present:
                try:
                    wanted[ident] = list(kind.watch(resource, one.state, host))
                except HostError:
                    continue  # The next full pass sees it.
        self._deaths.watch(wanted, paced)
        if not look.only:
            self._deaths.only(seen)

    def _status(self, plan: Plan, seen: Collection[str]) -> None:
        wrong = {remark.id for remark in (*plan.unknown, *plan.held, *plan.failing)}
        self._wrong = (self._wrong - set(seen)) | wrong
        number = len(self._spec.resources)
        words = f"{number} resources" + (
            f", {len(self._wrong)} not as declared" if self._wrong else ""
        )
        self._supervisor.status(words)

    def _told(self, outcome: Outcome) -> None:
        self.moved()
        self._outcomes.append(outcome)
        self._log.outcome(outcome)

    def _posted(self, words: str, bad: bool) -> None:
        self._log.event("notify", words, "bad" if bad else "quiet")

    def moved(self) -> None:
        """A sign of life."""
        self._heart.beat(self._spec.loop_every)
        if self._ended_well:
            self._supervisor.alive(self._clock.monotonic())

    @property
    def longest_sleep(self) -> float:
        """Seconds after which the one who supervises us wants to hear of us."""
        return self._supervisor.longest_silence


def keep(session: Session, spec: Spec, told: Callable[[str], None]) -> None:
    """Keep the spec until a signal ends it.

    Raises turns.Taken, HostError, and state.Newer when a newer version of the program has used
    the store meanwhile.
    """
    folder = session.folder(spec)
    supervisor = Supervisor()
    # A pass that starts this loop as a service holds the lock, and waits for this word.
    supervisor.ready("waits for a pass that is at work")

    def taken_over(words: str) -> None:
        told(words)
        session.report(words)

    with turn(folder, taken_over, _PATIENCE):
        clock = Clock()
        heart = Heart(folder, clock)
        log = Log(session.terminal, session.options.json, session.options.quiet)
        watchdog = Watchdog(session, spec, heart, log, supervisor)
        on_waiting(watchdog.moved)
        words = f"{spec.name}: the loop begins, pid {os.getpid()}, {spec.path}"
        words += trusts(session.options.trust)
        log.event("begin", words, pid=os.getpid(), resources=len(spec.resources))
        supervisor.ready(f"keeps {spec.path}")
        ends = True
        try:
            Loop(watchdog, clock, watchdog.parts).run()
        except Newer as newer:
            ends = False  # The supervisor's process goes on, as another program.
            log.event("newer", f"{newer}; the program that is installed now takes over", "bad")
            raise
        finally:
            if ends:
                supervisor.stopping()
            heart.stop()
        log.event("end", f"{spec.name}: the loop ends; what it manages goes on")
