"""The processes of this host at one moment.

Each thing is read once, when it is first asked for. It must not outlive the look that it was made
for, nor signal anybody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property

from reconciler.base.records import dataclass
from reconciler.host.launch import MARK, VERSION
from reconciler.host.processes import (
    LEADER,
    Identity,
    ProcessEntry,
    look_up,
    owner_of,
    pids,
    read_proc,
    variables_in,
)

_MARK = f"{MARK}=".encode()
_YOUNG = 10.0
"""Seconds in which a process that was forked may yet become the program that it is to be."""
_DIGITS = 10
"""Of the number of a process, at most; int() refuses what is much longer."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A process with a mark in its environment, proc_pid_environ(5).

    ``launch`` is the number of the first process of its launch, ``version`` that of what was
    started.
    """

    identity: Identity
    mark: str
    launch: int
    version: str


CarrierCache = dict[int, dict[Identity, Carrier | None]]
"""By user, which of his processes have a mark: it stays until they end."""


class ProcessSnapshot:
    """The processes of this host, each thing as it is when it is first asked for.

    ``known`` is what earlier ones have found. With ``zombies`` those are among
    them whose parent has not asked yet how they ended. Its methods raise UnknownState.
    """

    def __init__(self, known: CarrierCache | None = None, zombies: bool = False) -> None:
        self._zombies = zombies
        self._known: CarrierCache = {} if known is None else known
        self._marked: dict[int, dict[str, dict[int, Carrier]]] = {}
        self._carriers: dict[int, dict[int, Carrier]] = {}
        self._above: dict[int, dict[int, set[str]]] = {}
        self._entries: dict[int, ProcessEntry | None] = {}
        self._owners: dict[int, int | None] = {}

    # -- who there is

    @cached_property
    def entries(self) -> dict[int, ProcessEntry]:
        """All that live, by number."""
        found = ((pid, look_up(pid, self._zombies)) for pid in pids())
        return {pid: entry for pid, entry in found if entry is not None}

    def entry(self, pid: int) -> ProcessEntry | None:
        """That one, if it lives."""
        if "entries" in self.__dict__:
            return self.entries.get(pid)
        if pid not in self._entries:
            self._entries[pid] = look_up(pid)
        return self._entries[pid]

    def lives(self, identity: Identity) -> bool:
        """Does exactly this process run?"""
        entry = self.entry(identity.pid)
        return entry is not None and entry.identity == identity

    def owner(self, pid: int) -> int | None:
        """See ``owner_of``."""
        if pid not in self._owners:
            self._owners[pid] = owner_of(pid)
        return self._owners[pid]

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for pid in pids():
            with suppress(OSError):
                found.setdefault(os.stat(f"/proc/{pid}").st_uid, []).append(pid)
        return found

    def of_user(self, uid: int) -> list[int]:
        """The numbers of all that act as that user: a quick look, which others pass."""
        return self._users.get(uid, [])

    # -- who belongs to whom

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The numbers of those that each has for children."""
        found: dict[int, list[int]] = {}
        for pid, entry in self.entries.items():
            found.setdefault(entry.parent, []).append(pid)
        return found

    @cached_property
    def members(self) -> dict[int, set[int]]:
        """The numbers of those in the session or in the group that has each number."""
        found: dict[int, set[int]] = {}
        for pid, entry in self.entries.items():
            for number in (entry.session, entry.group):
                found.setdefault(number, set()).add(pid)
        return found

    def below(self, some: Collection[int]) -> set[int]:
        """These and all that descend from them by their parents."""
        found, todo = set(some), list(some)
        while todo:
            more = [pid for pid in self.children.get(todo.pop(), ()) if pid not in found]
            found.update(more)
            todo += more
        return found

    def led(self, some: Collection[int]) -> set[int]:
        """These and all in the sessions and groups that one of them leads."""
        found, todo = set(some), list(some)
        while todo:
            pid = todo.pop()
            entry = self.entries.get(pid)
            if entry is not None and pid in (entry.session, entry.group):
                more = self.members[pid] - found
                found |= more
                todo += more
        return found

    @cached_property
    def ours(self) -> set[int]:
        """We, and those that we come from."""
        found = {1}
        pid = os.getpid()
        while pid in self.entries and pid != 1:
            found.add(pid)
            pid = self.entries[pid].parent
        return found

    # -- what was started by us

    def carriers(self, uid: int) -> dict[int, Carrier]:
        """Those of that user that have a mark, by number.

        Another user could have given any mark to a process of his own.
        """
        if uid not in self._carriers:
            before = self._known.get(uid, {})
            now: dict[Identity, Carrier | None] = {}
            old = (time.clock_gettime(time.CLOCK_BOOTTIME) - _YOUNG) * os.sysconf("SC_CLK_TCK")
            found = self._carriers[uid] = {}
            for pid, entry in self.entries.items():
                identity = entry.identity
                if identity in before and before[identity] is None:
                    now[identity] = None
                elif _acts_as(pid, uid):
                    one = before[identity] if identity in before else _carrier(entry, uid)
                    if one is not None:
                        found[pid] = one
                    if one is not None or identity.start < old:
                        now[identity] = one
            self._known[uid] = now
        return self._carriers[uid]

    def marked(self, uid: int, mark: str) -> dict[int, Carrier]:
        """Those of them that have this mark."""
        if uid not in self._marked:
            by_mark = self._marked[uid] = {}
            for pid, one in self.carriers(uid).items():
                by_mark.setdefault(one.mark, {})[pid] = one
        return self._marked[uid].get(mark, {})

    def marks_below(self, uid: int, pid: int) -> set[str]:
        """The marks of the children of that process."""
        if uid not in self._above:
            above = self._above[uid] = {}
            for child, one in self.carriers(uid).items():
                if child in self.entries:
                    above.setdefault(self.entries[child].parent, set()).add(one.mark)
        return self._above[uid].get(pid, set())

    @cached_property
    def scopes(self) -> dict[str, set[int]]:
        """The numbers of those in each scope of systemd's, or of the caller's own manager.

        Whoever has a manager of his own, or a service that is delegated to him, gives what is below
        it any name: only the outermost unit counts.
        """
        found: dict[str, set[int]] = {}
        own = f"/user@{os.geteuid()}.service".encode() if os.geteuid() else b""
        # In a container the whole tree of its systemd is below some unit of the host's.
        base = {one: path.rpartition(b"/")[0] for one, path in _groups(1)}
        for pid in self.entries:
            for one, path in _groups(pid):
                path = path.removeprefix(base.get(one, b""))
                for part in (path.partition(own)[2] if own else path).split(b"/"):
                    if part.endswith((b".scope", b".service")):
                        found.setdefault(os.fsdecode(part), set()).add(pid)
                        break
        return found


