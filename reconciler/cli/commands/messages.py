"""What the modes do about messages: send what waits, say who is off, and --notify-test.

It must not show a URL.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import DONE, TROUBLE, HostError
from reconciler.base.records import replace
from reconciler.base.text import printable
from reconciler.cli.context import Context

if TYPE_CHECKING:
    from reconciler.base.values import Target
    from reconciler.core.model import Plan, Spec
    from reconciler.core.observe import Snapshot

_BOUND = 10.0
"""Seconds that a single pass takes to send messages, once all else is done."""
_SHOWN = {
    "taken": ("delivered", "good"),
    "refused": ("not delivered: ", "bad"),
    "off": ("off: ", "quiet"),
}


def run(context: Context) -> int:
    """One message to every target; 1 when one that is on did not get it."""
    from reconciler.notify.delivery import off
    from reconciler.notify.sender import test

    spec = context.load(complete=True)
    found = [(f"target {name}", result, why) for name, result, why in test(spec)]
    if spec.notify.alive is not None:
        target = spec.notify.alive.target
        is_off = off(target)
        refused = None if is_off else alive(target, True)
        result = "off" if is_off else "refused" if refused else "taken"
        found.append(("alive", result, is_off or refused or ""))
    if context.options.spec is None:  # Nobody has named it.
        context.head(spec)
    if context.options.json:
        rows = [
            {"name": name.removeprefix("target "), "result": result, "reason": why or None}
            for name, result, why in found
        ]
        context.print_json({"format": 1, "spec": context.about(spec), "targets": rows})
    for name, result, why in found:
        words, style = _SHOWN[result]
        context.terminal.write([(f"{name}: {words}{printable(why)}", style)])
    if not found:
        words = f"{printable(spec.path)} has no targets under notify; add one there, such as"
        example = "  notify: {targets: {slack: {url_file: ~/.config/reconcile/slack_url}}}"
        context.terminal.write([(words, "quiet"), (example, "quiet")])
    return TROUBLE if any(result == "refused" for _, result, _ in found) else DONE


def alive(target: Target, well: bool) -> str:
    """Tell a service elsewhere how a pass has ended; why that was not taken, or nothing."""
    from reconciler.host.child import Child
    from reconciler.notify.alive import TIMEOUT, request, result

    return result(Child(request(target, well), TIMEOUT + 1.0).wait) or ""


def with_targets(context: Context, plan: Plan, spec: Spec) -> Plan:
    """The plan with what is worth a note of targets, for those who want to see every note."""
    if not (context.options.verbose or context.options.json):
        return plan
    from reconciler.notify.outbox import remarks

    return replace(plan, notes=(*plan.notes, *remarks(spec.notify)))


def report(context: Context, look: Snapshot) -> None:
    """Queue the reports that are due."""
    from reconciler.notify.delivery import off

    if all("report" not in one.on or off(one) for one in look.spec.notify.targets):
        return

    def told(words: str) -> None:
        context.warn(words)

    reports = context.reports(lambda: None, told)
    reports.take(look.spec)
    reports.passed(look.spec)
    reports.make()


def deliver(context: Context, spec: Spec) -> None:
    """Send what people are to be told; what is not taken in time stays for the next pass."""
    from reconciler.state.folder import quiet

    if quiet(context.folder(spec)):
        return
    with suppress(HostError):  # Who delivers says so.
        if not context.store(spec, False).outbox.waiting():
            return
    if any(one.url is not None and one.url.value is None for one in spec.notify.targets):
        spec = context.load(complete=True)

    def told(words: str, bad: bool) -> None:
        context.terminal.write([(f"  ! {printable(words)}", "bad")] if bad else ())

    sys.stdout.flush()
    context.post(spec, told).deliver(_BOUND)
