"""Who repairs: this process, with the lock, or the healthy watchdog that holds it.

It must not act beside a healthy watchdog, but for ending what that cannot see is stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.values import ProbeHistory
from reconciler.core.kind import Probed, Supervised, run_one
from reconciler.core.model import Outcome, Spec, Step
from reconciler.core.observe import Snapshot
from reconciler.host.clock import Clock
from reconciler.state.folder import LockHeld, turn
from reconciler.state.heartbeat import ask, end, pulse

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.host import Host
    from reconciler.state.store import Store

_PATIENCE = 60.0
"""Seconds that a pass of somebody else, or one of the loop, is waited for."""
_GLANCE, _IN_HAND = 0.1, 5.0
"""Seconds between two looks, and more in all, for what we have ended: the pass that was asked for
leaves it to another one of the loop that has begun to start it."""
_STILL_WRONG = "still wrong after a pass of the watchdog"

Acted = Callable[[Outcome, bool], None]
"""Hears of every step that came to its end, and whether the loop did it."""


@contextmanager
def actor(
    context: Context, spec: Spec, ended: Callable[[str], None], acted: Acted
) -> Iterator[Actor]:
    """Whoever may act now. Raises Taken when that is a pass that does not come to its end.

    A loop that hangs, or is stopped by a signal, is ended first, which is told ``ended``.
    """
    folder = context.folder(spec)
    _end_stopped(folder, ended)
    with ExitStack() as held:
        found: Actor
        try:
            held.enter_context(turn(folder, ended, _PATIENCE))
            context.recover(spec)
            found = DirectActor(context, spec, acted)
        except LockHeld as taken:
            if taken.loop is None:
                raise
            found = WatchdogActor(context, spec, acted)
        yield found


def _end_stopped(folder: str, ended: Callable[[str], None]) -> None:
    """A loop that was stopped by a signal looks well for some time, and never will be."""
    clock = Clock()
    loop = pulse(folder, clock)
    if loop is not None and loop.stopped:
        ended(f"the watchdog (pid {loop.identity.pid}) is stopped by a signal; ending it")
        end(loop, clock)


class Actor(ABC):
    """What both can do. ``spec`` has what it left on the host and no more declares."""

    def __init__(self, context: Context, spec: Spec, acted: Acted) -> None:
        self.context = context
        self._acted = acted
        self._believed: set[str] = set()
        self.whole = self._look(spec, ())
        self.spec = self.whole.spec

    def _host(self, spec: Spec) -> Host:
        host = self.context.host(spec)
        host.restless = True
        return host

    def _look(self, spec: Spec, ids: Sequence[str]) -> Snapshot:
        return self.context.look(spec, self._host(spec), ids)

    def look_again(self) -> None:
        """Whose retry counter was reset is to be started now."""
        self.whole = self._look(self.spec, ())

    def _store(self) -> Store:
        return self.context.store(self.spec, False)

    @abstractmethod
    def put_right(self, ids: Sequence[str], outcomes: list[Outcome]) -> None:
        """Repair these, and what they need; what became of each step comes to ``outcomes``."""

    @abstractmethod
    def repair_store(self, damaged: bool) -> str | None:
        """Set a damaged store aside; where it is now, and why."""

    def believe(self, failing: Mapping[str, str]) -> None:
        """These checks have just failed, by id and why: what they ask for is to be done once."""
        clock = Clock()
        wall = clock.wall()
        for resource in self.spec.resources:
            kind = kinds.get(resource.kind)
            if resource.id in failing and isinstance(kind, Probed):
                rhythm = kind.rhythm(resource.want)
                self.context.said[resource.id] = ProbeHistory(
                    kind.version(resource.want), "failing", rhythm.failures, 0,
                    failing[resource.id], wall, wall, 0.0,
                )  # fmt: skip
                self._believed.add(resource.id)

    def _doubt(self) -> None:
        """What was believed has been acted upon; whether it has helped is asked anew."""
        for ident in self._believed:
            self.context.said.pop(ident, None)
        self._believed.clear()

    def reset(self) -> dict[str, int]:
        """Forget how many starts have failed, and what checks have failed in a row.

        Those that were tried, by id, and how often.
        """
        store = self._store()
        tried = {i: one.count for i, one in store.attempts.all().items()}
        for ident in tried:
            store.attempts.reset(ident)
        failing = [i for i, one in store.checks.all().items() if one.result != "ok"]
        if failing:
            store.checks.forget(failing)
        for ident in failing:
            self.context.said.pop(ident, None)
        return {ident: count for ident, count in tried.items() if count}

    def pauses(self) -> dict[str, dict[str, Any]]:
        """What a person has paused, and the command that resumes it."""
        from reconciler.diagnose import command_line
        from reconciler.output.status import pause_document

        def resume(ident: str) -> str:
            return command_line(self.context, self.spec.path, "--resume", ident)

        return {
            ident: {**pause_document(one), "resume": resume(ident)}
            for ident, one in self._store().pauses.all().items()
        }

    @abstractmethod
    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Have people told of what has become of things, as behind any pass."""


