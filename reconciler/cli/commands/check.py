"""Is the spec valid? It must not touch anything."""

from __future__ import annotations

from reconciler.base.exit_codes import DONE
from reconciler.base.text import count_of
from reconciler.cli.context import Context
from reconciler.output.data import FORMAT
from reconciler.output.text import given


def run(context: Context) -> int:
    """Say that it is; what is wrong is raised as SpecError."""
    spec = context.load(complete=True)
    if context.options.json:
        about = context.about(spec)
        context.print_json({"format": FORMAT, "spec": about, "valid": True, "errors": []})
    words = f"{spec.path}: valid; {count_of(len(spec.resources), 'resource')}"
    context.say((f"{words}{given(context.about(spec))}", "good"))
    if spec.notify.addressed:
        from reconciler.notify.outbox import remarks

        context.say(
            *((f"  . note {one.id}: {one.reason}", "quiet") for one in remarks(spec.notify))
        )
    return DONE
