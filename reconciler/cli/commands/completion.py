"""The completion script of a shell, and the ids that it asks for while somebody writes a line.

It must not look at the host, nor write anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from reconciler.base.exit_codes import DONE, TROUBLE
from reconciler.cli.context import Context
from reconciler.cli.options import parser
from reconciler.config.shipped import folder
from reconciler.host.command import program_path
from reconciler.output.completion import CompletedProgram, asked, program, script


def run(context: Context) -> int:
    """Print the script for ``--completion``'s shell."""
    sys.stdout.write(script(context.options.completion, _program()))
    return DONE


def ids(words: Sequence[str]) -> int:
    """Print what ids could stand next on an unfinished line: with ``--resume`` what is paused.

    Says nothing of what is wrong: nobody has asked for anything yet.
    """
    valued = [name for one in _program().all_options() if one.value for name in one.names]
    plain, options = asked(words, valued)
    line = ["--status", *plain[:1]]
    for name, value in options:
        if name in ("--set", "--unset", "--set-file", "--state-dir", "--trust"):
            line.append(f"{name}={value}")
    try:
        context = Context(parser().parse_args(line))
        spec = context.load()
        found = [resource.id for resource in spec.resources]
        if any(name == "--resume" for name, _ in options):
            found = list(context.store(spec, False).pauses.all())
    except Exception:
        return TROUBLE
    sys.stdout.write("".join(f"{ident}\n" for ident in found if ident.isprintable()))
    return DONE


def _program() -> CompletedProgram:
    names: list[str] = []
    with suppress(OSError):
        names = sorted(os.listdir(folder("specs")))
    made = parser()
    return program(
        made, program_path(made.prog), [name[:-5] for name in names if name.endswith(".yaml")]
    )
