"""What modes answer with: words on standard error, and an exit status.

It must not decide what went wrong.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reconciler.base.exit_codes import CHANGED, DONE, INVALID, TROUBLE
from reconciler.base.text import printable

if TYPE_CHECKING:
    import argparse

    from reconciler.cli.context import Context
    from reconciler.config.errors import SpecError


def exit_status(trouble: bool, changes: bool, options: argparse.Namespace) -> int:
    """The status of a plan or a pass."""
    if trouble:
        return TROUBLE
    return CHANGED if changes and options.detailed_exitcode else DONE


def complain(message: str, status: int) -> int:
    """Say what went wrong; the status that was given."""
    tell(message)
    return status


def tell(message: str) -> None:
    """Say something to people, whatever they asked for."""
    lines = [printable(line, 4000) for line in message.splitlines()]
    sys.stderr.write("reconcile: " + "\n".join(lines) + "\n")


def invalid(context: Context, error: SpecError) -> int:
    """All that is wrong with the spec."""
    from reconciler.config.errors import document
    from reconciler.output.data import FORMAT
    from reconciler.output.terminal import Terminal

    Terminal(context.options.color, to_errors=True).write(error.lines())
    if context.options.json:
        context.print_json({"format": FORMAT, "valid": False, "errors": document(error)})
    return INVALID
