"""What no plan may do, whatever the spec asks for. No I/O.

It must not change a plan but to refuse it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from reconciler.base.records import dataclass, replace
from reconciler.base.text import count_of
from reconciler.core.fields import Patterns, choice, integer
from reconciler.core.kind import GetKind
from reconciler.core.model import Plan, Remark, Resource, Step
from reconciler.core.plan import is_matched

VERBS = ("create", "update", "delete", "start", "stop", "restart")
_GOES = ("delete", "stop")
"""The verbs of steps that take a resource away."""


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """A plan that breaks it is refused whole, in every mode."""

    protect: Patterns = ()
    """Globs for ids and paths of what is not taken away: deleted, moved, archived or stopped."""
    max_deletes: Annotated[int, integer(0, 1_000_000_000)] | None = None
    """So many files and resources a plan may delete."""
    deny: tuple[Annotated[str, choice(*VERBS)], ...] = ()
    """What no step may do: create, update, delete, start, stop, restart."""


def enforced(
    plan: Plan, policy: PlanPolicy, resources: Iterable[Resource[Any]], get_kind: GetKind
) -> Plan:
    """The plan, or one without any step which says what breaks the policy, and why."""
    by_id = {one.id: one for one in resources}
    broken: dict[str, str] = {}
    deletes: dict[str, int] = {}
    for step in plan.steps:
        gone = list(_deleted(step))
        if gone or step.verb == "delete":
            deletes[step.id] = len(gone) or 1
        denied = next((verb for verb in policy.deny if _does(verb, step, gone)), None)
        held = _protected(step, policy.protect, by_id, get_kind) if policy.protect else None
        if denied is not None:
            broken[step.id] = f"deny: [{denied}]"
        elif held is not None:
            broken[step.id] = f"protect: {held}"
    number = sum(deletes.values())
    if policy.max_deletes is not None and number > policy.max_deletes:
        words = f"max_deletes: {policy.max_deletes:,}, and it deletes {number:,}"
        broken = {**dict.fromkeys(deletes, words), **broken}
    return _refused(plan, broken) if broken else plan


def _refused(plan: Plan, broken: Mapping[str, str]) -> Plan:
    refused, others = [], []
    first = next(step.id for step in plan.steps if step.id in broken)
    rest = f" and {count_of(len(broken) - 1, 'other')}" if len(broken) > 1 else ""
    for step in plan.steps:
        if step.id in broken:
            actions = "; ".join(action.describe() for action in step.actions[:3])
            words = f"refused by the policy ({broken[step.id]}): would {actions}"
            refused.append(Remark(step.id, words))
        else:
            words = f"refused with {first}{rest}, which the policy forbids: {step.why}"
            others.append(Remark(step.id, words))
    unknown, skipped = (*plan.unknown, *refused), (*plan.skipped, *others)
    return replace(plan, steps=(), unknown=unknown, skipped=skipped)


def _does(verb: str, step: Step, gone: Sequence[str]) -> bool:
    return step.verb == verb or (verb == "delete" and bool(gone))


def _deleted(step: Step) -> Iterator[str]:
    for action in step.actions:
        if getattr(action, "takes", "") == "delete":
            yield from action.taken()  # type: ignore[attr-defined]


def _protected(
    step: Step, patterns: Sequence[str], by_id: Mapping[str, Resource[Any]], get_kind: GetKind
) -> str | None:
    """What it would take away although a pattern protects it."""
    ids = [one for one in patterns if not one.startswith("/")]
    found = (path for path in _taken(step, by_id, get_kind))
    if step.verb in _GOES and any(is_matched(step.id, one) for one in ids):
        return step.id
    paths = [one for one in patterns if one.startswith("/")]
    return next((path for path in found if any(_covers(one, path) for one in paths)), None)


def _taken(step: Step, by_id: Mapping[str, Resource[Any]], get_kind: GetKind) -> Iterator[str]:
    """The paths that are gone behind it."""
    for action in step.actions:
        if getattr(action, "takes", ""):
            yield from action.taken()  # type: ignore[attr-defined]
    resource = by_id.get(step.id)
    if step.verb in _GOES and resource is not None:
        claims = get_kind(resource.kind).claims(resource.want)
        yield from (claim.key.value for claim in claims if claim.key.sort == "path")


def _covers(pattern: str, path: str) -> bool:
    """Is a path what a pattern protects, or below it?"""
    from fnmatch import fnmatchcase

    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern.rstrip('/')}/*")
