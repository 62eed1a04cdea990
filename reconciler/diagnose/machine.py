"""The host itself: load, memory, clock, file systems, and what its kernel has said.

It must not judge, nor read the host by itself. Each function is called in a child of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.base.redaction import censored
from reconciler.host import machine

if TYPE_CHECKING:
    from reconciler.host import Host

_DEATHS = re.compile(
    r"(?P<oom>(?:Memory cgroup out of memory|Out of memory).*?: Killed process (?P<pid>\d+) "
    r"\((?P<name>[^)]*)\))"
    r"|(?P<fault>(?:traps: )?(?P<who>[^\s\[]+)\[(?P<number>\d+)\]:? "
    r"(?:segfault|general protection|trap ))"
)


def about(host: Host) -> dict[str, Any]:
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
