"""A single pass beside a loop that is well: the loop is the one who acts, and is asked for a pass.

It must not act. It stays light as long as the answer of the loop is all that is needed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import BUSY, DONE
from reconciler.base.records import replace
from reconciler.base.text import printable
from reconciler.cli.invocation import complain, exit_status
from reconciler.host.environment import on_note
from reconciler.output.text import given, outcome_lines, paused_lines, trouble_lines
from reconciler.watchdog.requests import request_pass

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.cli.invocation import Invocation
    from reconciler.core.model import Plan, Spec
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.output.text import Line
    from reconciler.state.folder import LockHeld
    from reconciler.watchdog.requests import Answer

_PATIENCE = 60.0
"""Seconds that a pass of the loop is waited for."""
_GLANCE, _LONGEST, _SPARE = 0.1, 1.0, 10.0
"""Seconds between two looks at what is not ready yet, at first and at most; and how long it may
stay as it is beyond its own time."""


def ask(call: Invocation) -> tuple[int | None, Answer | None]:
    """Have the loop make a pass; the exit status if all is as declared, and what it has answered.

    Only where nothing has changed that the spec was compiled from, and the loop keeps the same.
    """
    notes: list[str] = []
    on_note(notes.append)
    compiled = call.compiled()
    if compiled is None:
        return None, None
    answer = request_pass(os.path.join(call.state_dir, compiled.name), compiled.digest)
    if answer is None or answer.word != "as declared":
        return None, answer
    about = given(call.about(compiled))
    words = f"{compiled.name}: the watchdog (pid {answer.pid}) keeps it as declared{about}"
    call.say((words, "good"), *((f"  ! {printable(one)}", "bad") for one in notes), *answer.lines)
    return DONE, answer


def run(context: Context, spec: Spec, taken: LockHeld) -> int:
    """Tell what became of a pass of the loop, which is asked for one where something differs.

    Somebody else is at work on this spec; where that is no loop, nothing is done.
    """
    if context.options.take_over and taken.loop is not None:
        return complain(f"{spec.name}: {taken}; end it before its state is taken over", BUSY)
    from reconciler.core.model import Outcome, Report
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import ask

    host = context.host(spec)
    if context.answer is not None and taken.loop is not None:
        look, late = _settled(context, spec, host, ())
        return _told(context, spec, taken, look.plan, context.answer, late)
    plan = rest = context.look(spec, host).plan
    report, late = Report(plan), set[str]()
    if taken.loop is not None and (
        not plan.steps or ask(taken.loop, context.folder(spec), Clock(), _PATIENCE)
    ):
        look, late = _settled(context, spec, host, {step.id for step in plan.steps})
        rest = look.plan
        wrong = (*rest.unknown, *rest.held, *rest.failing)
        left = {one.id: one.reason for one in wrong} | {step.id: step.why for step in rest.steps}
        report = Report(
            replace(rest, steps=plan.steps),
            tuple(
                Outcome(step, "failed", f"{_still_wrong(context)}: {left[step.id]}")
                if step.id in left
                else Outcome(step, "done")
                for step in plan.steps
            ),
        )
    options = context.options
    if options.json:
        from reconciler.output import data

        about = {"pid": taken.pid, "loop": taken.loop is not None}
        context.print_json({**data.report_document(report, context.about(spec)), "busy": about})
    if taken.loop is None:
        return complain(f"{spec.name}: {taken}; nothing was done", BUSY)
    context.say(_heading(context, spec, taken, rest, bool(report.outcomes)))
    context.say(*paused_lines(plan))
    for outcome in report.outcomes:
        context.say(*outcome_lines(outcome))
    context.say(*_late_lines(late), *trouble_lines(rest))
    return exit_status(report.failed or rest.trouble, report.changed or bool(late), options)


def _settled(
    context: Context, spec: Spec, host: Host, asked: Collection[str]
) -> tuple[Snapshot, set[str]]:
    """How all is when what the loop has begun is ready, or late, which a pass of our own waits for;
    and what else it has done then, besides what was ``asked`` of it."""
    from reconciler import kinds
    from reconciler.core.kind import Readied

    behind: set[str] = set()
    before: list[tuple[str, object]] = []
    pause, end = _GLANCE, 0.0
    while True:
        look = context.look(spec, host)
        todo = {step.id for step in look.plan.steps}
        going: list[tuple[str, object]] = []
        for one in look.spec.resources:
            kind, seen = kinds.get(one.kind), look.seen.get(one.id)
            if seen is None or not isinstance(kind, Readied):
                continue
            if seen.pending is not None:
                behind |= {other.id for other in look.spec.resources if one.id in other.needs}
                end = max(end, host.clock.monotonic() + (kind.readiness(one.want) or 0.0))
            if seen.pending is not None or (one.id in todo and (seen.more or one.id in behind)):
                going.append((one.id, seen.state))
        if going != before:
            before, end = going, max(end, host.clock.monotonic() + _SPARE)
        if not going or host.clock.monotonic() > end:
            return look, {one for one in behind - set(asked) - todo if one in look.seen}
        host.clock.sleep(pause)
        pause = min(pause * 1.5, _LONGEST)


def _heading(context: Context, spec: Spec, taken: LockHeld, plan: Plan, did: bool) -> Line:
    """Who keeps it, and whether all of it; ``did``: what it has done stands below."""
    end = "; it ran a pass:" if did else ", except:" if plan.trouble else ""
    style = "bad" if plan.trouble else "good"
    return f"{spec.name}: {taken}{given(context.about(spec))}{end}", style


def _still_wrong(context: Context) -> str:
    given = context.options.set or context.options.set_file
    hint = "; it keeps to its own --set values: stop it before a pass with others" if given else ""
    return f"still wrong after a pass of the watchdog{hint}"


def _late_lines(late: Collection[str]) -> Sequence[Line]:
    return [(f"  done {one}: what it needs is ready", "good") for one in sorted(late)]


def _told(
    context: Context, spec: Spec, taken: LockHeld, plan: Plan, answer: Answer, late: set[str]
) -> int:
    """Tell what the loop has done, ``late`` too; ``plan`` is what is to be done behind that."""
    from reconciler.core.model import Outcome

    did = answer.word in ("done", "failed")
    context.say(_heading(context, spec, taken, plan, did), *answer.lines, *_late_lines(late))
    for step in plan.steps:
        context.say(*outcome_lines(Outcome(step, "failed", f"{_still_wrong(context)}: {step.why}")))
    context.say(*trouble_lines(plan))
    failed = bool(plan.steps) or plan.trouble or answer.word == "failed"
    return exit_status(failed, answer.word == "done" or bool(late), context.options)
