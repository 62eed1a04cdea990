"""What the modes do about messages: send what waits, say who is off, and --notify-test.

It must not show a URL.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reconciler.base.exit_codes import DONE, TROUBLE
from reconciler.base.records import replace
from reconciler.base.text import printable
from reconciler.cli.context import Session

if TYPE_CHECKING:
    from reconciler.core.model import Plan, Spec
    from reconciler.core.snapshot import Look

_BOUND = 10.0
"""Seconds that a single pass takes to send messages, once all else is done."""
_SHOWN = {
    "taken": ("took it", "good"),
    "refused": ("did not take it: ", "bad"),
    "off": ("is off: ", "quiet"),
}


def run(session: Session) -> int:
    """One message to every target; 1 when one that is on did not take it."""
    from reconciler.notify.outbox import test

    spec = session.load(complete=True)
    found = test(spec)
    if session.options.spec is None:  # Nobody has named it.
        session.head(spec)
    if session.options.json:
        rows = [{"name": n, "result": result, "reason": why or None} for n, result, why in found]
        session.print_json({"format": 1, "spec": session.about(spec), "targets": rows})
    for name, result, why in found:
        words, style = _SHOWN[result]
        session.terminal.write([(f"target {name} {words}{printable(why)}", style)])
    if not found:
        session.terminal.write([(f"{printable(spec.path)} names no target to notify", "quiet")])
    return TROUBLE if any(result == "refused" for _, result, _ in found) else DONE


def with_targets(session: Session, plan: Plan, spec: Spec) -> Plan:
    """The plan with what is worth a note of targets, for those who want to see every note."""
    if not spec.notify.targets or not (session.options.verbose or session.options.json):
        return plan
    from reconciler.notify.outbox import remarks

    return replace(plan, notes=(*plan.notes, *remarks(spec.notify)))


def report(session: Session, look: Look) -> None:
    """Queue the reports that are due."""

    def told(words: str) -> None:
        session.warn(words)

    reports = session.reports(lambda: None, told)
    reports.take(look.spec)
    reports.passed(look.spec)
    reports.make()


def deliver(session: Session, spec: Spec) -> None:
    """Send what people are to be told; what is not taken in time stays for the next pass."""
    from reconciler.state.folder import quiet

    if not spec.notify.targets or quiet(session.folder(spec)):
        return
    if any(one.url is not None and one.url.value is None for one in spec.notify.targets):
        spec = session.load(complete=True)

    def told(words: str, bad: bool) -> None:
        session.terminal.write([(f"  ! {printable(words)}", "bad")] if bad else ())

    sys.stdout.flush()
    session.post(spec, told).deliver(_BOUND)
