"""The processes of this host at one moment, and the searches for some of them.

Each thing is read once, when it is first asked for. It must not outlive the look that it was made
for, nor signal anybody.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass
from reconciler.host.files import Files
from reconciler.host.filesystems import mount_lines
from reconciler.host.launch import MARK, VERSION
from reconciler.host.processes import (
    LEADER,
    Identity,
    ProcessEntry,
    folder,
    look_up,
    owner_of,
    pids,
    told,
    variables_in,
)
from reconciler.host.trust import only_ours
from reconciler.host.users import run_as

_MARK = f"{MARK}=".encode()
_MATCHING = 2.0
"""Seconds for matching all command lines with one pattern."""
_MOST_LATE = 3
"""Patterns for the command lines of one user that may take so long in one look."""
_SHORT = 512
"""Bytes of a command line that is matched in no time, whoever wrote it."""
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


Known = dict[int, dict[Identity, Carrier | None]]
"""By user, which of his processes have a mark: it stays until they end."""


class ProcessSnapshot:
    """The processes of this host, each thing as it is when it is first asked for.

    ``known`` is what earlier ones of the same pass have found. Its searches raise UnknownState.
    """

    def __init__(self, known: Known | None = None) -> None:
        self._known: Known = {} if known is None else known
        self._marked: dict[int, dict[str, dict[int, Carrier]]] = {}
        self._carriers: dict[int, dict[int, Carrier]] = {}
        self._above: dict[int, dict[int, set[str]]] = {}
        self._entries: dict[int, ProcessEntry | None] = {}
        self._owners: dict[int, int | None] = {}
        self._lines: dict[int, list[tuple[int, str]]] = {}
        self._programs: list[tuple[int, str]] | None = None
        self._barred: list[int] = []
        self._hides: dict[int, bool] = {}
        self._late: dict[int, int] = {}
        """Of how many patterns the matching had to be given up, by user."""

    # -- who there is

    @cached_property
    def entries(self) -> dict[int, ProcessEntry]:
        """All that live, by number."""
        found = ((pid, look_up(pid)) for pid in pids())
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
                one = before[entry.identity] if entry.identity in before else _carrier(entry, uid)
                if one is not None:
                    found[pid] = one
                if one is not None or entry.identity.start < old:
                    now[entry.identity] = one
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

    # -- searches

    def with_command_line(
        self, pattern: str, uid: int, among: Collection[int] | None = None
    ) -> list[Identity]:
        """Processes of that user, or those ``among`` these, whose arguments match the pattern.

        They are joined by blanks; only the first 32 KiB of them are looked at. Raises UnknownState
        where that takes longer than two seconds in all: who owns the processes decides what stands
        there.
        """
        if uid not in self._hides:
            self._hides[uid] = hides(uid)
        if self._hides[uid]:
            raise UnknownState(
                f"processes of user {uid} cannot be seen: /proc is mounted with hidepid; "
                f"{run_as('that user')}"
            )
        what = f"matching command lines of user {uid} with {pattern!r}"
        if self._late.get(uid, 0) >= _MOST_LATE:
            raise UnknownState(f"{what} was given up: others took longer than {_MATCHING:g} s")
        self._late[uid] = self._late.get(uid, 0) + 1
        with within(_MATCHING, what):
            matches = re.compile(pattern).search
            if among is not None:
                lines = self._lines_of(among, uid)
            else:
                if uid not in self._lines:
                    self._lines[uid] = self._lines_of(self.of_user(uid), uid)
                lines = self._lines[uid]
            found = [pid for pid, line in lines if matches(line)]
            for pid in found:
                self.entry(pid)
            # Once more behind that, so that what matches is no process that had the number before.
            found = [pid for pid, line in self._lines_of(found, uid) if matches(line)]
        self._late[uid] -= 1
        return self._owned(found, uid)

    def _lines_of(self, some: Iterable[int], uid: int) -> list[tuple[int, str]]:
        found = []
        for pid in some:
            raw = told(pid, "cmdline", 32768)
            # What others call their processes must not keep us busy; of a set-user-ID program,
            # whoever runs it decides.
            if raw and (len(raw) <= _SHORT or self.owner(pid) == uid):
                found.append((pid, os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))))
        return found

    def with_program(
        self, path: str, uid: int, among: Collection[int] | None = None
    ) -> list[Identity]:
        """Processes of that user, or those ``among`` these, that run the program at ``path``.

        Raises UnknownState where none is seen, and not all of that user's can be.
        """
        path = os.path.realpath(path)
        if self._programs is None:
            self._programs = []
            for pid in pids():
                self.entry(pid)
                try:
                    # An upgrade replaces the file below a running program.
                    program = _program(pid).removesuffix(" (deleted)")
                except PermissionError:
                    self._barred.append(pid)
                except OSError:
                    continue
                else:
                    self._programs.append((pid, program))
        found = [
            pid
            for pid, program in self._programs
            if program == path and (among is None or pid in among)
        ]
        owned = self._owned(found, uid)
        if not owned and (hides(uid) or self._bars(uid, among)):
            raise UnknownState(
                f"which programs user {uid} runs cannot be seen; {run_as('that user')}"
            )
        return owned

    def _bars(self, uid: int, among: Collection[int] | None) -> bool:
        """Is there one of that user, which is not the caller, of which that may not be seen?"""
        barred = (pid for pid in self._barred if among is None or pid in among)
        return uid != os.geteuid() and any(self.owner(pid) == uid for pid in barred)

    def from_file(
        self,
        path: str,
        uid: int,
        files: Files,
        born: Callable[[Identity], float],
        gained: float = 0.0,
    ) -> list[Identity]:
        """The process of that user whose number stands in the file at ``path``.

        A process that was ``born`` after the file was written is somebody else. The wall clock may
        have been set ahead by ``gained`` seconds since then.
        """
        from reconciler.host.reading import beginning

        status = files.status(path)
        if status is not None and not _believed(path, uid):
            raise UnknownState(
                f"the file {path} could be written by others than user {uid} and root, so the "
                "process that it names is not believed to be ours"
            )
        text = (beginning(path, 64) or b"").split() if status is not None else []
        if status is None or not text or not text[0].isdigit() or len(text[0]) > _DIGITS:
            return []
        pid = int(text[0])
        if _is_hidden(pid):
            raise UnknownState(
                f"the file {path} names process {pid}, which runs and cannot be seen; "
                f"{run_as('its user')}"
            )
        found = self._owned([pid], uid)
        return [one for one in found if born(one) - gained <= status.st_mtime + 1.0]

    def _owned(self, some: Iterable[int], uid: int) -> list[Identity]:
        """Those of the user, without us, without kernel threads, and the oldest of each family.

        A program that forks has children with its own command line; they are part of it.
        """
        entries = {}
        for pid in some:
            entry = self.entry(pid)
            if entry is not None and self.owner(pid) == uid and pid not in self._line_of_us:
                entries[pid] = entry
        # Whether they are below one of the entries; each process is looked at once.
        known = {0: False, **dict.fromkeys(entries, True)}
        return sorted(
            entry.identity for entry in entries.values() if not self._is_below(entry.parent, known)
        )

    @cached_property
    def _line_of_us(self) -> set[int]:
        known: dict[int, bool] = {0: False}
        self._is_below(os.getpid(), known)
        return known.keys() - {0}

    def _is_below(self, pid: int, known: dict[int, bool]) -> bool:
        """Is that process, or one that it comes from, ``known`` to be one? Adds what it learns."""
        way: dict[int, bool] = {}
        while pid not in known and pid not in way:
            way[pid] = True
            entry = self.entry(pid)
            pid = entry.parent if entry is not None else 0
        found = known.get(pid, False)
        known.update(dict.fromkeys(way, found))
        return found


def _groups(pid: int) -> Iterator[tuple[bytes, bytes]]:
    """Its control groups: the controllers, and the path, cgroups(7)."""
    for line in (told(pid, "cgroup", 8192) or b"").splitlines():
        controllers, _, path = line.partition(b":/")
        yield controllers, b"/" + path


def carrier(pid: int, uid: int) -> Carrier | None:
    """That process with its mark, if it is that user's and has one."""
    entry = look_up(pid)
    return None if entry is None else _carrier(entry, uid)


