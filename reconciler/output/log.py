"""What a loop says over the years: one line an event, for people, for journald, or as JSON.

It must not say the same thing again at every pass; it tells what has become different.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Sequence
from typing import Any

from reconciler.base.text import printable, redacted_json
from reconciler.core.model import Outcome, Plan
from reconciler.core.restart_policy import NEXT
from reconciler.output.data import FORMAT, outcome_document
from reconciler.output.terminal import Terminal
from reconciler.output.text import Line, by_hand_lines

# sd-daemon(3): a line that begins with <N> has that syslog priority.
_PRIORITIES = {"bad": "<3>", "change": "<5>", "good": "<6>", "quiet": "<6>", "": "<6>"}
_LONGEST = 4000
_OVER = {"unknown": ("known", "known again"), "failing": ("well", "recovered")}
"""What to say of a remark that is not made any more: the event, and words."""


class Log:
    """Where the events of a loop go."""

    def __init__(self, terminal: Terminal, as_json: bool, quiet: bool) -> None:
        self._terminal = terminal
        self._json = as_json
        self._quiet = quiet
        # systemd.exec(5): set where standard error goes to the journal.
        self._journal = "JOURNAL_STREAM" in os.environ and not as_json
        self._remarks: dict[tuple[str, str], str] = {}

    def event(
        self, name: str, text: str, style: str = "", below: Sequence[str] = (), **fields: Any
    ) -> None:
        """One event: its name, what to tell people (with lines ``below``), and programs."""
        now = time.time()
        if self._json:
            document = {
                "format": FORMAT,
                "time": round(now, 3),
                "event": name,
                **fields,
                "text": text,
            }
            line = json.dumps(redacted_json(document))
            self._terminal.put(line)
        if self._quiet and style != "bad":
            return
        lines = [self._dated(printable(text, _LONGEST), style, now)]
        mark = _PRIORITIES[style] if self._journal else ""
        lines += [(f"{mark}{printable(line, _LONGEST)}", style) for line in below]
        self._terminal.write(lines)

    def _dated(self, text: str, style: str, now: float) -> Line:
        if self._journal:
            return f"{_PRIORITIES[style]}{text}", ""
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))} {text}", style

    def outcome(self, outcome: Outcome) -> None:
        """A step as it ended."""
        step = outcome.step
        if outcome.result == "dropped" and outcome.error is None and outcome.note is None:
            return
        text = f"{outcome.result} {step.verb} {step.id}: {step.why}"
        text += f" ({outcome.note})" if outcome.note is not None else ""
        if outcome.error is not None:
            text += f": {outcome.error}"
        style = {"done": "good", "failed": "bad"}.get(outcome.result, "change")
        self.event("step", text, style, step=outcome_document(outcome))
        if outcome.result == "failed" and not self._quiet:
            self._terminal.write(list(by_hand_lines(step)))

    def remarks(self, plan: Plan, seen: Collection[str]) -> None:
        """What is not as declared, or is again, since the last pass over the ids ``seen``.

        Notes are told too, each once.
        """
        found = {("unknown", remark.id): (remark.reason, remark.reason) for remark in plan.unknown}
        # How long it still has to wait is different each time.
        for remark in plan.held:
            name = "gave_up" if remark.id in plan.given_up else "held"
            found[name, remark.id] = remark.reason.partition(NEXT)[0], remark.reason
        # Nor are the figures of what fails the same each time.
        found |= {("failing", remark.id): ("", remark.reason) for remark in plan.failing}
        found |= {("note", one.id): (one.gist or one.reason, one.reason) for one in plan.notes}
        before = {key: reason for key, reason in self._remarks.items() if key[1] in seen}
        self._remarks = {k: r for k, r in self._remarks.items() if k[1] not in seen}
        for (name, ident), (gist, words) in found.items():
            self._remarks[name, ident] = gist
            if before.get((name, ident)) != gist:
                style = "quiet" if name == "note" else "bad"
                text = f"{name.replace('_', ' ')} {ident}: {words}"
                self.event(name, text, style, id=ident, reason=words)
        for name, ident in before.keys() - found.keys():
            if name in _OVER:
                event, words = _OVER[name]
                self.event(event, f"{words}: {ident}", "good", id=ident)
