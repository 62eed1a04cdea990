"""A look at the host that ends in time, whatever hangs: each kind is observed in a child.

It must not change anything, nor decide. What did not answer is unknown, never absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.core.kind import GetKind, Kind, Orphans
from reconciler.core.model import Observation, Resource, Spec
from reconciler.core.observe import observe
from reconciler.core.plan import observed_kinds
from reconciler.host.child import Children
from reconciler.host.filesystems import served

if TYPE_CHECKING:
    from reconciler.host import Host

Found = tuple[list[Resource[Any]], dict[str, Observation[Any]]]
"""What is declared no more and was found all the same, and what was seen of all, by id."""


def observe_isolated(
    resources: Iterable[Resource[Any]], get_kind: GetKind, host: Host, seconds: float
) -> dict[str, Observation[Any]]:
    """A look at all resources that are not skipped, by id, within so many seconds."""
    with Children() as children:
        asked = begin(children, observed_kinds(resources), {}, get_kind, host, seconds)
        children.wait()
        return gathered(children, asked)[1]


def look_isolated(
    spec: Spec, get_kind: GetKind, host: Host, seconds: float
) -> tuple[Spec, dict[str, Observation[Any]]]:
    """The same of the whole spec, which comes back with what it has left and no more declares."""
    with Children() as children:
        asked = begin_all(children, spec, get_kind, host, seconds)
        children.wait()
        return with_found(spec, *gathered(children, asked))


def begin_all(
    children: Children, spec: Spec, get_kind: GetKind, host: Host, seconds: float
) -> dict[str, list[Resource[Any]]]:
    """Begin to look at all that the spec declares, and has left."""
    groups = observed_kinds(spec.resources)
    whole: dict[str, list[Resource[Any]]] = {name: [] for name in spec.empty}
    for name in host.marks.kinds():
        whole.setdefault(name, [])
    for resource in spec.resources:
        whole.setdefault(resource.kind, []).append(resource)
    asked = {name: groups.get(name, []) for name in whole}
    return begin(children, asked, whole, get_kind, host, seconds)


def begin(
    children: Children,
    groups: Mapping[str, list[Resource[Any]]],
    whole: Mapping[str, list[Resource[Any]]],
    get_kind: GetKind,
    host: Host,
    seconds: float,
) -> dict[str, list[Resource[Any]]]:
    """Begin to look at these, by kind; of those in ``whole`` also for what was left of them."""
    asked = {}
    for name, group in groups.items():
        try:
            # Here and not in the child: what comes back needs the module anyway.
            kind = get_kind(name)
        except KeyError:
            continue  # A mark of a kind that this program does not know is left as well.
        for point, part in _by_server(kind, group).items():
            label = f"observe {name}" + (f" on {point}" if point else "")
            asked[label] = part
            orphans = None if point else whole.get(name)
            work = partial(_look, name, part, orphans, get_kind, host)
            children.begin(label, work, seconds)
    return asked


def _by_server(kind: Kind[Any, Any], group: list[Resource[Any]]) -> dict[str, list[Resource[Any]]]:
    """Those that are about a file system with a server, by where that is mounted, so that one
    which does not answer has the others known; under the empty string all the others."""
    points = served()
    if not points:
        return {"": group}
    found: dict[str, list[Resource[Any]]] = {"": []}
    for one in group:
        keys = (*kind.uses(one.want), *(claim.key for claim in kind.claims(one.want)))
        paths = [f"{key.value}/" for key in keys if key.sort == "path"]
        on = [point for point in points if any(path.startswith(f"{point}/") for path in paths)]
        found.setdefault(max(on, key=len, default=""), []).append(one)
    return found


def gathered(children: Children, asked: Mapping[str, list[Resource[Any]]]) -> Found:
    """What all of them have seen; what did not answer is unknown."""
    orphans: list[Resource[Any]] = []
    seen: dict[str, Observation[Any]] = {}
    for name, group in asked.items():
        if name in children.answers:
            found, observations = children.answers[name]
            orphans += found
            seen |= observations
        else:
            why = children.silent[name]
            point = name.partition(" on ")[2]
            if point:
                why = f"the file system mounted on {point} has not answered: {why}"
            unknown: Observation[Any] = Observation(unknown=why)
            seen |= dict.fromkeys((resource.id for resource in group), unknown)
    return orphans, seen


def with_found(
    spec: Spec, orphans: list[Resource[Any]], seen: dict[str, Observation[Any]]
) -> tuple[Spec, dict[str, Observation[Any]]]:
    """The spec with the orphans behind all that it declares."""
    from reconciler.base.records import replace

    return (replace(spec, resources=(*spec.resources, *orphans)) if orphans else spec), seen


def _look(
    name: str,
    group: list[Resource[Any]],
    whole: list[Resource[Any]] | None,
    get_kind: GetKind,
    host: Host,
) -> Found:
    """The child's side."""
    found: list[Resource[Any]] = []
    kind = get_kind(name)
    if whole is not None and isinstance(kind, Orphans):
        try:
            found = list(kind.orphans(whole, host))
        except (HostError, OSError):
            found = []  # What cannot be looked at is said of what is declared.
    return found, observe([*group, *found], get_kind, host, fresh=False)
