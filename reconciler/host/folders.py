"""Folders of people, and the logs in them: what waits there, and what was written last.

It must not follow a symlink to a file, understand what stands in one, nor judge what it counts.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from math import inf

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.filesystems import refuse_silent
from reconciler.host.reading import PRIVATE, is_private, regular_file
from reconciler.host.walk import closing, opened

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST = 200_000
_TAIL = 2**20


@contextmanager
def listed(path: str) -> Iterator[int]:
    """A descriptor of the folder for reading. Raises OSError, HostError."""
    with opened(path) as top:
        handle = os.open(".", _FOLDER, dir_fd=top)
    with closing(handle):
        yield handle


class Siblings:
    """Opens folders one after the other; the way to those beside each other is walked once."""

    def __init__(self) -> None:
        self._above: str | None = None
        self._way = ExitStack()
        self._top = -1

    def __enter__(self) -> Siblings:
        return self

    def __exit__(self, *error: object) -> None:
        self._way.close()

    @contextmanager
    def listed(self, path: str) -> Iterator[int]:
        """As the function of that name."""
        above, _, name = path.rpartition("/")
        if above != self._above:
            self._way.close()
            self._above = None
            self._top = self._way.enter_context(opened(above or "/"))
            self._above = above
        refuse_silent(path)
        try:
            handle = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self._top)
        except OSError:
            # A symlink may lead to it, and what else stands there has its own words.
            with listed(path) as handle:
                yield handle
            return
        with closing(handle):
            yield handle


def regular_files(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    """The regular files directly in an open folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # Somebody has taken it just now.
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield entry.name, status


@dataclass(slots=True)
class Contents:
    """The regular files directly in a folder: their sizes in bytes, times since the epoch.

    ``complete`` is False where there are more than were looked at. ``recent`` counts those that
    have changed since each of the moments asked for; ``oldest`` is a time with a name.
    """

    writable: bool
    owner: int
    files: int = 0
    size: int = 0
    recent: tuple[int, ...] = ()
    complete: bool = True
    oldest: tuple[float, str] | None = None
    newest: float | None = None


def contents(
    siblings: Siblings, path: str, match: str | None, since: Sequence[float], end: float = inf
) -> Contents:
    """Of the folder ``path`` the files whose names ``match``, but for those that begin with a dot.

    ``since`` are moments in seconds since the epoch; at ``end``, by the monotonic clock, it has
    looked at enough. Raises OSError, HostError.
    """
    with siblings.listed(path) as folder:
        # Root may write everywhere but on a file system that is read only.
        writable = os.access(".", os.W_OK | os.X_OK, dir_fd=folder)
        found = Contents(writable, os.fstat(folder).st_uid)
        recent = [0] * len(since)
        for name, status in regular_files(folder):
            if name.startswith(".") or not fnmatchcase(name, match or "*"):
                continue
            if found.files == _MOST or time.monotonic() > end:
                found.complete = False
                break
            changed = status.st_mtime
            found.files += 1
            found.size += status.st_size
            for at, moment in enumerate(since):
                recent[at] += changed >= moment
            if found.oldest is None or changed < found.oldest[0]:
                found.oldest = changed, name
            found.newest = max(found.newest or changed, changed)
        found.recent = tuple(recent)
        if found.oldest is not None and is_private(folder):
            found.oldest = found.oldest[0], PRIVATE
    return found


def refuse_unreadable(path: str) -> None:
    """Nothing, where the folder may be listed or is not there. Raises OSError."""
    with suppress(FileNotFoundError):
        os.listdir(path)


@dataclass(frozen=True, slots=True)
class Tail:
    """The whole ``lines`` at the end of a log; is that the ``whole`` of it?

    ``size`` is in bytes, ``changed`` in seconds since the epoch.
    """

    lines: list[str]
    whole: bool
    size: int
    changed: float


def tail(path: str) -> Tail:
    """What stands in the last MiB. Raises OSError, and HostError for what is not to be read."""
    with regular_file(path) as (handle, private):
        if private:
            raise HostError(PRIVATE)
        status = os.fstat(handle)
        start = max(0, status.st_size - _TAIL)
        data = os.pread(handle, _TAIL, start)
    # The first line is a piece of one where the file was not read from its beginning.
    lines = data.decode(errors="replace").splitlines()[1 if start else 0 :]
    return Tail(lines, not start, status.st_size, status.st_mtime)


def matching(pattern: str) -> list[str]:
    """The files that a folder and a pattern of names mean now; links of others lead to none.

    None in a folder whose names must not be shown either.
    """
    folder, _, match = pattern.rpartition("/")
    found: list[str] = []
    with suppress(OSError, HostError), listed(folder or "/") as handle:
        if not is_private(handle):
            names = (name for name, _ in regular_files(handle) if fnmatchcase(name, match))
            found += [f"{folder}/{name}" for name in names]
    return sorted(found)
