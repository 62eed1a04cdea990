"""Tells of a repair while it goes on: lines for people here, and messages to those who are away.

It must not act, nor let a message that cannot be kept or sent hold anything up.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.text import redacted_json
from reconciler.core.messages import Message, in_parts
from reconciler.host.clock import Clock
from reconciler.output.repair import (
    begin_lines,
    end_lines,
    note_lines,
    repair_lines,
    summary,
    wrong_lines,
)
from reconciler.output.text import outcome_lines
from reconciler.state.folder import LockHeld, turn

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Outcome, Spec
    from reconciler.diagnose.repair import Repair, RepairStep

_BOUND = 10.0


class RepairProgress:
    """Of one repair."""

    def __init__(self, context: Context, spec: Spec) -> None:
        self._context = context
        self._spec = spec

    # -- to whoever watches

    def begins(self, step: RepairStep) -> None:
        """A step begins."""
        self._context.say(*begin_lines(step.number, step.name))
        self._progress(f"repair step {step.number} of 5 started: {step.name}", "under way")

    def ends(self, step: RepairStep) -> None:
        """It has come to its end."""
        lines = end_lines(step.number, step.name, step.words, step.error, step.seconds)
        if step.failed:
            self._context.terminal.write(lines)
        else:
            self._context.say(*lines)
        words = f"failed: {step.error}" if step.error else step.words
        finished = f"repair step {step.number} of 5 finished: {step.name}: {words}"
        last = step.number == 5
        action = "the summary follows" if last else f"step {step.number + 1} follows"
        self._progress(f"{finished} [{step.seconds:.1f} s]", action)
        self._send(0.0)

    def wrong(self, found: dict[str, Any]) -> None:
        """What the first look has found."""
        self._context.say(*wrong_lines(found, commands=False))

    def note(self, words: str) -> None:
        """Something beside the steps of a plan."""
        self._context.say(*note_lines(words))

    def outcome(self, outcome: Outcome) -> None:
        """A step of the plan has come to its end."""
        if outcome.result == "failed":
            self._context.terminal.write(outcome_lines(outcome))
        else:
            self._context.say(*outcome_lines(outcome))

    def end(self, repair: Repair) -> None:
        """All five have come to their end."""
        document = redacted_json(repair.document())
        if self._context.options.json:
            self._context.print_json(document)
        lines = list(repair_lines(document, self._context.options.quiet))
        self._context.terminal.write(lines)
        self._queue(Message("report", summary(document)))
        sys.stdout.flush()
        self._send(_BOUND)

    # -- to whoever is away

    def _progress(self, status: str, action: str) -> None:
        """Whoever hears of a failure hears how far its repair is."""
        self._queue(Message("progress", in_parts(status, action), ("progress", "failed")))

    def _queue(self, message: Message) -> None:
        if not any(message.is_for(target.on) for target in self._spec.notify.targets):
            return
        from reconciler.notify.outbox import announce

        try:
            store = self._context.store(self._spec, False)
            announce(self._spec, store, message, self._context.clean)
        except HostError as error:
            self._context.warn(f"{error}; no message is sent")

    def _send(self, bound: float) -> None:
        """Have what is queued delivered, by the loop where one has the lock."""
        if not self._spec.notify.targets:
            return
        context, spec = self._context, self._spec
        folder = context.folder(spec)
        try:
            with turn(folder, lambda words: None):
                if bound:
                    context.post(spec, self._told).deliver(bound)
        except LockHeld as taken:
            if taken.loop is not None:
                from reconciler.state.heartbeat import ask

                ask(taken.loop, folder, Clock(), 0.0)
        except HostError as error:
            context.warn(str(error))

    def _told(self, words: str, bad: bool) -> None:
        if bad:
            self._context.warn(words)
