"""What managed things say: a log across its rotation, a pane of tmux, a unit's journal.

Each gives its last lines, and then what has come since. It must not write anything, nor print:
secrets are taken out by who does. Of a file that may be somebody else's secret nothing is given.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.probe_log import backwards, time_of, unpacked
from reconciler.host.reading import PRIVATE, regular_file

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST = 64 << 20
"""Bytes that are read of a log and of what was rotated."""
_CHUNK = 1 << 20
_LINE = 64 << 10
"""Bytes of a line that are shown."""
_SCREEN = 500
"""Lines of a pane in which the last known ones are looked for."""
_OVERLAP = 50
_SLACK = 60.0
"""Seconds by which lines may stand in another order than they were written in."""


class LogOutput:
    """A file to which is appended, and the files that were rotated out of it, the newest first.

    ``follows``: ``more`` is asked for too.
    """

    def __init__(self, path: str, follows: bool = False) -> None:
        self._path = path
        self._follows = follows
        self._handle: int | None = None
        self._at = 0
        self._rest = b""
        self._end = b""
        """What was read last: where a log was cut, it may stand before what is new."""

    def last(self, count: int, since: float | None) -> list[str]:
        """The last ``count`` lines, or all ``since`` then. Raises HostError and OSError."""
        wanted = _LastLines(count, since)
        self._open()
        if self._handle is not None:
            # A line that is still being written belongs to what comes.
            self._at = self._whole(self._handle)
            wanted.take_all(self._handle, False, self._at if self._follows else None)
        for path in [] if wanted.ended else self._rotated():
            try:
                with regular_file(path) as (handle, private):
                    if private:
                        raise HostError(f"{path} is {PRIVATE}")
                    wanted.take_all(handle, path.endswith(".gz"))
            except FileNotFoundError:
                continue
            if wanted.ended:
                break
        return wanted.lines()

    def more(self) -> list[str]:
        """What has come since. Raises HostError and OSError."""
        data = self._read()
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None and (
            self._handle is None or not os.path.samestat(there, os.fstat(self._handle))
        ):
            data += self._read()  # What was still written to the old one.
            self.close()
            self._open()
            data += self._read()
        self._end = (self._end + data)[-200:]
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_LINE]
        return [_text(line) for line in whole]

    def _open(self) -> None:
        try:
            with regular_file(self._path) as (handle, private):
                if private:
                    raise HostError(f"{self._path} is {PRIVATE}")
                self._handle, self._at = os.dup(handle), 0
        except FileNotFoundError:
            return  # It is made when something is said.

    def _read(self) -> bytes:
        if self._handle is None:
            return b""
        size = os.fstat(self._handle).st_size
        if size < self._at:  # It was cut, and may still hold the end of what was there.
            kept = os.pread(self._handle, _CHUNK, 0)
            found = kept.rfind(self._end) if self._end else -1
            self._at = found + len(self._end) if found >= 0 else 0
        pieces: list[bytes] = []
        while len(pieces) < 16 and (data := os.pread(self._handle, _CHUNK, self._at)):
            self._at += len(data)
            pieces.append(data)
        return b"".join(pieces)

    def _whole(self, handle: int) -> int:
        """Where the last line ends that is whole."""
        size = os.fstat(handle).st_size
        begin = max(0, size - _LINE)
        last = os.pread(handle, size - begin, begin)
        end = begin + last.rfind(b"\n") + 1
        self._end = last[: end - begin][-200:]
        return end if end > begin else size

    def _rotated(self) -> list[str]:
        """``app.log.1``, ``app.log.2.gz``, ``app.log-20261122`` and the like."""
        folder, _, name = self._path.rpartition("/")
        numbered = re.compile(re.escape(name) + r"[.-]\d[\d.:T_-]*(\.gz)?")
        found = []
        try:
            with os.scandir(folder or "/") as entries:
                for entry in entries:
                    if numbered.fullmatch(entry.name):
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            found.append((status.st_mtime_ns, entry.path))
        except OSError:
            return []
        return [path for _, path in sorted(found, reverse=True)]

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class _LastLines:
    """Takes lines, the last one first, until it has enough of them."""

    def __init__(self, count: int, since: float | None) -> None:
        self.left, self.capped, self.ended = _MOST, False, False
        self._count = count
        self._since = since
        self._lines: list[bytes] = []
        self._held: list[bytes] = []
        """Lines without a time, which belong to the one above them."""

    def take_all(self, handle: int, packed: bool, end: int | None = None) -> None:
        """The lines of a file, each time of one that is older."""
        if self._since is not None and os.fstat(handle).st_mtime < self._since:
            self.ended = True
            return
        for line in unpacked(handle, self) if packed else backwards(handle, self, end):
            self._take(line[:_LINE])
            if self.ended:
                return

    def _take(self, line: bytes) -> None:
        if self._since is None:
            self._lines.append(line)
            self.ended = len(self._lines) >= self._count
            return
        at = time_of(line)
        if at is None:
            self._held.append(line)
        elif at >= self._since:
            self._lines += [*self._held, line]
            self._held.clear()
        else:
            self._held.clear()
            self.ended = at < self._since - _SLACK

    def lines(self) -> list[str]:
        """In their order. Those at the beginning whose time nobody has said count."""
        return [_text(line) for line in reversed([*self._lines, *self._held])]


class PaneOutput:
    """What stands in a pane, with its history; lines without text are left out."""

    def __init__(self, host: Host, socket: str | None, pane: str) -> None:
        self._host = host
        self._socket = socket
        self._pane = pane
        self._known: list[str] = []

    def last(self, count: int, since: float | None) -> list[str]:
        """The last ``count`` lines, or those ``since`` then that have a time, and what is below."""
        self._known = self._screen()
        if since is None:
            return self._known[-count:]
        wanted = _LastLines(count, since)
        for line in reversed(self._known):
            wanted._take(os.fsencode(line))
        return wanted.lines()

    def more(self) -> list[str]:
        """What has come since."""
        before, self._known = self._known, self._screen() or self._known
        return behind(before, self._known)

    def _screen(self) -> list[str]:
        return self._host.tmux.screen(self._socket, self._pane, _SCREEN)

    def close(self) -> None:
        """Nothing is open."""


def behind(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The lines of ``now`` that follow what ``before`` ends with. Pure.

    The last line or two of it may have been written on since, and are given again.
    """
    for changed in range(min(3, len(before) + 1)):
        known = list(before[: len(before) - changed])
        if known and now[: len(known)] == known:
            return list(now[len(known) :])  # Nothing has left the screen since.
        for size in range(min(_OVERLAP, len(known)), 0, -1):
            for at in range(len(now) - size, -1, -1):
                if now[at : at + size] == known[-size:]:
                    return list(now[at + size :])
    return list(now)


