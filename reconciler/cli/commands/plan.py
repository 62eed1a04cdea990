"""What would change, and why. It must not write anything, nor take a lock."""

from __future__ import annotations

from reconciler.cli.commands import messages
from reconciler.cli.context import Context
from reconciler.cli.invocation import exit_status
from reconciler.output import data, text


def run(context: Context) -> int:
    """Print it; 2 with ``--detailed-exitcode`` when something differs."""
    spec = context.load()
    plan = messages.with_targets(context, context.look(spec, context.host(spec)).plan, spec)
    options = context.options
    if options.json:
        context.print_json(data.plan_document(plan, context.about(spec)))
    elif options.quiet:
        context.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        context.terminal.write([context.heading(spec), *text.plan_lines(plan, options.verbose)])
    return exit_status(plan.trouble, bool(plan.steps), options)
