"""A single pass beside a loop that is well: the loop is the one who acts, and is asked for a pass.

It must not act. It stays light as long as the answer of the loop is all that is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reconciler.base.exit_codes import BUSY, DONE
from reconciler.base.text import printable
from reconciler.cli.invocation import complain, exit_status
from reconciler.host.environment import on_note
from reconciler.output.text import given, outcome_lines, paused_lines
from reconciler.watchdog.requests import request_pass

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.cli.invocation import Invocation
    from reconciler.core.model import Plan, Spec
    from reconciler.state.folder import LockHeld
    from reconciler.watchdog.requests import Answer

_PATIENCE = 60.0
"""Seconds that a pass of the loop is waited for."""
_STILL_WRONG = (
    "still wrong after a pass of the loop (with other --set values than the loop's own, stop the "
    "loop first)"
)


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
    plan = context.look(spec, host).plan
    if context.answer is not None and taken.loop is not None:
        return _told(context, spec, taken, plan, context.answer)
    report = Report(plan)
    if (
        taken.loop is not None
        and plan.steps
        and ask(taken.loop, context.folder(spec), Clock(), _PATIENCE)
    ):
        left = {step.id: step.why for step in context.look(spec, host).plan.steps}
        report = Report(
            plan,
            tuple(
                Outcome(step, "failed", f"{_STILL_WRONG}: {left[step.id]}")
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
    asked = "; it ran a pass:" if report.outcomes else ""
    context.say((f"{spec.name}: {taken}{given(context.about(spec))}{asked}", "good"))
    context.say(*paused_lines(plan))
    for outcome in report.outcomes:
        context.say(*outcome_lines(outcome))
    return exit_status(report.failed, report.changed, options)


def _told(context: Context, spec: Spec, taken: LockHeld, plan: Plan, answer: Answer) -> int:
    """Tell what the loop has done; ``plan`` is what is to be done behind that."""
    from reconciler.core.model import Outcome

    asked = "; it ran a pass:" if answer.word in ("done", "failed") else ""
    context.say((f"{spec.name}: {taken}{given(context.about(spec))}{asked}", "good"))
    context.say(*answer.lines)
    for step in plan.steps:
        context.say(*outcome_lines(Outcome(step, "failed", f"{_STILL_WRONG}: {step.why}")))
    failed = bool(plan.steps) or answer.word == "failed"
    return exit_status(failed, answer.word == "done", context.options)