def _groups(pid: int) -> Iterator[tuple[bytes, bytes]]:
    """Its control groups: the controllers, and the path, cgroups(7)."""
    for line in (read_proc(pid, "cgroup", 8192) or b"").splitlines():
        controllers, _, path = line.partition(b":/")
        yield controllers, b"/" + path


def carrier(pid: int, uid: int) -> Carrier | None:
    """That process with its mark, if it is that user's and has one."""
    entry = look_up(pid)
    # Others may have thousands, each with a long environment.
    return _carrier(entry, uid) if entry is not None and _acts_as(pid, uid) else None


def _acts_as(pid: int, uid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == uid
    except OSError:
        return False


def _carrier(entry: ProcessEntry, uid: int) -> Carrier | None:
    """The same of one that was looked up before what it is judged by, which is about no later
    process then."""
    pid = entry.identity.pid
    raw = read_proc(pid, "environ", 2**20) or b""
    if _MARK not in raw:
        return None
    environ = variables_in(raw, (MARK, VERSION, LEADER))
    if owner_of(pid) != uid or MARK not in environ:
        return None
    launch = environ.get(LEADER, "")
    number = int(launch) if launch.isdecimal() and len(launch) <= _DIGITS else 0
    return Carrier(entry.identity, environ[MARK], number, environ.get(VERSION, ""))
