"""What stands for the host in the rehearsal of an event: all is as declared but for that.

It must not look at the host, nor act on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.values import Verdict
from reconciler.cli.rehearsal.asked import Event
from reconciler.core.kind import Kind, Probed, run_one
from reconciler.core.model import ABSENT, Action, Change, Observation, Resource

if TYPE_CHECKING:
    from reconciler.core.kind import Running
    from reconciler.host import Host
    from reconciler.host.clock import Clock

_MOMENT = 0.1
"""Seconds that it lives at least: most programs fail only after the look that follows a start."""
Note = Callable[[str, str, str], None]
"""Takes what happens, to which id, and words about it."""


@dataclass(frozen=True)
class _Act:
    """Stands for the actions of a step."""

    id: str
    words: str
    world: World = field(compare=False, repr=False)

    def describe(self) -> str:
        return self.words

    def run(self, host: Host) -> None:
        self.world.acts(self)


class World:
    """Kinds by name, as ``kinds.get`` gives them, by which only what ``event`` is about differs."""

    def __init__(self, clock: Clock, event: Event, resource: Resource[Any], note: Note) -> None:
        self._clock = clock
        self._event = event
        self._note = note
        self._kinds: dict[str, Kind[Any, Any]] = {}
        kind = kinds.get(resource.kind)
        self._began = clock.monotonic()
        self._deaths = 0
        self._lives_until = 0.0
        self._dead = False
        self._failed = 0
        self._enough = 0
        if isinstance(kind, Probed):
            self._enough = kind.rhythm(resource.want).failures
        self.starts = 0
        """How often it was started since it was well."""

    # -- the event

    @property
    def over(self) -> bool:
        """Is nothing more to come of it?"""
        if self._event.times:
            return self._deaths >= self._event.times
        if self._event.lasts is None:
            return self._failed >= self._enough
        return self._clock.monotonic() >= self._began + self._event.lasts

    def due(self) -> float | None:
        """Seconds until it dies; None: it is dead, or lives."""
        if self._dead or not self._event.times or self.over:
            return None
        at = self._began + self._deaths * (self._event.lasts or 0.0) / self._event.times
        return max(0.0, max(at, self._lives_until) - self._clock.monotonic())

    def dies(self) -> bool:
        """Does it die now?"""
        if self.due() != 0.0:
            return False
        self._dead, self._deaths = True, self._deaths + 1
        number = f" ({self._deaths} of {self._event.times})" if self._event.times > 1 else ""
        self._note("dies", self._event.id, f"{self._event.id} dies{number}")
        return True

    def acts(self, act: _Act) -> None:
        """A step acts."""
        if act.id != self._event.id or not self._event.times:
            verb = act.words if act.words in ("start", "restart") else "run"
            words = f"{act.words} {act.id}" if verb != "run" else f"{act.id}: {act.words}"
            self._note(verb, act.id, words)
            return
        self.starts += 1
        self._dead = False
        self._note(act.words, act.id, f"{act.words} {act.id}, attempt {self.starts}")
        self._lives_until = self._clock.monotonic() + _MOMENT

    # -- kinds

    def kind(self, name: str) -> Kind[Any, Any]:
        """As ``kinds.get``."""
        if name not in self._kinds:
            real = kinds.get(name)
            made = copy(real)
            vars(made).update(
                observe=lambda resources, host: [self._seen(real, one, host) for one in resources],
                actions=lambda resource, have, changes: self._actions(real, resource, changes),
                restart=lambda resource, have, of: (_Act(resource.id, "restart", self),),
                awaits=lambda steps, host: [None] * len(steps),
                stages=lambda actions: (actions,),
                run_all=lambda actions, host: [run_one(action, host) for action in actions],
                evidence=lambda resource, host: None,
                watch=lambda resource, have, host: (),
                probe=lambda resource, host, parent: self._probed(resource),
            )
            self._kinds[name] = made
        return self._kinds[name]

    def _seen(self, real: Kind[Any, Any], one: Resource[Any], host: Host) -> Observation[Any]:
        if not one.present:
            return ABSENT
        if one.id == self._event.id:
            if isinstance(real, Probed):
                return real.observe((one,), host)[0]
            if self._dead:
                ended: Running = real  # type: ignore[assignment]
                return ended.ended(one.want)
        return Observation(real.expected(one.want))

    def _actions(
        self, real: Kind[Any, Any], resource: Resource[Any], changes: Sequence[Change]
    ) -> Sequence[Action]:
        if not isinstance(real, Probed):
            return (_Act(resource.id, "start", self),)
        found = real.actions(resource, None, changes)
        return tuple(_Act(resource.id, one.describe(), self) for one in found)

    def _probed(self, resource: Resource[Any]) -> Verdict:
        if resource.id != self._event.id or self.over:
            return Verdict(True, "it is well")
        self._failed += 1
        return Verdict(False, "it fails")
