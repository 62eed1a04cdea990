"""Which process is which, from /proc, and the end of a command with all that it has started.
Must not signal anything that it cannot tell apart from a stranger with the same number.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable

from reconciler.base.errors import UnknownState
from reconciler.host.processes import ProcessEntry, look_up

GRACE = 3.0  # seconds between TERM and KILL
_LOOK = 1.0  # seconds for a look at what processes have open
_DEATH = 5.0  # seconds to wait for a killed process; longer means that the kernel holds it


def process_stat(pid: int) -> ProcessEntry | None:
    """None if there is no such process, or it cannot be looked at."""
    try:
        return look_up(pid, zombies=True)
    except UnknownState:
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
        "start_ticks": found.identity.start if found else None,
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
        and found.identity.start == known.get("start_ticks")
    )


def end_tree(
    leader: int, reserved: bool, log: os.stat_result | None, wait: Callable[[float], None]
) -> str:
    """End the group and session of `leader`, who writes to `log`, and all who descend from these.

    TERM, and KILL for what is left after GRACE. `reserved`: the leader is a child of ours that
    is not reaped, so that its number stays its own. Returns how it went, in words.
    """
    members = _tree(leader, log)
    for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process gets its TERM only then
        for member in members:
            send(member, number)
    end = time.monotonic() + GRACE
    while any(map(is_alive, members)) or (reserved and _tree(leader, None)):
        if time.monotonic() >= end:
            break
        wait(0.05)
    else:
        return "by TERM"
    end = time.monotonic() + _DEATH
    # As long as one of these lives, the number of their group cannot belong to anybody else.
    while reserved or any(map(is_alive, members)):
        if reserved:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)  # all at once: they may be forking
        members = _tree(leader, log)
        for member in members:
            send(member, signal.SIGKILL)
        if not members or time.monotonic() >= end:
            break
        wait(0.02)
    return "by KILL"


def end_writers(log: os.stat_result) -> list[int]:
    """KILL who has the file open for writing, and who descends from them; their numbers."""
    killed: list[int] = []
    for _ in range(3):  # one may have been forked while we looked
        members = _tree(None, log)
        killed += [pid for member in members if isinstance(pid := member["pid"], int)]
        for member in members:
            send(member, signal.SIGKILL)
    return sorted(set(killed))


def bound_writers(log: os.stat_result, most: int, for_good: bool = True) -> None:
    """Let who has the file open for writing, and who descends from them, make no file longer.

    It holds for what they start from then on, and while nobody looks: setrlimit(2). Not
    `for_good`: until `free_writers`.
    """
    done: set[int] = set()
    for _ in range(3):  # one may have been forked while we looked
        members = {pid: one for one in _tree(None, log) if isinstance(pid := one["pid"], int)}
        if not members.keys() - done:
            return
        for pid in members.keys() - done:
            # It may have ended, or be somebody else's.
            with contextlib.suppress(OSError, ValueError):
                now = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                least = min(most if one == resource.RLIM_INFINITY else one for one in (*now, most))
                hard = least if for_good else now[1]
                if is_alive(members[pid]):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (least, hard))
        done |= members.keys()


def free_writers(log: os.stat_result, most: int) -> None:
    """Take back from them a limit of `most` bytes that was not for good."""
    for member in _tree(None, log):
        pid = member["pid"]
        with contextlib.suppress(OSError, ValueError):
            assert isinstance(pid, int)
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            if soft == most and is_alive(member):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def _tree(leader: int | None, log: os.stat_result | None) -> list[dict[str, object]]:
    """The processes of the leader's group and session, who writes to the log, and all below them.

    Zombies and this process are left out.
    """
    found = {int(name): process_stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    alive = {
        pid: stat for pid, stat in found.items() if stat is not None and stat.state not in "ZX"
    }
    alive.pop(os.getpid(), None)
    members = {pid for pid, stat in alive.items() if leader in (stat.group, stat.session)}
    if leader is not None:
        # Also those who have left the session, but whose parent still runs.
        members.add(leader)
    if log is not None:
        members |= _writers(alive, log)
    while below := {pid for pid, s in alive.items() if s.parent in members} - members:
        members |= below
    here = boot_id()
    return [
        {"pid": pid, "start_ticks": alive[pid].identity.start, "boot_id": here}
        for pid in sorted(members)  # parents first, who would only start others in their place
        if pid in alive
    ]


def _writers(pids: Iterable[int], log: os.stat_result) -> set[int]:
    """Who has the log open for writing, as far as _LOOK goes: our own processes come first, and
    others may hold as many descriptors as they like."""
    end = time.monotonic() + _LOOK
    found: set[int] = set()
    for pid in sorted(pids, key=_is_foreign):
        # It may have ended, or be somebody else's.
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                if time.monotonic() >= end:
                    return found
                with contextlib.suppress(OSError):
                    # The permissions of the link are those of the descriptor, proc_pid_fd(5).
                    if (
                        os.path.samestat(entry.stat(), log)
                        and entry.stat(follow_symlinks=False).st_mode & 0o200
                    ):
                        found.add(pid)
                        break
    return found


def _is_foreign(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid != os.geteuid()
    except OSError:
        return True


def send(known: dict[str, object], number: int) -> None:
    """A signal to the process of an `identity`, if it still is that process."""
    pid = known.get("pid")
    if not isinstance(pid, int):
        return
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            # Looked at after pidfd_open, so that it is this process that is held.
            if is_alive(known):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
