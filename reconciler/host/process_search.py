"""Searches for processes: by command line, by program, by a file with a number.

They must not take a process of somebody else for one that is looked for, nor be kept busy by what
others call theirs.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from reconciler.base.errors import UnknownState
from reconciler.host.files import Files
from reconciler.host.filesystems import mount_lines
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, folder, pids, read_proc
from reconciler.host.trust import only_ours
from reconciler.host.users import run_as
from reconciler.host.walk import closing

_MATCHING = 2.0
"""Seconds for matching all command lines with one pattern."""
_MOST_LATE = 3
"""Patterns for the command lines of one user that may take so long in one look."""
_SHORT = 512
"""Bytes of a command line that is matched in no time, whoever wrote it."""
_DIGITS = 10
"""Of the number of a process, at most; int() refuses what is much longer."""


class ProcessSearch:
    """Searches in one snapshot. Each raises UnknownState where it cannot know."""

    def __init__(self, table: ProcessSnapshot) -> None:
        self._table = table
        self._lines: dict[int, list[tuple[int, str]]] = {}
        self._programs: list[tuple[int, str]] | None = None
        self._barred: list[int] = []
        self._hides: dict[int, bool] = {}
        self._late: dict[int, int] = {}
        """Of how many patterns the matching had to be given up, by user."""

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
                    self._lines[uid] = self._lines_of(self._table.of_user(uid), uid)
                lines = self._lines[uid]
            found = [pid for pid, line in lines if matches(line)]
            for pid in found:
                self._table.entry(pid)
            # Once more behind that, so that what matches is no process that had the number before.
            found = [pid for pid, line in self._lines_of(found, uid) if matches(line)]
        self._late[uid] -= 1
        return self._owned(found, uid)

    def _lines_of(self, some: Iterable[int], uid: int) -> list[tuple[int, str]]:
        found = []
        for pid in some:
            raw = read_proc(pid, "cmdline", 32768)
            # What others call their processes must not keep us busy; of a set-user-ID program,
            # whoever runs it decides.
            if raw and (len(raw) <= _SHORT or self._table.owner(pid) == uid):
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
                self._table.entry(pid)
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
        return uid != os.geteuid() and any(self._table.owner(pid) == uid for pid in barred)

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
            entry = self._table.entry(pid)
            if entry is not None and self._table.owner(pid) == uid and pid not in self._line_of_us:
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
            entry = self._table.entry(pid)
            pid = entry.parent if entry is not None else 0
        found = known.get(pid, False)
        known.update(dict.fromkeys(way, found))
        return found


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
    if pid == 0 or os.geteuid() == 0 or read_proc(pid, "stat", 1024) is not None:
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
        with closing(os.open(one, os.O_PATH | os.O_CLOEXEC)) as handle:
            if not only_ours(os.fstat(handle), handle, also=(uid,)):
                return False
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
