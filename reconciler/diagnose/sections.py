"""What a diagnosis sees of the host: the machine, sessions, folders, processes and logs.

It must not judge, change anything, nor read the host by itself. Each function is called in a
child of its own, and gives plain data; times are in seconds since the epoch, sizes in bytes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.text import censored, without_values
from reconciler.diagnose.loglines import analysed
from reconciler.host import machine
from reconciler.host.folders import Siblings, contents, matching, tail

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.host.usage import Row

_HOUR, _DAY = 3600.0, 86400.0
_LONGEST_COMMAND = 2000
_FILES = 30
_LAST = 3
_DEATHS = re.compile(
    r"(?P<oom>(?:Memory cgroup out of memory|Out of memory).*?: Killed process (?P<pid>\d+) "
    r"\((?P<name>[^)]*)\))"
    r"|(?P<fault>(?:traps: )?(?P<who>[^\s\[]+)\[(?P<number>\d+)\]:? "
    r"(?:segfault|general protection|trap ))"
)


def machine_figures(host: Host) -> dict[str, Any]:
    """Load, memory in bytes, and times in seconds since the epoch."""
    now = host.clock.wall()
    uptime = host.clock.since_boot()
    account = host.users.account(None)
    doubt = host.walltime.doubt()
    return {
        **machine.figures(),
        "uptime": round(uptime, 1),
        "booted": round(now - uptime, 1),
        "time": round(now, 3),
        "zone": time.strftime("%Z%z"),
        "clock": None if doubt is None else str(doubt),
        "clock_remedy": None if doubt is None else doubt.remedy,
        "user": account.name,
        "uid": account.uid,
    }


def disks(paths: Mapping[str, str]) -> list[dict[str, Any]]:
    """The file systems of those paths, each with the ids that it belongs to; sizes in bytes."""
    return [{**one, "ids": [paths[path] for path in there]} for one, there in machine.disks(paths)]


def kernel() -> dict[str, Any]:
    """What the kernel has ended, or seen crash, of late; in the order in which it was.

    Raises OSError where its messages may not be read.
    """
    deaths = []
    for at, text in machine.kernel_messages():
        death = _DEATHS.search(text)
        if death is not None:
            deaths.append(
                {
                    "time": round(at, 1),
                    "pid": int(death["pid"] or death["number"]),
                    "name": death["name"] or death["who"],
                    "how": "out of memory" if death["oom"] else "it crashed",
                    "text": censored(text.splitlines()[0])[:300],
                }
            )
    return {"deaths": deaths[-50:]}


def stopped(uid: int) -> list[dict[str, Any]]:
    """The user's processes that are stopped by a signal."""
    return [{"pid": pid, "name": name} for pid, name in machine.stopped(uid)]


def tmux_sessions(host: Host, socket: str) -> list[dict[str, Any]]:
    """Each session of the server with that ``-L`` name. Raises UnknownState."""
    found: dict[str, dict[str, Any]] = {}
    for pane in host.tmux.panes(None if socket == "default" else socket):
        session = found.setdefault(
            pane.session,
            {"socket": socket, "session": pane.session, "spec": pane.owner or None, "windows": []},
        )
        windows = session["windows"]
        if not windows or windows[-1]["window"] != pane.window:
            windows.append({"window": pane.window, "of": pane.window_mark or None, "panes": []})
        windows[-1]["panes"].append(
            {"pid": pane.pid, "dead": pane.dead, "ending": pane.ending or None}
        )
    return list(found.values())


def folders(wanted: Sequence[tuple[str, str, str | None]]) -> list[dict[str, Any]]:
    """Of each folder (id, path, pattern or None): files, the oldest, the newest, the new ones.

    Times are in seconds since the epoch. Names that begin with a dot are passed over.
    """
    with Siblings() as siblings:
        return [
            {"id": ident, "path": path, **_folder(siblings, path, match)}
            for ident, path, match in wanted
        ]


def _folder(siblings: Siblings, path: str, match: str | None) -> dict[str, Any]:
    try:
        now = time.time()
        found = contents(siblings, path, match, (now - _HOUR, now - _DAY))
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    except HostError as error:
        return {"reason": str(error)}
    oldest, newest = found.oldest, found.newest
    return {
        "match": match,
        "files": found.files,
        "bytes": found.size,
        "complete": found.complete,
        "changed_last_hour": found.recent[0],
        "changed_last_day": found.recent[1],
        "oldest": None if oldest is None else {"name": oldest[1], "time": round(oldest[0], 3)},
        "newest": None if newest is None else round(newest, 3),
        "writable": found.writable,
        "ours": found.owner == os.geteuid(),
    }


def processes(wanted: Mapping[str, Sequence[Identity]]) -> list[dict[str, Any]]:
    """Of each id's processes: what it uses, and what it has started. Memory is in bytes."""
    from reconciler.host.usage import rows

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
    return censored(command)[:_LONGEST_COMMAND]


def logs(
    named: Sequence[tuple[str, str]], globs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """What is in the logs: those ``named`` by (id, path), and those that match (id, pattern)."""
    wanted: dict[str, list[str]] = {}
    for ident, path in named:
        wanted.setdefault(path, []).append(ident)
    for ident, pattern in globs:
        for path in matching(pattern):
            wanted.setdefault(path, []).append(ident)
    return [{"path": path, "ids": ids, **_log(path)} for path, ids in list(wanted.items())[:_FILES]]


def _log(path: str) -> dict[str, Any]:
    try:
        end = tail(path)
    except FileNotFoundError:
        return {"missing": True}
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    except HostError as error:
        return {"reason": str(error)}
    now = time.time()
    # Before anything is made of it: a secret whose digits were squeezed out is not known again.
    lines = without_values("\n".join(end.lines)).split("\n")
    found = analysed(lines, now)
    said = [line.strip() for line in lines if line.strip()]
    last = found["last_time"] if found["last_time"] is not None else end.changed
    return {
        "size": end.size,
        "whole": end.whole,
        "changed": round(end.changed, 3),
        "silent": round(max(0.0, now - max(last, end.changed)), 1),
        "last": [censored(line)[:500] for line in said[-_LAST:]],
        **found,
    }
