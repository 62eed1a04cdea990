"""Which process is which, from /proc, and signals to whole groups.
Must not signal anything that it cannot tell apart from a stranger with the same number.
"""

from __future__ import annotations

import contextlib
import os
import signal

_TO_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9; pidfd_send_signal(2)


class ProcessStat:
    """The fields of /proc/PID/stat that are used here; proc_pid_stat(5)."""

    __slots__ = ("group", "start_ticks", "state")

    def __init__(self, text: str) -> None:
        fields = text[text.rindex(")") + 2 :].split()  # the name may contain blanks and brackets
        self.state = fields[0]
        self.group = int(fields[2])
        self.start_ticks = int(fields[19])


def process_stat(pid: int) -> ProcessStat | None:
    """None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return ProcessStat(file.read())
    except (OSError, ValueError, IndexError):
        return None


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def identity(pid: int) -> dict[str, object]:
    """What tells this process from every other, before and after a reboot."""
    found = process_stat(pid)
    return {
        "pid": pid,
        "start_ticks": found.start_ticks if found else None,
        "boot_id": boot_id(),
    }


def is_alive(known: dict[str, object]) -> bool:
    """Whether the process of an `identity` still runs (a zombie does not)."""
    pid = known.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    here = boot_id()
    if not here or known.get("boot_id") != here:
        return False
    found = process_stat(pid)
    return (
        found is not None
        and found.state not in "ZX"
        and found.start_ticks == known.get("start_ticks")
    )


def group_members(group: int) -> list[int]:
    """The processes of the group that still run; zombies do not count."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = process_stat(int(name))
            if found is not None and found.group == group and found.state not in "ZX":
                members.append(int(name))
    return members


def signal_group(group: int, number: int) -> None:
    """To our own child's group, whose leader is not reaped yet: the number cannot be reused."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def signal_group_through(known: dict[str, object], group: int, number: int) -> bool:
    """To the group of a recorded process, if it still is that process and in that group."""
    pid = known.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Looked at after pidfd_open, so that it is this process that is held.
        found = process_stat(pid) if is_alive(known) else None
        if found is None or found.group != group:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number, None, _TO_GROUP)
        except OSError:  # an older kernel
            signal_group(group, number)
        return True
    finally:
        os.close(pidfd)