class DirectActor(Actor):
    """We have the lock."""

    def _store(self) -> Store:
        return self.context.store(self.spec, True)

    def put_right(self, ids: Sequence[str], outcomes: list[Outcome]) -> None:
        host = self._host(self.spec)
        look = self.context.look(self.spec, host, ids) if ids else None
        if look is None or not look.plan.steps:
            return

        def told(outcome: Outcome) -> None:
            self._acted(outcome, False)

        outcomes += self.context.act(look, host, told).outcomes
        self._doubt()

    def repair_store(self, damaged: bool) -> str | None:
        store = self._store()
        store.base.set_aside_damaged()
        return store.base.damaged

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        host = self._host(self.spec)
        look = self.context.look(self.spec, host, ())
        self.context.learn(look, host)
        self.context.tell(look, outcomes)


class WatchdogActor(Actor):
    """A loop that is well has it: it is asked."""

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """The loop does, behind each of its passes."""

    def put_right(self, ids: Sequence[str], outcomes: list[Outcome]) -> None:
        wanted = set(ids)
        # What is wrong at the first look may be fixed by the loop before it is its turn here.
        steps = [step for step in self.whole.plan.steps if step.id in wanted]
        # What a check has run when it fails is for the loop, which asks it by itself.
        steps = [step for step in steps if step.id not in self._believed]
        if not steps:
            return
        began = Clock().monotonic()
        trouble: dict[str, str] = {}
        ended: set[str] = set()
        for step in steps:
            try:
                if self._end_what_the_loop_takes_for_well(step):
                    ended.add(step.id)
            except HostError as error:
                trouble[step.id] = str(error)
        self._doubt()
        answered = self._ask()
        left = self._left(ids)
        last = Clock().monotonic() + _IN_HAND
        while answered and ended & left.keys() and Clock().monotonic() < last:
            Clock().sleep(_GLANCE)
            left = self._left(ids)
        why = _STILL_WRONG if answered else f"the watchdog made no pass within {_PATIENCE:g} s"
        seconds = Clock().monotonic() - began
        for step in steps:
            wrong = trouble.get(step.id)
            if wrong is None and step.id in left:
                wrong = f"{why}: {left[step.id]}"
            outcome = Outcome(step, "done" if wrong is None else "failed", wrong, seconds)
            outcomes.append(outcome)
            self._acted(outcome, True)

    def _left(self, ids: Sequence[str]) -> dict[str, str]:
        """What would be done now, and why."""
        return {step.id: step.why for step in self._look(self.spec, ids).plan.steps}

    def _ask(self) -> bool:
        folder, clock = self.context.folder(self.spec), Clock()
        loop = pulse(folder, clock)
        return loop is not None and ask(loop, folder, clock, _PATIENCE)

    def _end_what_the_loop_takes_for_well(self, step: Step) -> bool:
        """The loop restarts what has ended, not what is stopped or does not answer us.

        Has something been ended?
        """
        seen = self.whole.seen.get(step.id)
        if seen is None or seen.state is None:
            return False
        of = {one.of for one in seen.ailments if one.what == "stopped"}
        if not of and not self._believed.intersection(step.demanded):
            return False
        resource = next(one for one in self.spec.resources if one.id == step.id)
        host = self._host(self.spec)
        kind = kinds.get(resource.kind)
        actions = kind.ends(resource, seen.state, of) if isinstance(kind, Supervised) else ()
        for action in actions:
            error = run_one(action, host)
            if error is not None:
                raise error
        return bool(actions)

    def repair_store(self, damaged: bool) -> str | None:
        if not damaged:
            return None
        self._ask()
        # One of which only a part is damaged is not noticed by a pass that reads another. To
        # set it aside needs no lock: who has it open sees that its name is another file's.
        from reconciler.state.store import Store

        store = Store(self.context.folder(self.spec), Clock(), True)
        try:
            store.base.set_aside_damaged()
            return store.base.damaged or "the store was damaged; the watchdog has set it aside"
        finally:
            store.close()
