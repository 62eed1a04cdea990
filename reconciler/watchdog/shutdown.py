"""Ends what a loop keeps that is process 1 of a container, and takes all others with its end.

Their end would be SIGKILL, all at once, pid_namespaces(7). It must not be done elsewhere: what a
loop keeps outlives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.core.kind import Supervised
from reconciler.core.model import Outcome, Past, Spec
from reconciler.core.observe import Snapshot, judged, observe
from reconciler.core.plan import ending

if TYPE_CHECKING:
    from reconciler.cli.context import Context


def end_all(context: Context, spec: Spec, report: Callable[[Outcome], None]) -> None:
    """Stop all processes, those first that need others, and wait for each."""
    running = [
        one
        for one in ending(spec.resources)
        if one.skip is None and isinstance(kinds.get(one.kind), Supervised)
    ]
    # Its policy is about what a spec asks for; here the host ends.
    spec = replace(spec, resources=tuple(running), complete=True, policy=None)
    host = context.host(spec)
    found = observe(running, kinds.get, host)
    plan, seen = judged(spec, running, found, kinds.get, host, Past())
    context.act(Snapshot(spec, plan, seen), host, report, remember=False)
