"""Who has called this program: a person, cron, systemd, or another program.

It must not be relied upon for anything but telling people.
"""

from __future__ import annotations

import os

from reconciler.host.processes import look_up

_CRONS = ("cron", "crond", "anacron", "busybox")


def caller() -> str:
    """``person``, ``cron``, ``systemd`` or ``program``."""
    if any(_is_terminal(number) for number in (0, 1, 2)) or _in_foreground():
        return "person"
    pid = os.getppid()
    for _ in range(16):
        if _name(pid) in _CRONS:
            return "cron"
        entry = look_up(pid)
        if entry is None or entry.parent <= 1:
            break
        pid = entry.parent
    # systemd.exec(5): set for all that a service starts.
    return "systemd" if "INVOCATION_ID" in os.environ else "program"


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False


def _in_foreground() -> bool:
    """Does a terminal wait for us, wherever our own output goes? proc(5), ``tpgid``."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return len(fields) > 5 and fields[2] == fields[5]


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip().lower()
    except OSError:
        return ""
