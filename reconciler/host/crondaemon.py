"""The daemon that runs what crontabs say: whether it is there, runs, and is started at boot.

It must not start it, nor read a crontab. What a boot starts is read from files: systemd itself
might hang.
"""

from __future__ import annotations

import os

from reconciler.base.errors import UnknownState
from reconciler.host.processes import pids, read_proc

_DAEMONS = (b"cron", b"crond", b"fcron", b"busybox")
"""As /proc/PID/comm has them."""
_UNITS = ("cron.service", "crond.service", "cronie.service", "fcron.service")
_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def missing() -> bool:
    """Is it plain that no cron daemon runs? A look at its pid file, else at what runs."""
    try:
        with open("/run/crond.pid", encoding="ascii") as file:
            if os.path.exists(f"/proc/{int(file.read(20))}"):
                return False
    except (OSError, ValueError):
        pass
    # systemd-cron has timers and no daemon.
    if os.path.exists("/run/systemd/generator/cron.target.wants"):
        return False
    try:
        found = (pid for pid in pids() if (read_proc(pid, "comm", 20) or b"").strip() in _DAEMONS)
        return all(_is_contained(pid) for pid in found)
    except UnknownState:
        return False


def _is_contained(pid: int) -> bool:
    """Is it a container's, and so reads no crontab of this host? It has two numbers then."""
    lines = (read_proc(pid, "status", 4096) or b"").split(b"\n")
    return any(line.startswith(b"NSpid:") and len(line.split()) > 2 for line in lines)


def installed() -> bool:
    """Is there one on this host?"""
    return any(os.path.exists(f"/usr/sbin/{name}") for name in ("cron", "crond"))


def starts_at_boot() -> bool | None:
    """Will systemd start it? None where that is not systemd's, or not known."""
    there = [n for n in _UNITS if any(os.path.exists(f"{f}/{n}") for f in _FOLDERS)]
    if not there:
        return None
    return any(wanted(name, folder) for name in there for folder in _FOLDERS)


def wanted(unit: str, folder: str) -> bool:
    """Is there a symlink in this folder of units that has that one started?"""
    try:
        below = [one for one in os.listdir(folder) if one.endswith((".wants", ".requires"))]
    except OSError:
        return False
    return any(os.path.lexists(f"{folder}/{one}/{unit}") for one in below)
