"""Desired and observed, to a plan. No I/O: it must not look at the host, nor change it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reconciler.base.errors import Remedy
from reconciler.base.records import replace
from reconciler.base.text import error_in_words
from reconciler.core.kind import (
    Ageing,
    Described,
    Following,
    GetKind,
    Kind,
    Modifying,
    Orphans,
    Supervised,
)
from reconciler.core.model import (
    Ailment,
    Change,
    Observation,
    Past,
    Plan,
    Remark,
    Report,
    Resource,
    Spec,
    Step,
    in_words,
    verb,
)
from reconciler.core.restart_policy import in_words as time_in_words

STARTS = ("create", "start", "restart")
"""The verbs of steps behind which something runs or is there that was not before."""
_NOTHING = Past()


def difference(
    resource: Resource[Any], observation: Observation[Any], kind: Kind[Any, Any]
) -> tuple[Change, ...]:
    """What differs between the resource and what was seen of it; empty when it is unknown."""
    if observation.unknown is not None:
        return ()
    expected = kind.expected(resource.want) if resource.present else None
    have = observation.state
    if expected == have:
        return ()
    return kind.changes(expected, have)


def is_matched(ident: str, pattern: str) -> bool:
    """Is this one of what people mean by ``pattern``? An id, a shell pattern, or, as in
    ``needs``, the name of a group that ``for_each`` has made."""
    from fnmatch import fnmatchcase

    # "process:x[1]" is meant as it stands, not as a set of characters.
    return ident == pattern or ident.startswith(f"{pattern}[") or fnmatchcase(ident, pattern)


def chosen(spec: Spec, patterns: Sequence[str]) -> tuple[Resource[Any], ...]:
    """The resources that match a pattern, with all that they need; all, without a pattern.

    Raises KeyError with a pattern that matches nothing.
    """
    if not patterns:
        return spec.resources
    by_id = {resource.id: resource for resource in spec.resources}
    todo: list[str] = []
    for pattern in patterns:
        # An id is itself alone, which is not looked for among all others.
        found = (
            [pattern] if pattern in by_id else [name for name in by_id if is_matched(name, pattern)]
        )
        if not found:
            raise KeyError(pattern)
        todo += found
    wanted: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in wanted and name in by_id:
            wanted.add(name)
            todo += by_id[name].needs
    return tuple(resource for resource in spec.resources if resource.id in wanted)


def ending(resources: Sequence[Resource[Any]]) -> tuple[Resource[Any], ...]:
    """All of these as absent ones, where they stand in the order in which they are begun.

    They end in reverse, and each waits for those that need it. Of two that are absent already the
    order is that of their ends.
    """
    present = {one.id: one.present for one in resources}
    behind: dict[str, list[str]] = {}
    for one in resources:
        for other in one.needs:
            if other in present and (one.present or present[other]):
                behind.setdefault(other, []).append(one.id)
    return tuple(
        replace(one, present=False, needs=tuple(behind.get(one.id, ())), after=())
        for one in reversed(resources)
    )


def looked_at(
    spec: Spec, resources: Sequence[Resource[Any]], get_kind: GetKind
) -> Sequence[Resource[Any]]:
    """Those that have to be looked at so that these are seen as in a look at all of them."""
    kinds = {one.kind for one in resources}
    kinds = {name for name in kinds if isinstance(get_kind(name), Orphans)}
    if not kinds:
        return resources
    ids = {one.id for one in resources}
    return [one for one in spec.resources if one.id in ids or one.kind in kinds]


def make_plan(
    spec: Spec,
    resources: Sequence[Resource[Any]],
    observations: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: str,
    past: Past = _NOTHING,
) -> Plan:
    """The plan for ``resources``, which stand in their order.

    ``observations`` has one for every resource that is not skipped.
    """
    steps: list[Step] = []
    unknown: list[Remark] = []
    skipped: list[Remark] = []
    notes: list[Remark] = []
    held: list[Remark] = []
    failing: list[Remark] = []
    given_up: list[str] = []
    blocked: dict[str, str] = {}
    planned: set[str] = set()
    demands = _demands(observations, past)

    def consider(resource: Resource[Any]) -> None:
        name = resource.id
        if resource.skip is not None:
            skipped.append(Remark(name, f"when: {resource.skip}"))
            return
        if name in past.paused:
            skipped.append(Remark(name, f"paused: {past.paused[name]}"))
            return
        if resource.held is not None:
            unknown.append(Remark(name, f"left alone: {resource.held}"))
            blocked[name] = f"{name}, which is left alone: {resource.held}"
            return
        kind = get_kind(resource.kind)
        seen = observations[name]
        if seen.unknown is not None:
            unknown.append(Remark(name, seen.unknown, remedy=seen.remedy))
            blocked[name] = f"{name}, which is unknown: {seen.unknown}"
            return
        if not planned.intersection(resource.needs):
            notes.extend(_notes(name, seen, past))
        if seen.unsure is not None:
            unknown.append(Remark(name, seen.unsure))
            blocked[name] = f"{name}, of which not all is known: {seen.unsure}"
        if seen.ending is not None:
            blocked[name] = f"{name}, which has not ended yet: {seen.ending}"
        if seen.failing is not None:
            failing.append(Remark(name, seen.failing))
            blocked[name] = f"{name}, which fails: {seen.failing}"
        if seen.pending is not None:
            if isinstance(kind, Supervised):
                notes.append(Remark(name, seen.pending))
            blocked[name] = f"{name}, which is {seen.pending}"
        changes = difference(resource, seen, kind)
        reasons: Mapping[str, str] = {}
        if not changes:
            if resource.present and seen.state is not None and isinstance(kind, Supervised):
                reasons = demands.get(name, {})
            if not reasons:
                return
        if seen.state is None and isinstance(kind, Modifying):
            # What is about to be made is made as it asks; else nothing will be there.
            if not planned.intersection(resource.needs):
                notes.append(Remark(name, "nothing is there that it could be set on"))
            return
        hindrance = next((blocked[need] for need in resource.needs if need in blocked), None)
        if hindrance is not None:
            skipped.append(Remark(name, f"needs {hindrance}"))
            blocked[name] = hindrance
            return
        ailing = {ailment.of for ailment in _counting(name, seen, past)}
        of = ailing if reasons.keys() == {name} else ()
        step = _step(resource, seen, kind, changes, reasons, tuple(sorted(of)))
        if not step.actions:
            return
        hold = past.holds.get(name) if may_wait(step, kind) else None
        if hold is not None:
            held.append(Remark(name, f"{step.why}; {hold.words}"))
            blocked[name] = f"{name} ({hold.words})"
            given_up.extend([name] if hold.final else [])
            return
        planned.add(name)
        if seen.denied is not None:
            by_hand: tuple[Remedy, ...] = ()
            if isinstance(kind, Described):
                by_hand = tuple(kind.by_hand(resource, seen.state, changes))
            step = replace(step, denied=seen.denied, by_hand=by_hand)
        steps.append(step)

    for resource in resources:
        try:
            consider(resource)
        except Exception as error:
            # A fault of ours: the others are planned all the same.
            words = error_in_words(error)
            unknown.append(Remark(resource.id, words))
            blocked[resource.id] = f"{resource.id}, which is unknown: {words}"
    return Plan(
        spec.name,
        spec.path,
        host,
        sum(not resource.orphan for resource in resources),
        tuple(steps),
        tuple(unknown),
        tuple(skipped),
        tuple(notes),
        tuple(held),
        tuple(failing),
        tuple(given_up),
    )


def may_wait(step: Step, kind: Kind[Any, Any]) -> bool:
    """Is it a start that waits after failed ones? What runs, of an older version, need not."""
    return step.verb in STARTS and not (isinstance(kind, Supervised) and kind.renews(step.changes))


def _demands(observations: Mapping[str, Observation[Any]], past: Past) -> dict[str, dict[str, str]]:
    """What is to be started anew although nothing differs: by id, who asks for it and why."""
    found: dict[str, dict[str, str]] = {}
    for name, seen in observations.items():
        words = [ailment.words for ailment in _counting(name, seen, past)]
        if words:
            found.setdefault(name, {})[name] = "; ".join(words)
        for other in seen.demands if name not in past.paused else ():
            found.setdefault(other, {})[name] = f"{name}: {seen.failing}"
    return found


def _lasted(name: str, ailment: Ailment, past: Past) -> float:
    return past.lasting.get((name, ailment.what, ailment.of), 0.0)


def _counting(name: str, seen: Observation[Any], past: Past) -> list[Ailment]:
    """The ailments that have lasted for long enough."""
    return [one for one in seen.ailments if _lasted(name, one, past) >= one.lasting]


def _notes(name: str, seen: Observation[Any], past: Past) -> list[Remark]:
    """What is worth telling, and what ails for not long enough yet, as one note."""
    words = [seen.note] if seen.note is not None else []
    gist = list(words)
    for ailment in seen.ailments:
        lasted = _lasted(name, ailment, past)
        if lasted < ailment.lasting:
            time = f"{lasted:.0f} s of {time_in_words(ailment.lasting)}"
            words.append(f"{ailment.words}, so far for {time}")
            gist.append(f"{ailment.what} {ailment.of}")
    return [Remark(name, "; ".join(words), "; ".join(gist))] if words else []


def _step(
    resource: Resource[Any],
    seen: Observation[Any],
    kind: Kind[Any, Any],
    changes: tuple[Change, ...],
    reasons: Mapping[str, str],
    of: tuple[str, ...],
) -> Step:
    """What removes the changes, or else starts it anew for those reasons."""
    if reasons and isinstance(kind, Supervised):
        words = "; ".join(reasons.values())
        changes = (Change("health", words, "well"),)
        actions = kind.restart(resource, seen.state, of)
        asked = tuple(reasons)
        return Step(
            resource.id, "restart", changes, actions, words, resource.needs, demanded=asked, of=of
        )
    expected = kind.expected(resource.want) if resource.present else None
    actions = kind.actions(resource, seen.state, changes)
    what = (kind.verb if isinstance(kind, Described) else verb)(expected, seen.state)
    return Step(resource.id, what, changes, actions, drift(kind, changes), resource.needs)


def drift(kind: Kind[Any, Any], changes: Sequence[Change]) -> str:
    """The changes in words, for people."""
    return (kind.words if isinstance(kind, Described) else in_words)(changes)


def to_look_at_again(
    seen: Collection[str], resources: Sequence[Resource[Any]], report: Report, get_kind: GetKind
) -> list[str]:
    """Of what was ``seen``, what the pass itself may have made wrong, or has planned too early.

    That is what is about things that others make, when something was made; what goes by age, when
    another such one has moved files; and what was dropped or left something alone because the
    host had moved: it was most likely the pass that moved it.
    """
    moved = {one.step.id for one in report.outcomes if one.moved}
    done = {outcome.step.id for outcome in report.outcomes if outcome.result == "done"}
    broken = {one.step.id for one in report.outcomes if one.step.id not in done | moved}
    # What has failed is tried once in a pass.
    failed = {outcome.step.id for outcome in report.outcomes if outcome.result == "failed"} - moved
    acted = [get_kind(one.kind) for one in resources if one.id in done]
    made = any(not isinstance(kind, Following) for kind in acted)
    aged = {
        one.id for one in resources if one.id in done and isinstance(get_kind(one.kind), Ageing)
    }
    found: list[str] = []
    for resource in resources:
        kind = get_kind(resource.kind)
        others = done - {resource.id}
        follows = isinstance(kind, Following)
        again = follows and made
        # With what it needs, if that is done only now.
        late = follows or bool(others) or not set(resource.needs).isdisjoint(found)
        again = again or (resource.id in moved and late)
        again = again or (isinstance(kind, Ageing) and not others.isdisjoint(aged))
        again = again and resource.id not in failed
        if again and resource.id in seen and not broken.intersection(resource.needs):
            found.append(resource.id)
    return found


def to_do_again(
    spec: Spec,
    again: Collection[str],
    seen: Mapping[str, Observation[Any]],
    report: Report,
    get_kind: GetKind,
) -> tuple[Spec, list[str]]:
    """The spec for a short pass behind that of the report, and what that is about.

    That is ``again``, what one step did only a part of, and what it has reached beside its own; but
    what goes by age does no more than it may in one pass.
    """
    acted = {one.step.id: one.step.actions for one in report.outcomes if one.result == "done"}
    reached = {getattr(action, "other", None) for one in acted.values() for action in one}
    resources, found = [], []
    for resource in spec.resources:
        wanted = resource.id in again or resource.id in reached
        wanted = wanted or (resource.id in acted and seen[resource.id].more)
        kind = get_kind(resource.kind)
        if wanted and isinstance(kind, Ageing) and resource.id in acted:
            want = kind.rest(resource.want, acted[resource.id])
            wanted = want is not None
            resource = resource if want is None else replace(resource, want=want)
        resources.append(resource)
        found += [resource.id] if wanted else []
    return replace(spec, resources=tuple(resources)), found


def observed_kinds(resources: Iterable[Resource[Any]]) -> dict[str, list[Resource[Any]]]:
    """The resources that are to be looked at, by kind, in their order."""
    groups: dict[str, list[Resource[Any]]] = {}
    for resource in resources:
        if resource.skip is None:
            groups.setdefault(resource.kind, []).append(resource)
    return groups


def needed_by(step: Step, broken: Collection[str]) -> str | None:
    """The first of the step's needs that is broken, or None."""
    return next((need for need in step.needs if need in broken), None)
