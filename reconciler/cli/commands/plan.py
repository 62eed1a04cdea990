"""What would change, and why. It must not write anything, nor take a lock."""

from __future__ import annotations

from reconciler.cli.commands import messages
from reconciler.cli.commands.answers import exit_status
from reconciler.cli.context import Session
from reconciler.output import data, text


def run(session: Session) -> int:
    """Print it; 2 with ``--detailed-exitcode`` when something differs."""
    spec = session.load()
    plan = messages.with_targets(session, session.look(spec, session.host(spec)).plan, spec)
    options = session.options
    if options.json:
        session.print_json(data.plan_document(plan, session.about(spec)))
    elif options.quiet:
        session.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        session.terminal.write([session.heading(spec), *text.plan_lines(plan, options.verbose)])
    return exit_status(plan.trouble, bool(plan.steps), options)
