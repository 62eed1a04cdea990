"""What runs: processor, memory, age, threads, open files and command line of each.

It must not signal anything, nor show a secret of a command line. It is called in a child of its
own; psutil is loaded only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.redaction import censored

if TYPE_CHECKING:
    from reconciler.host.processes import Identity
    from reconciler.host.processtable import Row

_LONGEST = 2000


def measured(wanted: Mapping[str, Sequence[Identity]]) -> list[dict[str, Any]]:
    """Of each id's processes: what it uses, and what it has started. Memory is in bytes."""
    from reconciler.host.processtable import rows

    asked = {one for identities in wanted.values() for one in identities}
    found = {row.identity: row for row in rows(asked)}
    return [
        {"id": ident, **_told(found[one])}
        for ident, identities in wanted.items()
        for one in identities
        if one in found
    ]


def _told(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {
        "pid": row.identity.pid,
        "state": row.state,
        "memory": row.memory,
        "threads": row.threads,
        "user": row.user,
        "uptime": round(row.uptime, 1),
        "command": _shown(row.command),
        "open_files": row.open_files,
    }
    if row.state == "D":
        told["waits_in"] = row.waits_in
    children = [
        {"pid": one.pid, "state": one.state, "command": _shown(one.command)} for one in row.children
    ]
    return {**told, "cpu": round(row.cpu, 1), "children": children}


def _shown(command: str) -> str:
    return censored(command)[:_LONGEST]
