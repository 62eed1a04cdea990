"""Rotated logs: what they are called, which of a log is the newest, and room for one more.

``app.log`` becomes ``app.log.1``, or ``app.log.20261127`` where they are called by a date. It must
not take for a rotated log what has no such name, nor delete one that is among those to be kept.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from reconciler.base.records import dataclass
from reconciler.host.private_folder import passing_name
from reconciler.host.tree import Emptied

_NUMBERED = re.compile(r"(?s)(.+)\.([1-9][0-9]{0,3})(\.gz)?")
_HIGHEST = 99
"""The largest number of a rotated log; a name that ends in a larger one, a port, is a log."""
FIELDS = {"Y": 4, "j": 3, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
"""The fields of strftime that a date may have, the most significant first, with their digits."""
Log = tuple[str, str]
"""Folder below the top, and name."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated log: of which log, its place (a newer one has a greater), and is it compressed?"""

    log: str
    order: tuple[int, ...]
    compressed: bool


@dataclass(frozen=True, slots=True)
class Names:
    """What rotated logs are called, and how many of each are kept. ``date`` is for strftime."""

    keep: int
    date: str | None = None

    def parsed(self, name: str) -> Rotated | None:
        """What a file of that name is; None: no rotated log."""
        if self.date is not None and (dated := re.fullmatch(self._pattern(), name)):
            found = dated.groupdict()
            order = (int(found[field]) for field in FIELDS if field in found)
            return Rotated(found["log"], (1, *order, int(found["n"] or 0)), bool(found["gz"]))
        numbered = _NUMBERED.fullmatch(name)
        if numbered is None or int(numbered[2]) > max(self.keep, _HIGHEST):
            return None
        # Where they have dates now, those with numbers are from before.
        return Rotated(numbered[1], (0, -int(numbered[2])), numbered[3] is not None)

    def keeps(self, rotated: Rotated) -> bool:
        """Is it one of those that are kept, as far as its name says?"""
        return rotated.order[0] == 1 or -rotated.order[1] <= self.keep

    def newest(self, folder: int, log: str, inode: int | None = None) -> str | None:
        """The name of the newest rotated one, or of that with that inode; None: there is none."""
        found: list[tuple[tuple[int, ...], str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                rotated = self.parsed(entry.name)
                if rotated is None or rotated.log != log:
                    continue
                if inode in (None, entry.inode()) and entry.is_file(follow_symlinks=False):
                    found.append((rotated.order, entry.name))
        return max(found)[1] if found else None

    def is_last(self, folder: int, name: str) -> bool:
        """Was it rotated only once, so that its writer may not know of it yet?"""
        rotated = self.parsed(name)
        if rotated is None or rotated.order[0] == 0:
            return rotated is not None and rotated.order == (0, -1)
        return self.newest(folder, rotated.log) == name

    def make_room(self, folder: int, log: str, now: float) -> str:
        """Delete what is too much beside one more; the name of that. Raises OSError.

        ``now`` is in seconds since the epoch. Numbered ones go one up, as far as the first gap,
        the highest first, so that a kill in the middle leaves a gap and the next pass goes on
        from there. Of those only what would be beyond ``keep`` without a gap is deleted:
        ``x.2024`` is no log that was rotated here.
        """
        there: dict[tuple[int, ...], list[str]] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                rotated = self.parsed(entry.name)
                if rotated and rotated.log == log and entry.is_file(follow_symlinks=False):
                    there.setdefault(rotated.order, []).append(entry.name)
        if self.date is None:
            self._shift(folder, log, there)
            return f"{log}.1"
        for order in sorted(there, reverse=True)[self.keep - 1 :]:
            for name in there.pop(order):
                os.unlink(name, dir_fd=folder)
        first = log + time.strftime(self._suffix(), time.localtime(now))
        rotated = self.parsed(first)
        day = rotated.order[:-1] if rotated else ()
        # Behind all of that date: a number that is free again would make it the oldest of them.
        number = max((order[-1] + 1 for order in there if order[:-1] == day), default=0)
        return f"{first}.{number}" if number else first

    def _shift(self, folder: int, log: str, there: dict[tuple[int, ...], list[str]]) -> None:
        from reconciler.host.kernel import rename_new

        gap = 1
        while (0, -gap) in there:
            gap += 1
        for number in range(gap - 1, self.keep - 1, -1):
            for name in there[0, -number]:
                os.unlink(name, dir_fd=folder)
        for number in range(min(gap, self.keep) - 1, 0, -1):
            for name in there[0, -number]:
                ending = name[len(f"{log}.{number}") :]
                rename_new(folder, name, folder, f"{log}.{number + 1}{ending}")

    def _suffix(self) -> str:
        date = self.date or ""
        return date if date[0] in "-._" else f".{date}"

    def _pattern(self) -> str:
        parts = re.split(f"%([{''.join(FIELDS)}])", self._suffix())
        for at, part in enumerate(parts):
            parts[at] = f"(?P<{part}>[0-9]{{{FIELDS[part]}}})" if at % 2 else re.escape(part)
        return rf"(?s)(?P<log>.+){''.join(parts)}(?:\.(?P<n>[1-9][0-9]{{0,8}}))?(?P<gz>\.gz)?"


def shown_log(path: str, log: Log) -> str:
    return "/".join(part for part in (path, *log) if part)


def rotated_logs(
    path: str, logs: Sequence[Log], names: Names, settled: Collection[Log]
) -> list[str]:
    """The paths of those that were rotated last, where it is known: by its mark, or ``settled``."""
    found: list[str] = []
    with Emptied(path) as tree:
        for log in logs:
            with suppress(OSError), tree.folder(log[0]) as folder:
                inode = _inode(folder, passing_name(log[1]))
                if inode is None and log not in settled:
                    continue
                if (name := names.newest(folder, log[1], inode)) is not None:
                    found.append(shown_log(path, (log[0], name)))
    return found


def _inode(folder: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def wrong_date(date: str) -> str | None:
    """What is wrong with it as the date in a name, in words."""
    fields = re.findall(r"%(.?)", date)
    if "/" in date:
        return "is a part of a file's name, and holds no /"
    if not fields:
        return 'needs fields of the date, such as "%Y%m%d"'
    wrong = [field for field in fields if field not in FIELDS]
    if wrong:
        some = ", ".join(f"%{field}" for field in FIELDS)
        return f"has no field %{wrong[0]}; there are {some}"
    if len(set(fields)) < len(fields):
        return "has a field twice"
    return None
