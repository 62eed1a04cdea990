"""The plan that takes a pass back: what is as the pass has left it is made as it was before.

It must not act, and what somebody has changed since it leaves alone, and names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass, replace
from reconciler.base.text import count_of
from reconciler.core.kind import GetKind
from reconciler.core.model import Observation, Remark, Resource, Spec
from reconciler.core.observe import Snapshot, observe
from reconciler.core.plan import is_matched, make_plan
from reconciler.state.store.journal import DAMAGED
from reconciler.undo import Irreversible, reversal
from reconciler.undo.journal import differs, seen_now, trace
from reconciler.undo.notes import from_plain_resource, secrets_in

if TYPE_CHECKING:
    from reconciler.base.values import Secret
    from reconciler.host import Host
    from reconciler.state.store.journal import PassRow


@dataclass(frozen=True, slots=True)
class Undoing:
    """A look at what a pass has left. ``ids`` are those of the steps that are taken back."""

    look: Snapshot
    ids: tuple[str, ...]


def look_back(
    spec: Spec,
    row: PassRow,
    notes: Mapping[str, Any],
    only: Sequence[str],
    get_kind: GetKind,
    host: Host,
) -> Undoing:
    """What takes that pass back, or those steps of it that match ``only``, by the notes of each."""
    secrets = secrets_in(tuple(one.want for one in spec.resources))
    refused: list[Remark] = []
    found: dict[str, tuple[str, Resource[Any], str | None]] = {}
    made: dict[str, Resource[Any]] = {}
    for ident, note in reversed(list(notes.items())):
        # What is damaged may have been about these.
        if ":" in ident and only and not any(is_matched(ident, one) for one in only):
            continue
        try:
            taken, meant = _taken_from(note, secrets)
            for one, left in taken:
                found.setdefault(one.id, (ident, one, left))
            if meant is not None:
                made[ident] = meant
        except Irreversible as error:
            refused.append(Remark(ident, f"cannot be undone: {error}"))
    resources = [one for _, one, _ in found.values()]
    seen = seen_now(resources, get_kind, host)
    ends = seen_now(list(made.values()), get_kind, host)
    done = {i for i, one in made.items() if not differs(one, ends[one.id], get_kind)}
    resources, later = _without_moved(_emptied(resources, get_kind), seen)
    going: list[Resource[Any]] = []
    ids: dict[str, None] = {}
    for one in resources:
        ident, _, left = found[one.id]
        if not differs(one, seen[one.id], get_kind):
            continue
        now = trace(one, seen[one.id])
        if left is None and (ident in done or not _is_traced(one)):
            left = now
        if left is None or not _is_left(one, left, now, get_kind):
            since = f"was changed since pass {row.number}, and is left"
            cut = f"pass {row.number} was cut short at it, and did not leave it so; it is left"
            words = since if notes[ident].get("ended") else cut
            refused.append(Remark(one.id, seen[one.id].unknown or words))
            continue
        going.append(one)
        ids[ident] = None
    whole = replace(spec, resources=tuple(going), complete=True)
    seen = observe(going, get_kind, host, fresh=False)
    plan = make_plan(whole, going, seen, get_kind, os.uname().nodename)
    if spec.policy is not None and plan.steps:
        from reconciler.core.policy import enforced

        plan = enforced(plan, spec.policy, going, get_kind)
    of = f"undo of pass {row.number}"
    steps = tuple(replace(step, why=f"{of}: {step.why}") for step in plan.steps)
    plan = replace(
        plan, steps=steps, unknown=(*refused, *plan.unknown), notes=(*later, *plan.notes)
    )
    return Undoing(Snapshot(whole, plan, seen), tuple(ids))


def _is_left(one: Resource[Any], left: str, now: str, get_kind: GetKind) -> bool:
    """Is it as the pass has left it? Or else as it was before, where an undo was killed that had
    still to clear up."""
    how, kind = reversal(one.kind), get_kind(one.kind)
    if how is None or "?" in (left, now):
        return False
    before = how.trace(kind.expected(one.want)) if one.present else ""
    return how.is_left(left, now) or now == before


def _taken_from(
    note: Any, secrets: Mapping[str, Secret]
) -> tuple[list[tuple[Resource[Any], str | None]], Resource[Any] | None]:
    """The resources that take a step back, with their traces. Where there are none of one that was
    cut short, it comes with what it was to make, if that is known. Raises Irreversible."""
    if note is None:
        raise Irreversible("it has left the journal")
    try:
        if "why" in note:
            cut = "" if note.get("ended") else "if it was done before the pass was cut short: "
            raise Irreversible(cut + note["why"])
        resources = [from_plain_resource(one, secrets) for one in note["undo"]]
        if "left" in note:
            return list(zip(resources, map(str, note["left"]), strict=True)), None
        made, meant = note.get("made"), None
        if made is True:  # As an older program has it: what is to go.
            meant = Resource(resources[0].id, resources[0].want)
        elif made is not None:
            meant = from_plain_resource(made, secrets)
        return [(one, None) for one in resources], meant
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise Irreversible(DAMAGED) from None


def _is_traced(one: Resource[Any]) -> bool:
    how = reversal(one.kind)
    return how is None or how.traced


def _without_moved(
    resources: Sequence[Resource[Any]], seen: Mapping[str, Observation[Any]]
) -> tuple[list[Resource[Any]], list[Remark]]:
    """The same, without what is about files that are still to be moved back, and what is said of
    that: it is looked at when they are."""
    back = {
        f"{one.want.to}/{path}"
        for one in resources
        if one.kind == "retention" and (state := seen[one.id].state) is not None
        for path in state.goals()
    }
    found, notes = [], []
    for one in resources:
        former = getattr(one.want, "former", None) if one.kind == "permission" else None
        left = tuple(entry for entry in former or () if entry[0] not in back)
        if former is not None and len(left) < len(former):
            number = count_of(len(former) - len(left), "more path")
            notes.append(Remark(one.id, f"{number} to be set when moved back"))
            one = replace(one, want=replace(one.want, former=left))
        found.append(one)
    return found, notes


def _emptied(resources: Sequence[Resource[Any]], get_kind: GetKind) -> list[Resource[Any]]:
    """The same, where folders that go know what in them goes before."""
    inside: dict[str, set[str]] = {}
    for one in resources:
        for path in () if one.present else _paths(one, get_kind):
            inside.setdefault(path.rpartition("/")[0], set()).add(path)
        for file in getattr(one.want, "returned", None) or ():
            path = f"{one.want.path}/{file[1]}/{file[2]}" if file[1] else (
                f"{one.want.path}/{file[2]}"
            )  # fmt: skip
            inside.setdefault(path.rpartition("/")[0], set()).add(path)
    return [
        replace(one, want=replace(one.want, emptied=tuple(sorted(inside[one.want.path]))))
        if one.kind == "directory" and not one.present and one.want.path in inside
        else one
        for one in resources
    ]


def _paths(one: Resource[Any], get_kind: GetKind) -> Iterable[str]:
    if one.kind == "block":
        return (one.want.path,)  # Where it was made for the block alone.
    return (c.key.value for c in get_kind(one.kind).claims(one.want) if c.key.sort == "path")
