"""Print a spec that is made from what people have. It must not change anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler import kinds
from reconciler.base.errors import DONE, INVALID
from reconciler.base.text import censored
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, complain, tell
from reconciler.config.errors import Problem
from reconciler.migrate.formats import imported
from reconciler.migrate.original import NotImported
from reconciler.output.data import FORMAT

if TYPE_CHECKING:
    from reconciler.config.build import Built


def run(context: Context) -> int:
    """Print it whole, or nothing; what has no equivalent is said on standard error."""
    if context.options.spec is not None:
        raise InvalidUsage(
            f"--import takes files behind it; {context.options.spec!r} is none of them"
        )
    try:
        draft = imported(getattr(context.options, "import"))
    except NotImported as refused:
        if context.options.json:
            problem = {"file": refused.file, "line": refused.line or None, "column": None,
                       "message": refused.reason, "hint": None}  # fmt: skip
            context.print_json({"format": FORMAT, "valid": False, "errors": [problem]})
        return complain(str(refused), INVALID)
    text = draft.valid(lambda text: problems_of(text, context))
    if context.options.json:
        left = [{**one.origin._asdict(), "reason": one.reason} for one in draft.left]
        context.print_json({"format": FORMAT, "text": text, "left_out": left})
        return DONE
    sys.stdout.write(text)
    sys.stdout.flush()
    for one in () if context.options.quiet else draft.left:
        sys.stderr.write(f"{one}\n")
    if not context.options.quiet:
        secret = any(censored(line) != line for line in text.splitlines())
        words = "; it holds what looks like a secret: let nobody else read it (chmod 600)"
        tell(draft.summary() + (words if secret else ""))
    return DONE


def problems_of(text: str, context: Context) -> Sequence[Problem]:
    """What ``--check`` would say of a spec with that text."""
    from reconciler.config.errors import SpecError

    try:
        built_from(text, "imported.yaml", context)
    except SpecError as error:
        return error.problems
    return ()


def built_from(text: str, name: str, context: Context) -> Built:
    """The spec with that text, as if a file of that name held it. Raises SpecError."""
    from reconciler.config.build import build

    path = os.path.abspath(name)
    return build(path, kinds.all_kinds(), context.facts(), {}, os.environ, text=text.encode())
