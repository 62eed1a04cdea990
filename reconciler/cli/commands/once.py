"""One pass: plan, act in order, look again; beside a loop that is well, the loop's.

It must not act without the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import BUSY, TROUBLE
from reconciler.base.records import replace
from reconciler.cli.context import MOST_ROUNDS, Context
from reconciler.cli.invocation import InvalidUsage, complain, exit_status, tell
from reconciler.core.kind import Probed, Readied
from reconciler.output import text
from reconciler.state.folder import LockHeld, turn

if TYPE_CHECKING:
    from reconciler.cli.saved_plan import SavedPlan
    from reconciler.core.model import Observation, Outcome, Resource, Spec

_SHORT_WAIT = 5.0
"""Seconds that a single pass waits for what has failed and is due again soon."""


def run(context: Context) -> int:
    """Make the pass, and send its messages."""
    saved = _saved(context)
    spec = context.load(write_cache=saved is None, complete=saved is not None)
    context.claim(spec)

    def taken_over(words: str) -> None:
        tell(f"{spec.name}: {words}")
        context.report(words, "this pass goes on in its place")

    try:
        with turn(context.folder(spec), taken_over):
            spec = _in_place(context, spec) if saved is None else spec
            status, spec = _pass(context, spec, saved)
            if spec.notify.targets:
                from reconciler.cli.commands.messages import deliver

                deliver(context, spec)
    except LockHeld as taken:
        if saved is not None:
            words = "nothing of the saved plan is done beside it; "
            if taken.loop is not None:
                words += "it does by itself what differs from the spec; stop it to use saved plans"
            else:
                words += "try again when it has ended"
            return complain(f"{spec.name}: {taken}; {words}", BUSY)
        from reconciler.cli.commands import beside

        return beside.run(context, _in_place(context, spec), taken)
    except Exception:
        _alive(context, spec, False)
        raise
    _alive(context, spec, True)
    return status


def _in_place(context: Context, spec: Spec) -> Spec:
    """The spec, which is put where ``--as`` says, and is loaded from there."""
    if context.options.placed is None:
        return spec
    from reconciler.cli.placing import put_in_place

    put_in_place(context, spec)
    return context.load(write_cache=True)


def _saved(context: Context) -> SavedPlan | None:
    """The plan of ``--from``, by which the spec and the part of it are known."""
    options = context.options
    if options.saved is None:
        if options.signers is not None:
            raise InvalidUsage("--signers is about the plan of --from FILE; give both")
        return None
    from reconciler.cli.saved_plan import SavedPlan

    if options.only:
        raise InvalidUsage("--only is for --plan --out; a saved plan is done as a whole")
    saved = SavedPlan(context, options.saved, options.signers)
    options.only = saved.only
    options.spec = saved.spec_path if options.spec is None else options.spec
    return saved


def _alive(context: Context, spec: Spec, well: bool) -> None:
    """Tell who waits for it that the pass has come to its end, or has not."""
    if spec.notify.alive is not None and not context.options.only:
        from reconciler.cli.commands.messages import alive
        from reconciler.notify.delivery import off

        target = spec.notify.alive.target
        why = alive(target, well) if off(target) is None else ""
        if why:
            context.warn(f"alive: {why}")


def _is_pending(resource: Resource[Any], seen: Observation[Any] | None) -> bool:
    ready = isinstance(kinds.get(resource.kind), Readied)
    return ready and seen is not None and seen.pending is not None


def _pass(context: Context, spec: Spec, saved: SavedPlan | None) -> tuple[int, Spec]:
    """The exit status, and the spec as the pass has left it."""
    from reconciler.core.model import Report

    context.recover(spec)
    host = context.host(spec)
    look = context.look(spec, host)
    if saved is not None and (moved := saved.moved(context, look)):
        context.say(context.heading(spec))
        for words in moved:
            tell(f"{saved.path}: {words}")
        return complain("nothing is done; make the plan anew", TROUBLE), spec
    if saved is not None:
        context.remember_variables(spec)
    _in_place(context, spec)
    end = host.clock.monotonic() + _SHORT_WAIT
    due = context.learn(look, host)
    while (
        saved is None and look.plan.held and due is not None and host.clock.monotonic() + due <= end
    ):
        # The next pass may come in minutes only.
        host.clock.sleep(due)
        look = context.look(spec, host)
        due = context.learn(look, host)
    pending = [one for one in look.spec.resources if _is_pending(one, look.seen.get(one.id))]
    if pending and saved is None:
        # Of a pass that was killed; what needs it is planned when it is ready.
        from reconciler.core.proving import wait_until_ready

        if not look.spec.complete:
            by_id = {one.id: one for one in context.load(complete=True).resources}
            pending = [by_id.get(one.id, one) for one in pending]
        wait_until_ready(pending, kinds.get, host)
        look = context.look(spec, host)
        context.learn(look, host)
    plan = look.plan
    terminal, options = context.terminal, context.options

    def show(outcome: Outcome) -> None:
        if not options.quiet or outcome.result == "failed":
            terminal.write(text.outcome_lines(outcome))
        context.carry(outcome)

    context.say(context.heading(spec))
    # What fails is shown when it was asked once more.
    so_far = replace(plan, failing=())
    if not options.quiet or so_far.trouble:
        shown = so_far
        if spec.notify.addressed:
            from reconciler.cli.commands.messages import with_targets

            shown = with_targets(context, so_far, spec)
        terminal.write(text.remark_lines(shown, options.verbose))
    rounds = MOST_ROUNDS if saved is None else 0
    report = context.act(look, host, show, rounds=rounds) if plan.steps else Report(plan)
    if saved is None and any(
        isinstance(kinds.get(one.kind), Probed) for one in look.spec.resources
    ):
        from reconciler.watchdog.probing import ask_and_act

        report = ask_and_act(context, look, report, host, show)
    if context.carried:
        steps = (*(one.step for one in context.carried), *report.plan.steps)
        outcomes = (*context.carried, *report.outcomes)
        report = Report(replace(report.plan, steps=steps), outcomes)
    plan = report.plan
    terminal.write(text.failing_lines(plan))
    context.say(*text.report_summary(report))
    if options.json:
        from reconciler.output import data

        context.print_json(data.report_document(report, context.about(spec)))
    context.tell(replace(look, plan=report.plan), report.outcomes)
    if look.spec.notify.report_every and not look.only:
        from reconciler.cli.commands.messages import report as queue_reports

        queue_reports(context, look)
    trouble = report.failed or plan.trouble
    return exit_status(trouble, report.changed, options), look.spec