class JournalOutput:
    """What the journal has of a unit."""

    def __init__(self, host: Host, scope: str, unit: str) -> None:
        self._host = host
        self._scope = scope
        self._unit = unit
        self._cursor = ""

    def last(self, count: int, since: float | None) -> list[str]:
        """The last ``count`` lines, or all ``since`` then. Raises HostError."""
        which = f"--lines={count}" if since is None else f"--since=@{int(since)}"
        return self._asked(which)

    def more(self) -> list[str]:
        """What has come since. Raises HostError."""
        return self._asked(self._cursor)

    def _asked(self, which: str) -> list[str]:
        now = time.time()
        lines = self._host.systemd.journal(self._scope, self._unit, [which, "--show-cursor"])
        if lines and lines[-1].startswith("-- cursor: "):
            self._cursor = f"--after-cursor={lines.pop().removeprefix('-- cursor: ')}"
        elif not self._cursor:
            self._cursor = f"--since=@{int(now)}"
        return lines

    def close(self) -> None:
        """Nothing is open."""


Output = LogOutput | PaneOutput | JournalOutput


def output_of(sort: str, value: str, host: Host, follows: bool) -> Output:
    """By the keys of ``Diagnosed.says``. Raises UnknownState for any other."""
    first, _, second = value.partition(" ")
    if sort == "log":
        return LogOutput(value, follows)
    if sort == "pane":
        return PaneOutput(host, second or None, first)
    if sort == "journal":
        return JournalOutput(host, first, second)
    raise UnknownState(f"{sort} {value} has no output")


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
