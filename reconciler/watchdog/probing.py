"""Probes and passes together: what one context asks, and the short pass behind the answers.

It must not decide what is due, nor what follows from an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.values import ProbeHistory, due_in, secrets
from reconciler.core.kind import Probed
from reconciler.core.model import Outcome, Report, Resource, Spec
from reconciler.core.plan import STARTS

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host
    from reconciler.host.child import Child
    from reconciler.watchdog.probes import ProbeScheduler


def checks_of(
    context: Context, spec: Spec, start: Callable[..., Child] | None = None
) -> ProbeScheduler:
    """What asks the probes of that spec, when they are due."""
    from reconciler.watchdog.probes import ProbeScheduler

    context.said.update(context.tracker(spec, False).said())

    def keep(said: Mapping[str, ProbeHistory]) -> None:
        context.tracker(spec, True).keep(said)

    return ProbeScheduler(
        context.clock,
        context.get_kind,
        lambda: context.host(spec),
        context.said,
        keep,
        context.clean,
        start,
    )


def aftermath(report: Report) -> tuple[set[str], set[str]]:
    """What is not as declared after a pass, or not known to be, and what was started in it."""
    plan = report.plan
    broken = {remark.id for remark in (*plan.unknown, *plan.held, *plan.skipped)}
    started = set()
    for outcome in report.outcomes:
        if outcome.result == "done":
            started |= {outcome.step.id} if outcome.step.verb in STARTS else set()
        elif outcome.error is not None:
            broken.add(outcome.step.id)
    return broken, started


def ask_and_act(
    context: Context, look: Snapshot, report: Report, host: Host, ended: Callable[[Outcome], None]
) -> Report:
    """Ask what is due of what a pass has looked at, and do what the answers ask for.

    The report of both. Raises SpecError when the spec is broken by now, and Usage.
    """
    asked = _ask(context, look, report, host)
    if not asked:
        return report
    from reconciler.core.readiness import waiting

    # What needs a check is planned once that was asked.
    behind = waiting(look.spec.resources, kinds.get)
    ids = look.seen.keys() & {each for one in asked for each in (one, *behind.get(one, ()))}
    look = context.look(look.spec, host, sorted(ids))
    more = context.act(look, host, ended) if look.plan.steps else Report(look.plan)
    return report.followed(more, look.seen)


def _ask(context: Context, look: Snapshot, report: Report, host: Host) -> Collection[str]:
    """Ask, and wait for it; the ids that have answered."""
    probed = [
        resource
        for resource in look.spec.resources
        if resource.id in look.seen and isinstance(kinds.get(resource.kind), Probed)
    ]
    if not (probed and (report.outcomes or any(_is_due(one, host) for one in probed))):
        return ()
    checks = checks_of(context, look.spec)
    checks.take(probed)
    checks.passed(look.seen, *aftermath(report))
    due = checks.to_ask()
    wanted = tuple(resource.want for resource in probed if resource.id in due)
    # The compiled spec holds no secret.
    if any(secret.value is None for secret in secrets(wanted)):
        whole = {resource.id: resource for resource in context.load(complete=True).resources}
        checks.take([whole.get(resource.id, resource) for resource in probed])
    try:
        return checks.ask(due)
    finally:
        checks.close()


def _is_due(resource: Resource[Any], host: Host) -> bool:
    kind, want = kinds.get(resource.kind), resource.want
    assert isinstance(kind, Probed)
    if not resource.present or resource.skip is not None:
        return False
    said, every = host.said.get(resource.id), kind.rhythm(want).every
    return due_in(said, kind.version(want), every, host.clock.wall()) <= 0
