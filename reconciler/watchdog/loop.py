"""What the loop keeps doing: take the spec as it is now, and have passes made over the host.

It must not look at the host or act by itself, nor wait: the children that make the passes do.
Nothing that goes wrong in a pass may end it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.text import error_in_words
from reconciler.core.model import Outcome, Plan, Resource, Spec
from reconciler.core.observe import Snapshot
from reconciler.core.readiness import Readiness, waiting
from reconciler.host.exit_watcher import ExitWatcher
from reconciler.host.inotify import FileWatch
from reconciler.host.program import Installed
from reconciler.host.stops import Stops
from reconciler.host.supervisor import Supervisor
from reconciler.notify.alive import Pings
from reconciler.output.log import Log
from reconciler.state.folder import Newer
from reconciler.state.heartbeat import HeartbeatWriter
from reconciler.watchdog.backlog import PATIENCE, Backlog, depending
from reconciler.watchdog.events import EVERYTHING, Part
from reconciler.watchdog.glance import is_as_declared
from reconciler.watchdog.pass_work import Passed, PassWork, supervised
from reconciler.watchdog.passes import Pass, Passes, Teller
from reconciler.watchdog.preload import preload
from reconciler.watchdog.probing import checks_of
from reconciler.watchdog.reload import SpecReload
from reconciler.watchdog.requests import PassRequests
from reconciler.watchdog.settling import Settling
from reconciler.watchdog.troubles import LoopTroubles

if TYPE_CHECKING:
    from reconciler.cli.context import Context

_SHORTEST = 0.05
"""Seconds between two full passes that nobody has asked for."""
_MOST_PATIENT = 1.0
"""Seconds for which at most a full pass is left to look as long as the last one did."""

_NOTHING = Plan("", "", "", 0)


class Watchdog:
    """One spec, kept as it is declared."""

    def __init__(
        self, context: Context, spec: Spec, heart: HeartbeatWriter, log: Log, supervisor: Supervisor
    ) -> None:
        self._context = context
        self._supervisor = supervisor
        self.longest_sleep = supervisor.longest_silence
        """Seconds after which the one who supervises us wants to hear of us."""
        self._clock = context.clock
        self._heart = heart
        self._log = log
        self._troubles = troubles = LoopTroubles(log, context.report)
        self._deaths = ExitWatcher(self._clock, troubles.is_short)
        self._files = FileWatch(self._clock, EVERYTHING)
        self._fresh = Settling(self._clock)
        self._stops = Stops(self._clock, EVERYTHING, context.folder(spec))
        self._stops.go_on()
        self._passes = Passes(self._clock, self._made, self._heard, self._over, self._stops.going)
        self._backlog = Backlog(
            self._clock, self._passes, self._begin, lambda: self._full is not None
        )
        self._full: Pass | None = None
        self._due = self._clock.monotonic()
        self._newer: Newer | None = None
        self._acted: dict[str, tuple[float, Pass]] = {}
        """When a step about each resource has ended last, and of which pass."""
        self._sooner = 0.0
        """Seconds after which the spec wants to be looked at again, as of the full pass."""
        self._waits: float | None = None
        """Since when a full pass waits for another one to end."""
        self._loaded = False
        """Is all imported that acting needs?"""
        self._reread = False
        """Is the spec to be read anew, whether it looks changed or not?"""
        self._looking = 0.0
        """Seconds that the last full pass has looked at everything."""
        self._wrong: set[str] = set()
        self._untold: list[Outcome] = []
        """What people are to be told of, and no pass has yet."""
        self._telling: dict[Pass, tuple[list[Outcome], list[str]]] = {}
        """What each pass tells people when it ends: outcomes, and words about the program."""
        self._checks = checks_of(context, spec)
        self._readiness = Readiness(self._clock, kinds.get, lambda: context.host(self.spec))
        self._waiting: Mapping[str, Collection[str]] = {}
        """What waits for each check, and for each process that must be ready, by id."""
        posted = partial(troubles.event, "notify")
        self._post = context.post(spec, posted)
        self._reports = context.reports(self._post.woken, partial(posted, bad=True))
        self._alive = Pings(self._clock, posted)
        self._by_id: dict[str, Resource[Any]] = {}
        self._kept = SpecReload(
            context, spec, log, supervisor, self._clock, self._taken, self._files.watch
        )
        self._installed = Installed(self._clock, partial(troubles.event, "program"))
        self._requests = PassRequests(context.folder(spec), self._keeps)
        self.parts: tuple[Part, ...]
        self.parts = (
            self._passes, self._backlog, self._kept, self._deaths, self._files, self._fresh,
            self._checks, self._readiness, self._stops, self._reports, self._post, self._alive,
            self._installed, self._requests,
        )  # fmt: skip
        """What goes on beside one another."""

    def _taken(self, spec: Spec) -> None:
        """It is this spec from now on."""
        self._by_id = {resource.id: resource for resource in spec.resources}
        self._backlog.take(self._by_id)
        self._post.adopt(spec.notify)
        self._checks.take(spec.resources)
        self._readiness.only(self._by_id)
        self._waiting = waiting(spec.resources, kinds.get)
        self._reports.take(spec)
        self._alive.take(spec.notify)

    # -- what the loop asks for

    def left(self) -> float | None:
        """Seconds until the next full pass; None: one is under way.

        Raises state.Newer once a pass has met a store of a newer version, Replaced once another
        program is installed, and HostError where none is for long.
        """
        if self._newer is not None:
            raise self._newer
        if self._installed.over is not None and self._passes.idle:
            raise self._installed.over
        if self._full is not None:
            return None
        now = self._clock.monotonic()
        if self._waits is not None and not self._passes.idle:
            return max(0.0, self._waits + PATIENCE - now)
        return self._due - now

    def full_pass(self, reread: bool) -> None:
        """Begin a pass over everything.

        It is held back while somebody changes the spec, for a few seconds at most.
        """
        now = self._clock.monotonic()
        self._waits = now if self._waits is None else self._waits
        if not self._passes.idle and now - self._waits < PATIENCE:
            self._due, self._reread = now, self._reread or reread
            return
        self._waits = None
        self._heart.beat(self.spec.loop_every)
        wait = self._kept.reload(reread or self._reread)
        self._reread = False
        if wait.held:
            self._due = now + max(wait.seconds, _SHORTEST)
            return
        self._kept.remind()
        self._installed.look()
        self._heart.begin(self.spec.loop_every)
        self._sooner = wait.seconds
        if self._rests() and is_as_declared(self._context, self.spec, self._deaths.are_watched):
            self._due = now + max(self.spec.loop_every, _SHORTEST)
            self._reports.passed(self.spec)
            self._alive.passed(True)
            self._heart.done(self.spec.loop_every, self._clock.monotonic() - now)
            return
        self._full = self._begin(())
        if self._full is not None:
            self._requests.begun(self._full)
        self._backlog.plan(self.spec.resources, min(2 * self._looking, _MOST_PATIENT))

    def _rests(self) -> bool:
        """Did all go well, and is nothing under way or wanted?"""
        busy = self._fresh.looked_at(()) or self._stops.going() or self._requests.waiting
        return (
            self._loaded and self._troubles.ended_well and self._passes.idle
            and not (self._wrong or self._untold or self._sooner or busy)
        )  # fmt: skip

    def partial_pass(self, ids: Collection[str]) -> None:
        """Begin a pass over what some event concerns, and what that needs."""
        behind = (one for ident in ids for one in self._waiting.get(ident, ()))
        self._backlog.add(self._by_id.keys() & {*ids, *behind})

    def _begin(self, only: Collection[str]) -> Pass | None:
        try:
            begun = self._passes.begin(only)
        except OSError:
            # No process can be had just now.
            self._backlog.put_back(only)
            if not only:
                self._due = self._clock.monotonic() + 1.0
            return None
        # The child has them too, and tells them; these are for when it cannot.
        self._telling[begun] = self._untold, self._context.handed_over()
        self._untold = []
        return begun

    # -- a pass

    def _made(self, teller: Teller, only: Sequence[str], stopping: Callable[[], bool]) -> Passed:
        """What its child does."""
        work = PassWork(
            self._context,
            self.spec,
            teller,
            self._fresh,
            self._untold,
            self._stops.going(),
            self._deaths.last,
        )
        try:
            return work.make(only, stopping)
        except Newer as error:
            teller.tell("newer", error.path, error.why)
            raise

    def _heard(self, one: Pass, what: str, values: Sequence[Any]) -> Any:
        handlers: Mapping[str, Callable[..., Any]] = {
            "looked": partial(self._looked, one),
            "lines": self._context.terminal.write,
            "outcome": self._told,
            "moved": partial(self._moved, one),
            "proved": self._fresh.proved,
            "watch": self._deaths.watch,
            "pending": self._pending,
            "ended": self._deaths.call,
            "newer": self._met,
            "stop": self._stops.make,
        }
        self.moved()
        if what == "outcome":
            outcome: Outcome = values[0]
            if outcome.result == "dropped" and outcome.step.id in self._overtook(one):
                return None  # Another pass was faster.
            self._acted[outcome.step.id] = self._clock.monotonic(), one
            self._telling[one][0].append(outcome)
            self._requests.did(one, outcome)
        try:
            return handlers[what](*values)
        except HostError:
            raise
        except Exception as error:
            self.part_failed(self._passes, error)
            return None

    def _overtook(self, one: Pass) -> set[str]:
        """What other passes have acted on since that one began."""
        return {
            ident
            for ident, (at, other) in self._acted.items()
            if other is not one and at > one.begun
        }

    def _moved(self, one: Pass, failed: Collection[str]) -> frozenset[str]:
        """What that pass has seen in the midst of a step of another, and of what has ``failed``
        what another has told of already, or what had held before it ended."""
        moved = self._passes.at_of_others(one) | self._overtook(one)
        self._fresh.held(self._deaths.called)
        return frozenset(moved | self._fresh.told(set(failed) - moved))

    def _pending(self, states: Mapping[str, Any]) -> None:
        known = [(self._by_id[one], have) for one, have in states.items() if one in self._by_id]
        self._readiness.take(known)
        for resource, have in known:
            if have is not None and not self._readiness.asks(resource.id):
                self._fresh.ready(resource.id)

    def _met(self, path: str, why: str) -> None:
        self._newer = Newer(path, why)

    def _looked(
        self, one: Pass, plan: Plan, seen: frozenset[str], steps: Sequence[str]
    ) -> frozenset[str]:
        """What a pass has seen, and would do. Gives what it is to leave to others."""
        others = self._passes.of_others(one)
        others |= self._overtook(one)
        waits = others or any(map(self._readiness.asks, self._by_id))
        self._requests.looked(one, plan, steps, not waits)
        # What others are at was seen in the midst of it: nothing may be built on that.
        behind = depending(others, steps, self._by_id)
        self._backlog.behind(behind)
        others |= behind.keys()
        plan, seen = plan.without(others), seen - others
        self._log.remarks(plan, seen)
        wrong = {remark.id for remark in (*plan.unknown, *plan.held, *plan.failing)}
        self._wrong = (self._wrong - set(seen)) | wrong
        number = len(self.spec.resources)
        words = f"{number} resources" + (
            f", {len(self._wrong)} not as declared" if self._wrong else ""
        )
        self._supervisor.status(words)
        if not one.only:
            self._looking = self._clock.monotonic() - one.begun
            planned = self._by_id.keys() & set(steps) - others
            self._backlog.plan(self._by_id[ident] for ident in planned)
        return frozenset(others)

    def _told(self, outcome: Outcome) -> None:
        self._backlog.acted(outcome.step.id)
        resource = self._by_id.get(outcome.step.id)
        if resource is not None:
            self._fresh.add(outcome, resource)
            if outcome.result == "failed" and supervised((resource,)):
                # Its next attempt may be due before the pass comes to its end.
                self._backlog.again_in(0.0)
        self._log.outcome(outcome)

    def _over(self, one: Pass) -> None:
        """A pass has come to its end."""
        outcomes, reports = self._telling.pop(one)
        self._requests.over(one)
        passed: Passed | None = one.result
        if passed is None:
            self._untold += outcomes
            self._context.reports_untold(reports)
            if self._passes.ending:
                where = f" at {', '.join(sorted(one.at))}" if one.at else ""
                words = f"the pass in hand is ended{where}; the next one goes on from there"
                self._log.event("interrupted", words, "change")
            elif one.hung:
                # What is mounted there is unknown to the next one, which is begun at once.
                if one is self._full:
                    self._full = None
                    self._backlog.plan(())
                    self._due = self._clock.monotonic()
                else:
                    self.partial_pass(one.only)
                return
            else:
                self._alive.passed(False)
                if self._troubles.pass_failed(one.error or ""):
                    with suppress(Exception):
                        self._context.tell(Snapshot(self.spec, _NOTHING, {}, ("-",)), ())
                        self._post.woken()
        else:
            self._well(one, passed)
        if one is self._full:
            self._full = None
            self._backlog.plan(())
            every = self.spec.loop_every
            sooner = passed.due if passed is not None else None
            seconds = min(each for each in (every, self._sooner, sooner) if each)
            self._due = one.begun + max(seconds, _SHORTEST)
            if not self._loaded:
                self._loaded = True
                with suppress(ImportError, OSError):  # It is gone, which is told.
                    preload(self.spec.metrics is not None)
            self._heart.done(every, self._clock.monotonic() - one.begun)
        elif passed is not None and passed.due is not None:
            now = self._clock.monotonic()
            self._due = min(self._due, now + max(passed.due, _SHORTEST))
            self._backlog.again_in(passed.due)

    def _well(self, one: Pass, passed: Passed) -> None:
        self._context.learn_from(passed.learned)
        if not one.only:
            self._deaths.only(passed.seen | self._by_id.keys())
            self._reports.passed(self.spec)
            self._alive.passed(True)
        self._checks.passed(passed.seen, passed.broken, passed.started)
        self._troubles.pass_ended()
        self._post.woken()

    def part_failed(self, part: Part, error: Exception) -> None:
        """The passes go on without it."""
        self._troubles.part_failed(type(part).__name__.lower(), error_in_words(error))

    def _keeps(self, digest: str) -> bool:
        """May a pass over that compiled spec begin now? One that is under way may take long."""
        return self._full is None and self._kept.keeps(digest)

    def moved(self) -> None:
        """A sign of life."""
        self._context.terminal.flush()
        self._heart.beat(self.spec.loop_every)
        if self._troubles.ended_well:
            self._supervisor.alive(self._clock.monotonic())

    @property
    def spec(self) -> Spec:
        """What it keeps now."""
        return self._kept.spec