def _carrier(entry: ProcessEntry, uid: int) -> Carrier | None:
    """The same of one that was looked up before what it is judged by, which is about no later
    process then."""
    pid = entry.identity.pid
    try:
        # Others may have thousands, each with a long environment.
        if os.stat(f"/proc/{pid}").st_uid != uid:
            return None
    except OSError:
        return None
    raw = told(pid, "environ", 2**20) or b""
    if _MARK not in raw:
        return None
    environ = variables_in(raw, (MARK, VERSION, LEADER))
    if owner_of(pid) != uid or MARK not in environ:
        return None
    launch = environ.get(LEADER, "")
    number = int(launch) if launch.isdecimal() and len(launch) <= _DIGITS else 0
    return Carrier(entry.identity, environ[MARK], number, environ.get(VERSION, ""))


def hides(uid: int) -> bool:
    """Are processes of that user not all shown to us? proc(5), hidepid; our own always are.

    Raises UnknownState.
    """
    if uid == os.geteuid() or os.geteuid() == 0:
        return False
    options: dict[str, str] = {}
    try:
        for words, _, given in mount_lines():
            if words[4] == "/proc":
                options = dict(one.partition("=")[::2] for one in given.split(","))
    except OSError as error:
        raise UnknownState(f"cannot read /proc/self/mountinfo: {error.strerror}") from None
    if options.get("hidepid", "0") in ("0", "off"):
        return False
    group = options.get("gid", "")
    return not (group.isdigit() and int(group) in (os.getegid(), *os.getgroups()))


def _is_hidden(pid: int) -> bool:
    """Does it run, and may not be looked at? proc(5), hidepid."""
    if pid == 0 or os.geteuid() == 0 or told(pid, "stat", 1024) is not None:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _believed(path: str, uid: int) -> bool:
    """May only root, the caller and that user write to the file, and put another in its place?"""
    for one in (path, os.path.dirname(path)):
        handle = os.open(one, os.O_PATH | os.O_CLOEXEC)
        try:
            if not only_ours(os.fstat(handle), handle, also=(uid,)):
                return False
        finally:
            os.close(handle)
    return True


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raise UnknownState where the block takes longer; ``what`` is done in it.

    It also ends a search for a pattern, which looks for signals. Only in the main thread, which
    alone learns of them; others have no such limit.
    """

    def over(_number: int, _frame: object) -> None:
        raise UnknownState(f"{what} took longer than {seconds:g} s, so it was given up")

    try:
        before = signal.signal(signal.SIGALRM, over)
    except ValueError:  # Not the main thread.
        yield
        return
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _program(pid: int) -> str:
    """The file that it runs. Raises OSError."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return os.readlink(f"{folder(pid)}/exe")
