"""What runs: processor, memory, age, threads, open files and command line of each.

It must not signal anything. It is called in a child of its own; psutil is loaded only there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.host.processes import Identity, look_up

if TYPE_CHECKING:
    import psutil

_WATCHED = 0.25
"""Seconds over which the use of the processor is taken."""
_CHILDREN = 20
_LONGEST = 2000
_SECRET = re.compile(
    r"(?i)((?:^|[\s'\"-])[\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key)[\w-]*[=\s:]\s*)"
    r"(\S+)"
)
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")
_DEAF = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)\S*(?:hook|token|key|secret)\S*")


def censored(text: str) -> str:
    """A command line without what looks like a secret."""
    text = _LOGIN.sub("***@", text)
    text = _DEAF.sub(r"\1***", text)
    return _SECRET.sub(r"\1***", text)


def measured(wanted: Mapping[str, Sequence[Identity]]) -> list[dict[str, Any]]:
    """Of each id's processes: what it uses, and what it has started. Memory is in bytes."""
    import psutil

    found: list[tuple[str, Identity, psutil.Process, float]] = []
    for ident, identities in wanted.items():
        for one in identities:
            entry = look_up(one.pid)
            if entry is None or entry.identity != one:
                continue
            try:
                process = psutil.Process(one.pid)
                found.append((ident, one, process, sum(process.cpu_times()[:4])))
            except psutil.Error:
                continue
    began = time.monotonic()
    if found:
        time.sleep(_WATCHED)
    passed = time.monotonic() - began
    rows = []
    for ident, one, process, before in found:
        row = _row(process, one)
        if row is not None:
            try:
                used = sum(process.cpu_times()[:4]) - before
            except psutil.Error:
                used = 0.0
            percent = round(max(0.0, used) / passed * 100, 1)
            rows.append({"id": ident, **row, "cpu": percent, "children": _children(process)})
    return rows


def _row(process: psutil.Process, identity: Identity) -> dict[str, Any] | None:
    import psutil

    entry = look_up(identity.pid)
    if entry is None or entry.identity != identity:
        return None
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start / os.sysconf("SC_CLK_TCK")
    try:
        with process.oneshot():
            row = {
                "pid": identity.pid,
                "state": entry.state,
                "memory": process.memory_info().rss,
                "threads": process.num_threads(),
                "user": process.username(),
                "uptime": round(max(0.0, uptime), 1),
                "command": _command(process),
            }
    except (psutil.Error, OSError):
        return None
    try:
        row["open_files"] = process.num_fds()
    except (psutil.Error, OSError):
        row["open_files"] = None
    if entry.state == "D":
        row["waits_in"] = _waits_in(identity.pid)
    return row


def _command(process: psutil.Process) -> str:
    return censored(" ".join(process.cmdline()))[:_LONGEST] or f"[{process.name()}]"


def _children(process: psutil.Process) -> list[dict[str, Any]]:
    import psutil

    found = []
    try:
        below = process.children(recursive=True)[:_CHILDREN]
    except psutil.Error:
        return []
    for child in below:
        entry = look_up(child.pid)
        try:
            command = _command(child)
        except (psutil.Error, OSError):
            continue
        if entry is not None:
            found.append({"pid": child.pid, "state": entry.state, "command": command})
    return found


def _waits_in(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            return file.read(100) or None
    except OSError:
        return None
