"""What the loop keeps doing: take the spec as it is now, and a pass over the host.

It must not decide when; ``loop`` does. Nothing that goes wrong in a pass may end it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from reconciler import kinds
from reconciler.apply import proved
from reconciler.asking import aftermath, checks_of
from reconciler.host.clock import Clock
from reconciler.host.command import on_waiting
from reconciler.host.deaths import Deaths
from reconciler.host.inotify import FileWatch
from reconciler.host.processes import Identity
from reconciler.host.stops import Stops
from reconciler.host.supervisor import Supervisor
from reconciler.loop import EVERYTHING, Loop, Part
from reconciler.model import Facts, HostError, Outcome, Plan, Report, Resource, Spec
from reconciler.observe import observe
from reconciler.pulse import Heart
from reconciler.session import Look, Session, in_words
from reconciler.spec.aside import Invalid
from reconciler.turns import turn
from reconciler.views.log import Log

_PATIENCE = 60.0
"""Seconds that a starting loop waits for a pass that is at work."""

_NOTHING = Plan("", "", "", 0)

Seen = tuple[Facts, tuple[tuple[str, int, int, int] | str, ...]]


class Watchdog:
    """One spec, kept as it is declared."""

    def __init__(
        self, session: Session, spec: Spec, heart: Heart, log: Log, supervisor: Supervisor
    ) -> None:
        self._session = session
        self._supervisor = supervisor
        self._clock = Clock()
        self._spec = spec
        self._heart = heart
        self._log = log
        self._seen = self._sources()
        self._deaths = Deaths(self._clock)
        self._files = FileWatch(self._clock, EVERYTHING)
        self._files.watch(spec.files)
        self._fresh = _Fresh(self._clock)
        self._stops = session.stops = Stops(self._clock, EVERYTHING)
        self._wrong: set[str] = set()
        self._ended_well = True
        """Has the last pass come to its end? Who supervises us hears of us only then."""
        self._post = session.post(spec, self._posted)
        self._outcomes: list[Outcome] = []
        self._valid = True
        self._checks = checks_of(session, spec)
        self._asked: Spec | None = None
        self.parts: tuple[Part, ...]
        self.parts = (self._deaths, self._files, self._fresh, self._checks, self._stops, self._post)
        """What goes on beside the passes."""

    # -- the spec

    def _reload(self, asked: bool) -> None:
        """Take a changed spec, or keep the last good one."""
        sources = self._sources()
        if not asked and sources == self._seen:
            return
        self._supervisor.reloading()
        self._seen = sources
        try:
            self._take(self._session.load_aside())
        except Invalid as error:
            words = f"the changed spec is not valid, so the last good one is kept: {error.text}"
            self._invalid(words, error.errors)
        except Exception as error:
            words = f"the changed spec cannot be read, so the last good one is kept: {error}"
            self._invalid(words, [])
        else:
            if not self._valid:
                self._session.report(f"the spec {self._spec.path} is valid again, and was taken")
            self._valid = True
        self._supervisor.ready(f"keeps {self._spec.path}")

    def _invalid(self, words: str, errors: list[dict[str, Any]]) -> None:
        self._log.event("invalid", words, "bad", errors=errors)
        if self._valid:
            self._session.report(words)
        self._valid = False

    def _take(self, spec: Spec) -> None:
        if spec.name != self._spec.name:
            raise HostError(
                f"its name has become {spec.name!r}; start another loop for it, and end this one"
            )
        if spec.resources != self._spec.resources or spec.loop_every != self._spec.loop_every:
            words = f"took the changed spec {spec.path}: {len(spec.resources)} resources"
            self._log.event("reloaded", words, "change", resources=len(spec.resources))
        self._spec = spec
        self._post.adopt(spec.notify)
        self._files.watch(spec.files)
        self._seen = self._sources()

    def _sources(self) -> Seen:
        """What the spec was made from, as far as a change of it can be seen without reading."""
        found: list[tuple[str, int, int, int] | str] = []
        for path in self._spec.files:
            try:
                status = os.stat(path)
            except OSError as error:
                found.append(f"{path}: {error.strerror}")
            else:
                # Not only the time of change: an editor may keep that, and a clock may jump.
                found.append((path, status.st_ino, status.st_mtime_ns, status.st_size))
        return self._session.facts(), tuple(found)

    # -- passes

    def full_pass(self, stopping: Callable[[], bool], reread: bool) -> float:
        """One pass over everything; what goes wrong in it is told, and the next one is due."""
        self._heart.begin(self._spec.loop_every)
        self._reload(reread)
        sooner = self._pass((), stopping)
        self._heart.done(self._spec.loop_every)
        every = self._spec.loop_every
        return every if sooner is None else min(every, sooner)

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
            self._ask(look, report)
            self._status(look.plan, look.seen)
            if not self._ended_well:
                self._session.report("passes come to their end again")
            self._ended_well = True
            due = self._session.learn(look, host)
            outcomes, self._outcomes = self._outcomes, []
            self._session.tell(look, outcomes)
            self._post.woken()
            return due
        except Exception as error:
            words = f"this pass came to no end: {in_words(error)}"
            self._log.event("error", words, "bad")
            if self._ended_well:
                self._ended_well = False
                self._session.report(words)
                with suppress(Exception):
                    self._session.tell(Look(self._spec, _NOTHING, {}, ("-",)), ())
                    self._post.woken()
            return None

    def _prove(self, only: Collection[str]) -> None:
        """What was started a moment ago, and is looked at now: has it held?"""
        due = self._fresh.looked_at(only)
        if not due:
            return
        memory = self._session.memory(self._spec, True)
        by_id = {resource.id: resource for resource in self._spec.resources}
        host = self._session.host(self._spec)
        for outcome, started in due:
            resource = by_id.get(outcome.step.id)
            # What is wanted by now may be something else than what was started.
            same = resource is not None and _goal(resource) == started
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

    def _ask(self, look: Look, report: Report) -> None:
        """What is to be probed from now on, beside the passes."""
        if self._asked is not self._spec:
            self._checks.take(self._spec.resources)
            self._asked = self._spec
        self._checks.passed(look.seen, *aftermath(report))

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


_Goal = tuple[bool, str]


def _goal(resource: Resource[Any]) -> _Goal:
    return resource.present, kinds.get(resource.kind).version(resource.want)


class _Fresh:
    """What was started a moment ago, and must hold for a while: a part of the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, Outcome, _Goal]] = {}

    def add(self, outcomes: Collection[Outcome], spec: Spec) -> None:
        """Those of them that have to prove themselves."""
        now = self._clock.monotonic()
        by_id = {resource.id: resource for resource in spec.resources}
        for outcome in outcomes:
            resource = by_id[outcome.step.id]
            settle = kinds.get(resource.kind).settle
            self._until.pop(resource.id, None)
            if outcome.result == "done" and settle:
                self._until[resource.id] = (now + settle, outcome, _goal(resource))

    def looked_at(self, ids: Collection[str]) -> list[tuple[Outcome, _Goal]]:
        """Those that a pass over these ids, or all, looks at, and those that had their time."""
        now = self._clock.monotonic()
        return [
            (outcome, goal)
            for ident, (at, outcome, goal) in self._until.items()
            if at <= now or not ids or ident in ids
        ]

    def proved(self, outcome: Outcome) -> None:
        """It has failed, or has held so far."""
        at, _, _ = self._until[outcome.step.id]
        if outcome.result == "failed" or at <= self._clock.monotonic():
            del self._until[outcome.step.id]

    def descriptors(self) -> Collection[int]:
        return ()

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """What has had its time."""
        now = self._clock.monotonic()
        return [ident for ident, (at, _, _) in self._until.items() if at <= now]

    def due(self) -> float | None:
        """Seconds until the first has had its time."""
        if not self._until:
            return None
        return max(0.0, min(at for at, _, _ in self._until.values()) - self._clock.monotonic())

    def close(self) -> None:
        self._until.clear()


def keep(session: Session, spec: Spec, told: Callable[[str], None]) -> None:
    """Keep the spec until a signal ends it. Raises turns.Taken, and HostError."""
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
        log.event("begin", words, pid=os.getpid(), resources=len(spec.resources))
        supervisor.ready(f"keeps {spec.path}")
        try:
            Loop(watchdog, clock, watchdog.parts).run()
        finally:
            supervisor.stopping()
            heart.stop()
        log.event("end", f"{spec.name}: the loop ends; what it manages goes on")
