"""One pass: plan, act in order, look again; beside a loop that is well, the loop's.

It must not act without the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.base.exit_codes import BUSY
from reconciler.base.records import replace
from reconciler.cli.commands import messages
from reconciler.cli.commands.answers import complain, exit_status, tell
from reconciler.cli.context import Session
from reconciler.output import text
from reconciler.state.lock import Taken, turn

if TYPE_CHECKING:
    from reconciler.core.model import Outcome, Spec

_SHORT_WAIT = 5.0
"""Seconds that a single pass waits for what was tried in vain and is soon to be tried again."""

_STILL_WRONG = (
    "still wrong after a pass of the loop (with other --set values than the loop's own, stop the "
    "loop first)"
)


def run(session: Session) -> int:
    """Make the pass, and send what people are to be told."""
    spec = session.load(write_cache=True)
    session.claim(spec)

    def taken_over(words: str) -> None:
        tell(f"{spec.name}: {words}")
        session.report(words)

    try:
        with turn(session.folder(spec), taken_over):
            status, told = _pass(session, spec)
            messages.deliver(session, told)
            return status
    except Taken as taken:
        return _beside(session, spec, taken)


def _pass(session: Session, spec: Spec) -> tuple[int, Spec]:
    """The exit status, and the spec as the pass has left it."""
    from reconciler.core.model import Report
    from reconciler.watchdog.probing import ask_and_act

    session.recover(spec)
    host = session.host(spec)
    look = session.look(spec, host)
    end = host.clock.monotonic() + _SHORT_WAIT
    due = session.learn(look, host)
    while look.plan.held and due is not None and host.clock.monotonic() + due <= end:
        # The next pass may come in minutes only.
        host.clock.sleep(due)
        look = session.look(spec, host)
        due = session.learn(look, host)
    plan = look.plan
    terminal, options = session.terminal, session.options

    def told(outcome: Outcome) -> None:
        if not options.quiet or outcome.result == "failed":
            terminal.write(text.outcome_lines(outcome))
        session.carry(outcome)

    session.say(session.heading(spec))
    # What fails is told when it was asked once more.
    told_now = replace(plan, failing=())
    if not options.quiet or told_now.trouble:
        shown = messages.with_targets(session, told_now, spec)
        terminal.write(text.remark_lines(shown, options.verbose))
    report = session.act(look, host, told) if plan.steps else Report(plan)
    report = ask_and_act(session, look, report, host, told)
    if session.carried:
        steps = (*(one.step for one in session.carried), *report.plan.steps)
        outcomes = (*session.carried, *report.outcomes)
        report = Report(replace(report.plan, steps=steps), outcomes)
    plan = report.plan
    terminal.write(text.failing_lines(plan))
    session.say(*text.report_summary(report))
    if options.json:
        from reconciler.output import data

        session.print_json(data.report_document(report, session.about(spec)))
    session.tell(replace(look, plan=report.plan), report.outcomes)
    if look.spec.notify.report_every and not look.only:
        messages.report(session, look)
    trouble = report.failed or plan.trouble
    return exit_status(trouble, report.changed, options), look.spec


def _beside(session: Session, spec: Spec, taken: Taken) -> int:
    """Somebody else is at work on this spec: normal when it is a loop that is well.

    The loop is the one who acts. Where something differs it is asked for a pass now, and what
    has become of it is told.
    """
    if session.options.take_over and taken.loop is not None:
        return complain(f"{spec.name}: {taken}; end it before its state is taken over", BUSY)
    from reconciler.core.model import Outcome, Report
    from reconciler.state.lock import ask

    host = session.host(spec)
    plan = session.look(spec, host).plan
    report = Report(plan)
    if taken.loop is not None and plan.steps and ask(taken, session.folder(spec)):
        left = {step.id: step.why for step in session.look(spec, host).plan.steps}
        report = Report(
            plan,
            tuple(
                Outcome(step, "failed", f"{_STILL_WRONG}: {left[step.id]}")
                if step.id in left
                else Outcome(step, "done")
                for step in plan.steps
            ),
        )
    options = session.options
    if options.json:
        from reconciler.output import data

        about = {"pid": taken.pid, "loop": taken.loop is not None}
        session.print_json({**data.report_document(report, session.about(spec)), "busy": about})
    if taken.loop is None:
        return complain(f"{spec.name}: {taken}; nothing was done", BUSY)
    asked = "; it ran a pass:" if report.outcomes else ""
    session.say((f"{spec.name}: {taken}{text.given(session.about(spec))}{asked}", "good"))
    session.say(*text.paused_lines(plan))
    for outcome in report.outcomes:
        session.say(*text.outcome_lines(outcome))
    return exit_status(report.failed, report.changed, options)
