"""Looks at the host, before a pass and after each step: a whole section at once.

It must not change anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.base.text import error_in_words
from reconciler.core.claims import Key
from reconciler.core.kind import (
    Diagnosed,
    GetKind,
    Kind,
    Orphans,
    Prefetched,
    Running,
    Supervised,
    Verified,
)
from reconciler.core.model import (
    LATE,
    Observation,
    Outcome,
    Past,
    Plan,
    Resource,
    Spec,
    Step,
    not_known,
)
from reconciler.core.plan import drift, make_plan, observed_kinds

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity


def begin(resources: Iterable[Resource[Any]], get_kind: GetKind, host: Host) -> None:
    """Begin what takes its time in a look at all of them. ``host.let_go`` ends what is left."""
    for name, group in observed_kinds(resources).items():
        kind = get_kind(name)
        if isinstance(kind, Prefetched):
            with suppress(Exception):  # What goes wrong is said by who waits for it.
                kind.begin(group, host)


def with_orphans(spec: Spec, get_kind: GetKind, host: Host) -> Spec:
    """The spec and, behind all that it declares, what it has left on the host and no more does.

    Never raises for the host: what cannot be looked at is said of what is declared.
    """
    if spec.last_good:
        return spec  # It does not know what is declared by now.
    groups: dict[str, list[Resource[Any]]] = {name: [] for name in spec.empty}
    for resource in spec.resources:
        groups.setdefault(resource.kind, []).append(resource)
    for name in host.marks.kinds():
        groups.setdefault(name, [])
    found: list[Resource[Any]] = []
    for name, group in groups.items():
        try:
            kind = get_kind(name)
            if isinstance(kind, Orphans):
                found += kind.orphans(group, host)
        except Exception:
            continue  # A mark of a kind that this program does not know is left as well.
    return replace(spec, resources=(*spec.resources, *found)) if found else spec


def observe(
    resources: Iterable[Resource[Any]], get_kind: GetKind, host: Host, fresh: bool = True
) -> dict[str, Observation[Any]]:
    """A look at all resources that are not skipped, by id. Never raises for the host.

    ``fresh`` False: what the host remembers was seen just now.
    """
    if fresh:
        host.forget()
    seen: dict[str, Observation[Any]] = {}
    for name, group in observed_kinds(resources).items():
        kind = get_kind(name)
        try:
            found = kind.observe(group, host)
        except UnknownState as error:
            found = [not_known(error)] * len(group)
        except Exception:
            # Whatever it has to do with one of them, the others are seen.
            found = [_alone(kind, resource, host) for resource in group]
        for resource, observation in zip(group, found, strict=True):
            seen[resource.id] = observation
    return seen


def judged(
    spec: Spec,
    resources: Sequence[Resource[Any]],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
    past: Past,
    part: bool = False,
) -> tuple[Plan, Mapping[str, Observation[Any]]]:
    """The plan for what was seen, by which every mode says how things stand.

    What only the host shows to contradict one another comes back as unknown. ``part``: of the
    others of the spec nothing was seen.
    """
    name = os.uname().nodename
    plan = make_plan(spec, resources, seen, get_kind, name, past)
    if plan.steps:
        from reconciler.core.owners import contradictions

        # Of the others nobody knows whether they differ.
        ids = seen.keys() if part else {step.id for step in plan.steps}
        found = contradictions(ids, spec.resources, seen, get_kind, host)
        if found:
            unknown: dict[str, Observation[Any]] = {
                one: Observation(unknown=found[one]) for one in found.keys() & seen.keys()
            }
            seen = {**seen, **unknown}
            plan = make_plan(spec, resources, seen, get_kind, name, past)
    if spec.policy is not None and plan.steps:
        from reconciler.core.policy import enforced

        plan = enforced(plan, spec.policy, resources, get_kind)
    return plan, seen


def _alone(kind: Kind[Any, Any], resource: Resource[Any], host: Host) -> Observation[Any]:
    try:
        return kind.observe((resource,), host)[0]
    except HostError as error:
        return not_known(error)
    except Exception as error:
        return Observation(unknown=error_in_words(error))


def watched(
    kind: Kind[Any, Any], resource: Resource[Any], state: Any, host: Host
) -> list[Identity]:
    """The processes that it is now; none where that cannot be known, which a look says."""
    if not isinstance(kind, Running):
        return []
    try:
        return list(kind.watch(resource, state, host))
    except Exception:
        return []


def shown(kind: Kind[Any, Any], resource: Resource[Any], host: Host) -> list[Key]:
    """What a diagnosis should look into; nothing where that cannot be known."""
    if not isinstance(kind, Diagnosed):
        return []
    try:
        return list(kind.shows(resource, host))
    except Exception:
        return []


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A look at the host: what was seen, by id, and what is to be done about it.

    ``only`` are the patterns of what was looked at; empty means all. ``begun`` is when it began, by
    the monotonic clock, where it may be acted on at once.
    """

    spec: Spec
    plan: Plan
    seen: Mapping[str, Observation[Any]]
    only: tuple[str, ...] = ()
    begun: float = float("-inf")


def failure(error: Exception) -> str:
    """Why a step has failed, in words."""
    if isinstance(error, OSError) and not isinstance(error, HostError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return error_in_words(error)


Wrong = tuple[str, str | None]
"""What is wrong after a step, and what lives on of it all the same."""


def still_wrong(
    steps: Sequence[tuple[Step, Resource[Any]]],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
) -> dict[str, Wrong | None]:
    """Of each, what is still not as it should be, with what the host tells about it; or None."""
    found: dict[str, Wrong | None] = {}
    for step, resource in steps:
        try:
            found[step.id] = _what_is_wrong(step, resource, seen[step.id], get_kind, host)
        except Exception as error:
            found[step.id] = f"done, but cannot look at it any more: {failure(error)}", None
    return found


def _what_is_wrong(
    step: Step, resource: Resource[Any], seen: Observation[Any], get_kind: GetKind, host: Host
) -> Wrong | None:
    kind = get_kind(resource.kind)
    if seen.unknown is not None:
        return f"done, but cannot look at it any more: {seen.unknown}", None
    expected = kind.expected(resource.want) if resource.present else None
    left = kind.changes(expected, seen.state)
    if isinstance(kind, Verified):
        left = kind.left(step.actions, left, seen.state)
    failing = seen.failing if isinstance(kind, Supervised) else None
    for one in seen.ailments:
        failing = failing or (one.words if one.what == LATE else None)
    if not left and failing is None:
        return None
    evidence = seen.lives_on
    if evidence is None and isinstance(kind, Diagnosed):
        evidence = kind.evidence(resource, host)
    if failing is not None:
        words = failing
    elif resource.present and seen.state is None and isinstance(kind, Supervised):
        from reconciler.core.messages import EXITED

        words = EXITED
    else:
        words = f"no effect: {drift(kind, left)}"
    return f"{words}: {evidence}" if evidence else words, seen.lives_on


def proved(
    outcomes: Sequence[tuple[Outcome, Resource[Any]]], get_kind: GetKind, host: Host
) -> list[Outcome]:
    """The outcomes of steps that were done, after another look whether they have held."""
    seen = observe([resource for _, resource in outcomes], get_kind, host)
    steps = [(outcome.step, resource) for outcome, resource in outcomes]
    wrong = still_wrong(steps, seen, get_kind, host)
    found = []
    for outcome, _ in outcomes:
        problem = wrong[outcome.step.id]
        if problem is not None:
            words, lives_on = problem
            outcome = replace(outcome, result="failed", error=words, lives_on=lives_on)
        found.append(outcome)
    return found
