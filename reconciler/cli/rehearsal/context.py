"""A call of the command that remembers in memory, on a clock of its own, and tells nobody."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from reconciler.cli.call_state import Learned
from reconciler.cli.context import Context
from reconciler.core.messages import in_one_line, moment
from reconciler.host.clock import LaterClock
from reconciler.notify.sender import DIGEST, Sender
from reconciler.notify.transitions import quiet_left

if TYPE_CHECKING:
    from reconciler.base.values import Target
    from reconciler.core.model import Spec
    from reconciler.core.observe import Snapshot
    from reconciler.host.child import Child
    from reconciler.host.stops import Stopping
    from reconciler.output.text import Block
    from reconciler.state.store import Store
    from reconciler.state.store.outbox import QueuedMessage

_NOTHING = Learned(frozenset(), {}, frozenset(), {}, (), (), {})
Hear = Callable[[str, str, str], None]
"""Takes ``told`` or ``held``, who is, and the message."""


class RehearsedContext(Context):
    """See above. Nothing of it is written to a file."""

    clock: LaterClock

    def __init__(self, options: argparse.Namespace, clock: LaterClock) -> None:
        super().__init__(options)
        self.clock = clock
        self._copies: dict[str, Store] = {}

    by = cached_property(lambda self: "loop")

    def is_quiet(self, spec: Spec) -> bool:
        return False

    def store(self, spec: Spec, writes: bool) -> Store:
        folder = self.folder(spec)
        if folder not in self._copies:
            from reconciler.state.store.rehearsed import rehearsed

            self._copies[folder] = rehearsed(folder, self.clock)
        return self._copies[folder]

    def recover(self, spec: Spec) -> None:
        """Nothing is taken over from others."""

    def forked(self, write: Callable[[Sequence[Block]], None], stops: Stopping) -> None:
        """It goes on in this process."""

    def learned(self) -> Learned:
        return _NOTHING

    def learn(self, look: Snapshot, host: Any) -> float | None:
        tracker = self.tracker(look.spec, True)
        tracker.learn(look.plan, look.seen)
        return tracker.due(look.plan, look.seen)

    def _remember(self, what: str, keep: Callable[..., None], *values: Any) -> None:
        """Nothing is."""

    def messages(self, spec: Spec, told: Hear) -> RehearsedSender:
        """What delivers the messages of that spec to ``told``."""
        sender = RehearsedSender(
            self.folder(spec), lambda: self.store(spec, True), self.clock, lambda words, bad: None
        )
        sender.spec, sender.hear = spec, told
        sender.adopt(spec.notify)
        return sender


class RehearsedSender(Sender):
    """Delivers to ``hear``; what must wait is ``held``, which is said once."""

    spec: Spec
    hear: Hear

    def held(self) -> None:
        """Say what waits for the end of the quiet hours."""
        wall = self._clock.wall()
        left = quiet_left(self.spec.notify.quiet, wall)
        said = self.__dict__.setdefault("_said", set())
        for name, messages in self._opened().outbox.waiting().items():
            for one in messages:
                new = one.event != DIGEST and one.seq not in said and name in self._targets
                if left is not None and new:
                    said.add(one.seq)
                    until = moment(wall + left)[-5:]
                    words = f"held for {name} until {until}: {in_one_line(one.body)}"
                    self.hear("held", name, words)

    def _is_quiet(self) -> bool:
        return False

    def _alone(self) -> bool:
        return True

    def _delivers(
        self,
        target: Target,
        todo: Sequence[tuple[str, str, str]],
        messages: Sequence[QueuedMessage],
    ) -> Child:
        for _, body, event in todo:
            first, *_ = body.split(":\n")
            words = f"{first}, as one" if event == DIGEST else in_one_line(body)
            self.hear("told", target.name, f"told {target.name}: {words}")
        return cast("Child", Answered(b"\n" * len(todo)))


class Answered:
    """Stands for a child that has answered."""

    descriptor, left = -1, 0.0

    def __init__(self, said: bytes) -> None:
        self.said = said

    def collect(self) -> bytes:
        return self.said

    def kill(self) -> None:
        """It has ended."""
