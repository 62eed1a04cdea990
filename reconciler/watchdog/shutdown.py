"""Ends what a loop keeps that is process 1 of a container, and takes all others with its end.

Their end would be SIGKILL, all at once, pid_namespaces(7). It must not be done elsewhere: what a
loop keeps outlives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.core.model import Outcome, Past, Resource, Spec
from reconciler.core.observe import Snapshot, judged, observe
from reconciler.core.plan import ending

if TYPE_CHECKING:
    from reconciler.cli.context import Context

_USUAL = 10.0
"""Seconds that Docker and Podman give between SIGTERM and SIGKILL."""
_OURS = 0.9
"""The part of the time that is given for the stops; in the rest we end ourselves."""
_RESERVE = 1.0
"""Seconds that are kept for each that ends after another one, as far as there are so many."""


def end_all(context: Context, spec: Spec, report: Callable[[Outcome], None], asked: float) -> bool:
    """Stop all processes and sessions, those first that need others; were all stopped?

    ``asked`` is when the signal came, by the monotonic clock.
    """
    running = _running(spec.resources)
    # Its policy is about what a spec asks for; here the host ends.
    spec = replace(spec, resources=tuple(running), complete=True, policy=None)
    host = context.host(spec)
    longest = max((one.want.stop.timeout for one in running if one.kind == "process"), default=0.0)
    host.stop_by = deadlines(running, asked, spec.stop_timeout or max(_USUAL, longest))
    found = observe(running, kinds.get, host)
    plan, seen = judged(spec, running, found, kinds.get, host, Past())
    done = context.act(Snapshot(spec, plan, seen), host, report, remember=False)
    return not (done.failed_ids or plan.unknown)


def _running(resources: Sequence[Resource[Any]]) -> list[Resource[Any]]:
    """Those to be stopped, as absent ones; what needs one by way of another needs it as well."""
    found = []
    before: dict[str, frozenset[str]] = {}
    """What must have ended before each."""
    for one in ending(resources):
        waits = frozenset[str]().union(*(before[need] for need in one.needs))
        if one.skip is None and one.kind in ("process", "session"):
            found.append(replace(one, needs=tuple(sorted(waits))))
            waits = frozenset((one.id,))
        before[one.id] = waits
    return found


def deadlines(running: Sequence[Resource[Any]], asked: float, given: float) -> dict[str, float]:
    """When each must have ended, so that those behind it have a time of their own. Pure."""
    behind: dict[str, int] = {}
    for one in reversed(running):
        for need in one.needs:
            behind[need] = max(behind.get(need, 0), behind.get(one.id, 0) + 1)
    end = given * _OURS
    reserve = min(_RESERVE, end / (max(behind.values(), default=0) + 1))
    return {one.id: asked + end - reserve * behind.get(one.id, 0) for one in running}
