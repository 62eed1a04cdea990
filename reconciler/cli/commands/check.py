"""Is the spec valid? It must not touch anything."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import DONE, HostError
from reconciler.base.text import count_of, printable
from reconciler.cli.context import Context
from reconciler.output.data import FORMAT
from reconciler.output.text import given

if TYPE_CHECKING:
    from reconciler.core.model import Spec

_LOOK = 5.0
"""Seconds for a look at who else manages the same."""


def run(context: Context) -> int:
    """Say that it is; what is wrong is raised as SpecError."""
    spec = context.load(complete=True)
    warnings = _warnings(context, spec)
    if context.options.json:
        about = context.about(spec)
        context.print_json(
            {"format": FORMAT, "spec": about, "valid": True, "errors": [], "warnings": warnings}
        )
    words = f"{spec.path}: valid; {count_of(len(spec.resources), 'resource')}"
    context.say((f"{words}{given(context.about(spec))}", "good"))
    if spec.notify.addressed:
        from reconciler.notify.outbox import remarks

        context.say(
            *((f"  . note {one.id}: {one.reason}", "quiet") for one in remarks(spec.notify))
        )
    lines = (f"  ! warning: {one['id']} ({one['path']}): {one['words']}" for one in warnings)
    context.say(*((printable(line), "change") for line in lines))
    return DONE


def _warnings(context: Context, spec: Spec) -> list[dict[str, Any]]:
    """Who else manages something of it on this host."""
    from reconciler import kinds
    from reconciler.diagnose import conflicts
    from reconciler.host.child import Children

    try:
        host = context.host(spec)
    except HostError:
        return []  # The state directory is for those who act to judge.
    # In a child, since a look may hang.
    with Children() as children:
        known = spec, host, context.state_dir, kinds.get
        children.begin("others", partial(conflicts.found, *known), _LOOK)
        children.wait()
    rows = children.answers.get("others", [])
    return [{**one, "words": f"{one['with']} {one['words']}"} for one in rows]
