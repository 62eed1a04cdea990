"""What was done, when, why, by whom, and with which result. It must not change anything."""

from __future__ import annotations

import time

from reconciler.base.errors import DONE
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.core.plan import is_matched

_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def run(context: Context) -> int:
    """Print it, the oldest first: of what ``--only`` names, and not from before ``--since``."""
    from reconciler.output.data import headed
    from reconciler.output.status import deed_document, history_table

    options = context.options
    spec = context.load()
    since = moment_given(options.since) if options.since is not None else 0.0
    context.head(spec)
    deeds = [
        deed
        for deed in context.store(spec, False).history.since(since)
        if not options.only or any(is_matched(deed.id, pattern) for pattern in options.only)
    ]
    if options.json:
        rows = [deed_document(deed) for deed in deeds]
        context.print_json(headed(context.about(spec), history=rows))
    if options.quiet:
        deeds = [deed for deed in deeds if deed.result == "failed"]
    if deeds:
        context.terminal.write([history_table([deed_document(deed) for deed in deeds])])
    else:
        such = "such " if options.only or options.since is not None else ""
        context.say((f"{spec.name}: no {such}actions are recorded", "quiet"))
    return DONE


def moment_given(text: str) -> float:
    """Seconds since the epoch of ``2h`` (ago), or of a date and time here. Raises Usage."""
    from reconciler.base.scalars import parse_duration

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    for form in _FORMS:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    raise InvalidUsage(f"--since takes 2h, 7d, 2026-11-22 or '2026-11-22 14:30', not {text!r}")
