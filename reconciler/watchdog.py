"""What the loop keeps doing: take the spec as it is now, and one pass over the host.

It must not decide when; ``loop`` does. Nothing that goes wrong in a pass may end it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from reconciler.host.clock import Clock
from reconciler.host.command import on_waiting
from reconciler.host.supervisor import Supervisor
from reconciler.loop import Loop
from reconciler.model import Facts, HostError, Outcome, Spec
from reconciler.pulse import Heart
from reconciler.session import Session, in_words
from reconciler.spec.aside import Invalid
from reconciler.turns import turn
from reconciler.views.log import Log

_PATIENCE = 60.0
"""Seconds that a starting loop waits for a pass that is at work."""

Look = tuple[Facts, tuple[tuple[str, int, int, int] | str, ...]]


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
        self._seen = self._look()

    def reload(self, asked: bool) -> float:
        """Take a changed spec, or keep the last good one; seconds between two full passes."""
        look = self._look()
        if asked or look != self._seen:
            self._supervisor.reloading()
            self._seen = look
            try:
                self._take(self._session.load_aside())
            except Invalid as error:
                words = f"the changed spec is not valid, so the last good one is kept: {error.text}"
                self._log.event("invalid", words, "bad", errors=error.errors)
            except Exception as error:
                words = f"the changed spec cannot be read, so the last good one is kept: {error}"
                self._log.event("invalid", words, "bad", errors=[])
            self._supervisor.ready(f"keeps {self._spec.path}")
        return self._spec.loop_every

    def _take(self, spec: Spec) -> None:
        if spec.name != self._spec.name:
            raise HostError(
                f"its name has become {spec.name!r}; start another loop for it, and end this one"
            )
        if spec.resources != self._spec.resources or spec.loop_every != self._spec.loop_every:
            words = f"took the changed spec {spec.path}: {len(spec.resources)} resources"
            self._log.event("reloaded", words, "change", resources=len(spec.resources))
        self._spec = spec
        self._seen = self._look()

    def _look(self) -> Look:
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

    def full_pass(self, stopping: Callable[[], bool]) -> float | None:
        """One pass over everything; what goes wrong in it is told, and the next one is due.

        Seconds until something need not wait any longer.
        """
        due = None
        self._heart.begin(self._spec.loop_every)
        try:
            host = self._session.host(self._spec)
            spec, plan = self._session.plan(self._spec, host)
            self._log.remarks(plan)
            if plan.steps:
                self._session.act(plan, spec, host, self._told, stopping)
            due = self._session.learn(plan, spec, host)
            wrong = len(plan.unknown) + len(plan.held)
            words = f"{plan.resources} resources" + (f", {wrong} not as declared" if wrong else "")
            self._supervisor.status(words)
        except Exception as error:
            self._log.event("error", f"this pass came to no end: {in_words(error)}", "bad")
        self._heart.done(self._spec.loop_every)
        return due

    def _told(self, outcome: Outcome) -> None:
        self.moved()
        self._log.outcome(outcome)

    def moved(self) -> None:
        """A sign of life."""
        self._heart.beat(self._spec.loop_every)
        self._supervisor.alive(self._clock.monotonic())

    @property
    def longest_sleep(self) -> float:
        """Seconds after which the one who supervises us wants to hear of us."""
        return self._supervisor.longest_silence


def keep(session: Session, spec: Spec, told: Callable[[str], None]) -> None:
    """Keep the spec until a signal ends it. Raises turns.Taken, and HostError."""
    folder = session.folder(spec)
    supervisor = Supervisor()
    # A pass that starts this loop as a service holds the lock, and waits for this word.
    supervisor.ready("waits for a pass that is at work")
    with turn(folder, told, _PATIENCE):
        clock = Clock()
        heart = Heart(folder, clock)
        log = Log(session.terminal, session.options.json, session.options.quiet)
        watchdog = Watchdog(session, spec, heart, log, supervisor)
        on_waiting(watchdog.moved)
        words = f"{spec.name}: the loop begins, pid {os.getpid()}, {spec.path}"
        log.event("begin", words, pid=os.getpid(), resources=len(spec.resources))
        supervisor.ready(f"keeps {spec.path}")
        try:
            Loop(watchdog, clock).run()
        finally:
            supervisor.stopping()
            heart.stop()
        log.event("end", f"{spec.name}: the loop ends; what it manages goes on")
