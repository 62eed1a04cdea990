"""The completion script of a shell, and what it offers while somebody writes a line.

It must not look at the host, nor write anything.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from reconciler.base.errors import DONE
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.cli.options import OF, all_modes, parser
from reconciler.host.command import program_path
from reconciler.host.spec_files import folder
from reconciler.output import completion


def run(context: Context) -> int:
    """Print the script for ``--completion``'s shell."""
    name = parser().prog
    try:
        sys.stdout.write(completion.script(name, program_path(name), context.options.completion))
    except ValueError as error:
        raise InvalidUsage(str(error)) from None
    return DONE


def answer() -> NoReturn:
    """Answer a script: modes first, then what goes with the mode that stands there."""
    words = [word.partition("=")[0] for word in os.environ.get("COMP_LINE", "").split()[1:]]
    modes = {f"--{mode.name}" for mode in all_modes()}
    mode = next((word for word in words[:-1] if word in modes), None)
    values: dict[str, completion.Values] = {
        "ID": _ids, "DIR": completion.folders, "SPEC": _specs,
    }  # fmt: skip
    completion.answer(parser(), values, options=mode is None, hidden=hidden_with(mode))


def hidden_with(mode: str | None) -> set[str]:
    """The options that cannot stand beside this mode, such as ``--pause``."""
    if mode is None:
        return set()
    others = {f"--{one.name}" for one in all_modes() if f"--{one.name}" != mode or not one.many}
    return others | {flag for flag, of in OF.items() if mode[2:] not in of}


def _specs(prefix: str, *_: object) -> Iterator[str]:
    for name in sorted(os.listdir(folder("specs"))):
        if name.endswith(".yaml"):
            yield name.removesuffix(".yaml")
    yield from completion.specs(prefix)


def _ids(_: str, options: argparse.Namespace, dest: str) -> list[str]:
    """The ids of the spec that the line names; what is paused for ``--resume``."""
    if dest == "adopt":
        from reconciler.migrate.adopt import SORTS

        return [f"{sort}:" for sort in SORTS]
    for name in ("spec", "state_dir"):
        if getattr(options, name) is not None:
            setattr(options, name, os.path.expanduser(getattr(options, name)))
    options.mode = "status"
    context = Context(options)
    spec = context.load()
    if dest == "resume":
        return list(context.store(spec, False).pauses.all())
    return [resource.id for resource in spec.resources]
