"""A plan, to a report: before each step it looks again, acts, and looks whether it helped.

It must not do anything that the plan does not say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.contract import GetKind
from reconciler.model import HostError, Observation, Outcome, Plan, Report, Resource, Spec, Step
from reconciler.observe import observe
from reconciler.plan import difference, in_words, needed_by

if TYPE_CHECKING:
    from reconciler.host import Host

OnOutcome = Callable[[Outcome], None]
"""Told of each step as it ends; a step that is found dead at the end is told again."""


def apply(plan: Plan, spec: Spec, get_kind: GetKind, host: Host, told: OnOutcome) -> Report:
    """Run the plan's steps in order. A step that fails skips what needs it, nothing else."""
    by_id = {resource.id: resource for resource in spec.resources}
    outcomes: list[Outcome] = []
    broken: set[str] = set()
    last_start = 0.0
    for step in plan.steps:
        need = needed_by(step, broken)
        if need is not None:
            outcome = Outcome(step, "skipped", f"needs {need}, which failed or was not done")
        else:
            outcome = _run(step, by_id[step.id], get_kind, host)
            last_start = host.clock.monotonic()
        if outcome.result != "done" and outcome.error is not None:
            broken.add(step.id)
        outcomes.append(outcome)
        told(outcome)
    return Report(plan, tuple(_settled(outcomes, by_id, last_start, get_kind, host, told)))


def _run(step: Step, resource: Resource[Any], get_kind: GetKind, host: Host) -> Outcome:
    kind = get_kind(resource.kind)
    begin = host.clock.monotonic()

    def ended(result: str, error: str | None = None) -> Outcome:
        return Outcome(step, result, error, host.clock.monotonic() - begin)

    seen = _look(resource, get_kind, host)
    if seen.unknown is not None:
        return ended("failed", f"cannot look at it any more: {seen.unknown}")
    changes = difference(resource, seen, kind)
    if not changes:
        # Somebody was faster, or an earlier step has done it along the way.
        return ended("dropped")
    if tuple(kind.actions(resource, seen.state, changes)) != step.actions:
        return ended("dropped", "the host has changed since the plan; the next pass looks again")
    try:
        for action in step.actions:
            host.forget()
            action.run(host)
    except HostError as error:
        return ended("failed", str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return ended("failed", f"{where}{error.strerror or error}")
    wrong = _wrong(resource, get_kind, host)
    return ended("done") if wrong is None else ended("failed", wrong)


def _look(resource: Resource[Any], get_kind: GetKind, host: Host) -> Observation[Any]:
    return observe((resource,), get_kind, host)[resource.id]


def _wrong(resource: Resource[Any], get_kind: GetKind, host: Host) -> str | None:
    """What is still not as it should be, with what the host tells about it; None when all is."""
    kind = get_kind(resource.kind)
    seen = _look(resource, get_kind, host)
    if seen.unknown is not None:
        return f"done, but cannot look at it any more: {seen.unknown}"
    left = difference(resource, seen, kind)
    if not left:
        return None
    evidence = kind.evidence(resource, host)
    words = f"still wrong after it was done: {in_words(left)}"
    return f"{words} ({evidence})" if evidence else words


def _settled(
    outcomes: list[Outcome],
    by_id: dict[str, Resource[Any]],
    last_start: float,
    get_kind: GetKind,
    host: Host,
    told: OnOutcome,
) -> list[Outcome]:
    """The outcomes after those steps that must hold for a while have had the time to break."""
    times = [
        kind.settle
        for outcome in outcomes
        if outcome.result == "done" and (kind := get_kind(by_id[outcome.step.id].kind)).settle
    ]
    if not times:
        return outcomes
    left = max(times) - (host.clock.monotonic() - last_start)
    if left > 0:
        host.clock.sleep(left)
    settled = []
    for outcome in outcomes:
        resource = by_id[outcome.step.id]
        if outcome.result == "done" and get_kind(resource.kind).settle:
            wrong = _wrong(resource, get_kind, host)
            if wrong is not None:
                outcome = replace(outcome, result="failed", error=wrong)
                told(outcome)
        settled.append(outcome)
    return settled
