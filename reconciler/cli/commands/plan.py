"""What would change, and why. It must not take a lock, nor write more than ``--out`` asks for."""

from __future__ import annotations

import os

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.cli.commands import messages
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, exit_status
from reconciler.output import data, text


def run(context: Context) -> int:
    """Print it; 2 with ``--detailed-exitcode`` when something differs."""
    options = context.options
    if options.sign is not None and options.out is None:
        raise InvalidUsage("--sign signs what --out FILE writes; give both")
    if options.at is not None or options.event is not None:
        from reconciler.cli.rehearsal.run import run as rehearse

        return rehearse(context)
    spec = context.load(complete=options.out is not None)
    host = context.host(spec)
    look = context.look(spec, host)
    if options.out is not None:
        from reconciler.cli.saved_plan import save

        save(context, look, options.out, options.sign)
    plan = messages.with_targets(context, look.plan, spec)
    if plan.steps and not options.quiet:
        from reconciler.undo.journal import marked

        # What is only noted by passes is not asked for where none has been made.
        store = context.tracker(spec, False).store
        plan = marked(replace(look, plan=plan), kinds.get, host, store)
    if options.json:
        context.print_json(data.plan_document(plan, context.about(spec)))
    elif options.quiet:
        context.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        context.terminal.write([context.heading(spec), *text.plan_lines(plan, options.verbose)])
    if options.out is not None and not (options.json or options.quiet):
        from reconciler.diagnose import command_line
        from reconciler.host.clock import Clock
        from reconciler.state.heartbeat import pulse

        words = command_line(context, spec.path, "--once", "--from", os.path.abspath(options.out))
        context.say((f"saved; do exactly this with: {words}", "good"))
        loop = pulse(context.folder(spec), Clock())
        if loop is not None:
            who = f"the watchdog (pid {loop.identity.pid}) runs"
            context.say(
                (f"{who}: it may do this first, and the plan is refused beside it", "change")
            )
    return exit_status(plan.trouble, bool(plan.steps), options)
