"""Two resources that are about one file, as only the host shows: by way of a symlink or a hard
link, or since two patterns match it.

Each pass would do what the other undoes, so that both are unknown. It is asked only when
something differs, and must not change anything.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, replace
from reconciler.core.claims import Claim
from reconciler.core.kind import Following, GetKind, Modifying
from reconciler.core.model import Observation, Resource

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST = 1000
"""Paths of one resource that are looked at."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """A resource with a claim to paths, and where the fixed part of its path really leads."""

    id: str
    claim: Claim
    written: str
    real: str

    def as_written(self, path: str) -> str | None:
        """A real path as it is below what was written; None for one that is not."""
        if path != self.real and not path.startswith(f"{self.real.rstrip('/')}/"):
            return None
        return self.written + path[len(self.real) :]


def contradictions(
    ids: Collection[str],
    resources: Sequence[Resource[Any]],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
) -> dict[str, str]:
    """Those that contradict one another in what differs, by id, with the reason.

    ``ids`` may differ, and ``resources`` are all of the spec, also where only some were ``seen``.
    """
    differing = [
        one for one in resources if one.id in ids and one.id in seen and _claims(one, get_kind)
    ]
    if not differing:
        return {}
    owners = [one for each in resources for one in _owners(each, seen, get_kind, host)]
    mine = {one.id: one for one in owners}
    single: dict[str, list[_Owner]] = {}
    wide = [one for one in owners if one.claim.covers is not None]
    for one in owners:
        if one.claim.covers is None:
            single.setdefault(one.real, []).append(one)
    names: dict[tuple[int, int], list[tuple[_Owner, str]]] | None = None
    found: dict[str, str] = {}
    for resource in differing:
        owner = mine.get(resource.id)
        if owner is None:
            continue
        paths: list[tuple[str, bool]] = []
        with suppress(Exception):  # Who is to act there says what is wrong.
            paths += _paths(owner, resource, seen, get_kind, host)
        for path, directory in paths:
            both = [(other, path) for other in (*single.get(path, ()), *wide)]
            if not directory and (inode := _linked(path, host)) is not None:
                if names is None:
                    names = _linked_names(owners, single, host)
                both += names.get(inode, ())
            for other, also in both:
                field = _contradicts(owner, other, path, also, directory)
                if field is not None:
                    words = f"{owner.id} and {other.id} want different things ({field}) for {path}"
                    hint = "; declare it once, by the path that it really has"
                    if also != path:
                        hint = f", which is also {also} (a hard link); declare only one of them"
                    found.setdefault(owner.id, words + hint)
                    found.setdefault(other.id, words + hint)
    return found


def _claims(resource: Resource[Any], get_kind: GetKind) -> list[Claim]:
    """What it asks of paths, were it only that they are there, or are not."""
    kind = get_kind(resource.kind)
    claims = (one for one in kind.claims(resource.want) if one.key.sort == "path")
    return [one for one in claims if one.asks or one.of_files or not isinstance(kind, Modifying)]


def _owners(
    resource: Resource[Any],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
) -> Iterator[_Owner]:
    if resource.held or resource.skip is not None:
        return
    if resource.id in seen and seen[resource.id].unknown is not None:
        return
    for claim in _claims(resource, get_kind):
        fixed = claim.key.value
        if claim.covers is not None and (match := re.search(r"/[^/]*[*?[]", fixed)):
            fixed = fixed[: match.start()] or "/"
        try:
            above, _, name = fixed.rpartition("/")
            real = host.files.real((above or "/") if claim.itself else fixed)
        except HostError:
            continue
        if real is None:
            continue
        real = f"{real.rstrip('/')}/{name}" if claim.itself else real
        # One that makes it and one that takes it away would do so by turns.
        if not resource.present:
            claim = replace(claim, asks={"state": "absent"}, of_files=None)
        elif not isinstance(get_kind(resource.kind), Modifying):
            claim = replace(claim, asks={**claim.asks, "state": "present"})
        yield _Owner(resource.id, claim, fixed, real or "/")


def _paths(
    owner: _Owner,
    resource: Resource[Any],
    seen: Mapping[str, Observation[Any]],
    get_kind: GetKind,
    host: Host,
) -> Iterator[tuple[str, bool]]:
    """The real paths of what differs, and whether each is a directory."""
    kind = get_kind(resource.kind)
    many = []
    if isinstance(kind, Following):
        many = list(islice(kind.touched(seen[resource.id].state), _MOST))
    for path, directory in many:
        yield owner.real + path[len(owner.written) :], directory
    if not many:
        status = host.files.status(owner.written)
        yield owner.real, status is not None and stat.S_ISDIR(status.st_mode)


def _linked(path: str, host: Host) -> tuple[int, int] | None:
    """What tells a file with more than one name; None for one that has no other, or is gone."""
    try:
        status = host.files.status(path)
    except HostError:
        return None
    if status is None or status.st_nlink == 1:
        return None
    return status.st_dev, status.st_ino


def _linked_names(
    owners: Sequence[_Owner], single: Mapping[str, Sequence[_Owner]], host: Host
) -> dict[tuple[int, int], list[tuple[_Owner, str]]]:
    """Of each file with more than one name, the real ones that somebody is about, and who.

    A pattern or a tree is not about what is declared by itself below it.
    """
    found: dict[tuple[int, int], list[tuple[_Owner, str]]] = {}
    for owner in owners:
        with suppress(HostError):  # Who is to act there says so.
            for path in _names(owner, host):
                alone = {one.written for one in single.get(path, ()) if one is not owner}
                if owner.as_written(path) in alone:
                    continue
                if (inode := _linked(path, host)) is not None:
                    found.setdefault(inode, []).append((owner, path))
    return found


def _names(owner: _Owner, host: Host) -> Iterator[str]:
    """The real paths that it may be about."""
    claim = owner.claim
    tops = [owner.real]
    if claim.covers is not None:
        from reconciler.host.globs import matching

        tops = matching(host.files, owner.real + claim.key.value[len(owner.written) :], [])
    yield from tops
    for top in tops if claim.tree else ():
        for path, status in host.files.tree(top):
            if status.st_nlink > 1:
                yield path


def _contradicts(owner: _Owner, other: _Owner, path: str, also: str, directory: bool) -> str | None:
    """The first field of which both ask something else for that path, ``also`` for the other."""
    both = []
    for one, named in ((owner, path), (other, also)):
        written = one.as_written(named)
        covers = one.claim.covers
        if written is None or (covers is not None and not covers(written)):
            return None
        both.append((one.claim.covers is not None, written))
    # What is declared by itself below a pattern, by that path, was left out of it long ago.
    if both[0][0] != both[1][0] and both[0][1] == both[1][1]:
        return None
    mine, theirs = (
        one.claim.asks if directory or one.claim.of_files is None else one.claim.of_files
        for one in (owner, other)
    )
    # A new content comes in a file of its own, which is no other name of what was there.
    same = mine.keys() & theirs.keys() - ({"text"} if path != also else set())
    return next((name for name in sorted(same) if theirs[name] != mine[name]), None)
