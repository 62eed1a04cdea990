"""What waits in folders: how many files, how old, and how many have changed lately.

It must not open a file, nor follow a symlink to one, nor judge what it counts.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from math import inf

from reconciler.base.records import dataclass
from reconciler.host.reading import PRIVATE, is_private
from reconciler.host.walk import opened

_MOST = 200_000


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


def contents(path: str, match: str | None, since: Sequence[float], end: float = inf) -> Contents:
    """Of the folder ``path`` the files whose names ``match``, but for those that begin with a dot.

    ``since`` are moments in seconds since the epoch; at ``end``, by the monotonic clock, it has
    looked at enough. Raises OSError, HostError.
    """
    with opened(path) as top:
        handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        try:
            return _contents(handle, match, since, end)
        finally:
            os.close(handle)


def _contents(folder: int, match: str | None, since: Sequence[float], end: float) -> Contents:
    # Root may write everywhere but on a file system that is read only.
    writable = os.access(".", os.W_OK | os.X_OK, dir_fd=folder)
    found = Contents(writable, os.fstat(folder).st_uid)
    recent = [0] * len(since)
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".")
            if hidden or (match is not None and not fnmatchcase(entry.name, match)):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode):
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
                found.oldest = changed, entry.name
            found.newest = max(found.newest or changed, changed)
    found.recent = tuple(recent)
    if found.oldest is not None and is_private(folder):
        found.oldest = found.oldest[0], PRIVATE
    return found


def refuse_unreadable(path: str) -> None:
    """Nothing, where the folder may be listed or is not there. Raises OSError."""
    with suppress(FileNotFoundError):
        os.listdir(path)
