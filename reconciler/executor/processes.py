"""The processes of a command: who they are, what limits they have, and how all of them end.
Must not signal anything that it cannot tell apart from a stranger with the same number.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.clock import Clock, boot_id
from reconciler.host.openfiles import writers
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, Processes, look_up

GRACE = 3.0  # seconds between TERM and KILL
_DEATH = 5.0  # seconds to wait for a killed process; longer means that the kernel holds it
_PROCESSES = Processes(Clock())


def identity(pid: int) -> dict[str, object]:
    """What tells this process from every other, before and after a reboot; a JSON value."""
    start = None
    with contextlib.suppress(UnknownState):
        found = look_up(pid, zombies=True)
        start = found.identity.start if found is not None else None
    return {"pid": pid, "start_ticks": start, "boot_id": boot_id()}


def is_alive(known: Mapping[str, object]) -> bool:
    """Whether the process of an `identity` still runs (a zombie does not)."""
    pid, start = known.get("pid"), known.get("start_ticks")
    if type(pid) is not int or type(start) is not int or known.get("boot_id") != boot_id():
        return False
    return _runs(Identity(start, pid))


def _runs(one: Identity) -> bool:
    try:
        return _PROCESSES.alive(one)
    except UnknownState:
        return False


def end_tree(leader: int, reserved: bool, log: int | None, wait: Callable[[float], None]) -> str:
    """End the group and session of `leader`, who writes to `log`, and all who descend from these.

    TERM, and KILL for what is left after GRACE. `log` is a descriptor. `reserved`: the leader is
    a child of ours that is not reaped, so that its number stays its own. Returns how it went, in
    words.
    """
    members = _tree(leader, log)
    _tell(members, "TERM")
    _tell(members, "CONT")  # a stopped process gets its TERM only then
    end = time.monotonic() + GRACE
    while any(map(_runs, members)) or (reserved and _tree(leader, None)):
        if time.monotonic() >= end:
            break
        wait(0.05)
    else:
        return "by TERM"
    end = time.monotonic() + _DEATH
    # As long as one of these lives, the number of their group cannot belong to anybody else.
    while reserved or any(map(_runs, members)):
        if reserved:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)  # all at once: they may be forking
        members = _tree(leader, log)
        _tell(members, "KILL")
        if not members or time.monotonic() >= end:
            break
        wait(0.02)
    return "by KILL"


def end_writers(log: int) -> list[int]:
    """KILL who has the file open for writing, and who descends from them; their numbers."""
    killed: set[int] = set()
    for _ in range(3):  # one may have been forked while we looked
        members = _tree(None, log)
        killed.update(one.pid for one in members)
        _tell(members, "KILL")
    return sorted(killed)


def _tell(members: list[Identity], name: str) -> None:
    with contextlib.suppress(HostError, OSError):  # One that we may not signal goes on.
        _PROCESSES.tell(members, name)


def bound_writers(log: int, most: int, for_good: bool = True) -> None:
    """Let who has the file open for writing, and who descends from them, make no file longer.

    It holds for what they start from then on, and while nobody looks: setrlimit(2). Not
    `for_good`: until `free_writers`.
    """
    done: set[Identity] = set()
    for _ in range(3):  # one may have been forked while we looked
        members = set(_tree(None, log)) - done
        if not members:
            return
        for one in members:
            # It may have ended, or be somebody else's.
            with contextlib.suppress(OSError, ValueError):
                now = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
                least = min(most if n == resource.RLIM_INFINITY else n for n in (*now, most))
                hard = least if for_good else now[1]
                if _runs(one):
                    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (least, hard))
        done |= members


def free_writers(log: int, most: int) -> None:
    """Take back from them a limit of `most` bytes that was not for good."""
    for one in _tree(None, log):
        with contextlib.suppress(OSError, ValueError):
            soft, hard = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
            if soft == most and _runs(one):
                resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (hard, hard))


def _tree(leader: int | None, log: int | None) -> list[Identity]:
    """The processes of the leader's group and session, who writes to the log, and all below them.

    Zombies and this process are left out.
    """
    table = ProcessSnapshot()
    entries = table.entries
    entries.pop(os.getpid(), None)
    members = {pid for pid, one in entries.items() if leader in (one.group, one.session)}
    if leader is not None:
        # Also those who have left the session, but whose parent still runs.
        members.add(leader)
    if log is not None:
        members.update(pid for pid in writers(log) if pid != os.getpid())
    # Parents first, who would only start others in their place.
    return [entries[pid].identity for pid in sorted(table.below(members)) if pid in entries]
