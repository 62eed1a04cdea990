"""The figures of a period: what ran, what was done, what came in, what it took.

It must not change anything. It is called in a child of its own, since a look may hang.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.core.kind import GetKind, Supervised
from reconciler.core.model import Observation, Resource
from reconciler.core.observe import shown, watched
from reconciler.core.plan import STARTS
from reconciler.host.folders import Siblings, contents
from reconciler.host.processes import Identity
from reconciler.state.store import Store

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.state.store.tables import Deed

_SCAN = 5.0
"""Seconds for counting the files of all folders."""
_CAUSES = 5


def figures(
    resources: Sequence[Resource[Any]],
    seen: Mapping[str, Observation[Any]],
    host: Host,
    since: float,
    get_kind: GetKind,
    counted: bool = False,
    used: bool = False,
) -> dict[str, Any]:
    """Those from ``since`` until now, both in seconds since the epoch, as a JSON value.

    ``counted``: the files of folders are counted by the caller, who adds them. ``used``: with what
    each process has used of the processor and of memory.
    """
    declared = [one for one in resources if one.present and one.skip is None]
    store = Store(host.state_dir, host.clock, False)
    try:
        deeds = store.history.since(since)
        troubles = store.troubles.all()
        pauses = store.pauses.all()
    finally:
        store.close()
    return {
        "from": round(since, 3),
        "to": round(time.time(), 3),
        "processes": list(_processes(declared, seen, host, get_kind, used)),
        "starts": _starts(deeds),
        "steps": {
            result: sum(one.result == result for one in deeds) for result in ("done", "failed")
        },
        "folders": [] if counted else list(_folders(declared, host, since, get_kind)),
        "disks": list(_disks(declared, get_kind)),
        "freed": sum(one.freed or 0 for one in deeds),
        "troubles": [
            {"id": ident, "event": one.event, "reason": one.reason, "since": one.wall}
            for ident, one in sorted(troubles.items())
        ],
        "pauses": [
            {"id": one.id, "reason": one.reason, "since": one.wall, "until": one.until,
             "by": one.by}
            for one in pauses.values()
        ],
    }  # fmt: skip


def _processes(
    declared: Sequence[Resource[Any]],
    seen: Mapping[str, Observation[Any]],
    host: Host,
    get_kind: GetKind,
    used: bool,
) -> Iterator[dict[str, Any]]:
    """Those that are kept running, since when they do, and what they have used since then."""
    every: dict[str, list[Identity]] = {}
    for resource in declared:
        kind, one = get_kind(resource.kind), seen.get(resource.id)
        if not isinstance(kind, Supervised) or one is None or one.unknown is not None:
            continue
        found = watched(kind, resource, one.state, host) if one.state is not None else []
        every[resource.id] = [one for one in found if host.processes.alive(one)]
    usage: dict[Identity, dict[str, Any]] = {}
    if used:
        from reconciler.host.usage import since_start

        usage = since_start([one for found in every.values() for one in found], host)
    for ident, found in every.items():
        since = [host.processes.started(identity) for identity in found]
        row: dict[str, Any] = {
            "id": ident,
            "pids": [identity.pid for identity in found],
            "since": round(min(since), 3) if since else None,
        }
        if used:
            row["usage"] = [{"pid": one.pid, **usage[one]} for one in found]
        yield row


def _starts(deeds: Sequence[Deed]) -> list[dict[str, Any]]:
    """How often what was started, by id, and why; the causes that came most often first."""
    found: dict[str, dict[str, Any]] = {}
    for deed in deeds:
        if deed.verb not in STARTS or deed.verb == "create":
            continue
        row = found.setdefault(deed.id, {"id": deed.id, "done": 0, "failed": 0, "causes": {}})
        if deed.result in row:
            row[deed.result] += 1
            row["causes"][deed.why] = row["causes"].get(deed.why, 0) + 1
    for row in found.values():
        causes = sorted(row["causes"].items(), key=lambda pair: -pair[1])
        row["causes"] = [{"why": why, "count": count} for why, count in causes[:_CAUSES]]
    return [row for row in found.values() if row["done"] or row["failed"]]


def _folders(
    declared: Sequence[Resource[Any]], host: Host, since: float, get_kind: GetKind
) -> Iterator[dict[str, Any]]:
    """How many files each folder holds, and how many of them are new."""
    end = time.monotonic() + _SCAN
    with Siblings() as siblings:
        for resource in declared:
            for key in shown(get_kind(resource.kind), resource, host):
                if key.sort != "folder":
                    continue
                with suppress(OSError, HostError):
                    found = contents(siblings, key.value, None, (since,), end)
                    yield {
                        "id": resource.id, "path": key.value, "files": found.files,
                        "new": found.recent[0], "bytes": found.size, "complete": found.complete,
                    }  # fmt: skip


def _disks(declared: Sequence[Resource[Any]], get_kind: GetKind) -> Iterator[dict[str, Any]]:
    """The file systems of all that is managed, each once. Sizes are in bytes."""
    from reconciler.host.machine import disks

    paths = [
        claim.key.value
        for resource in declared
        for claim in get_kind(resource.kind).claims(resource.want)
        if claim.key.sort == "path"
    ]
    for one, _ in disks(paths):
        yield {field: one[field] for field in ("mount", "total", "used", "free")}
