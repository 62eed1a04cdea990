"""Everything that can be seen, and what is wrong. It must not change anything, nor take a lock."""

from __future__ import annotations

from reconciler.base.errors import DONE, TROUBLE
from reconciler.cli.context import Context


def run(context: Context) -> int:
    """Print it; 1 when something is wrong."""
    from reconciler.diagnose import diagnose
    from reconciler.output.diagnosis import diagnosis_blocks, wrong_lines

    options = context.options
    found = diagnose(context)
    if options.json:
        context.print_json(found)
    elif options.quiet:
        context.terminal.write(wrong_lines(found) if found["wrong"] else ())
    else:
        context.terminal.write(diagnosis_blocks(found, options.verbose))
    return DONE if found["healthy"] else TROUBLE
