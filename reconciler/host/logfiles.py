"""Logs as files: the last of one, and which ones a pattern means.

It must not read a whole log, follow a symlink to one, nor understand what stands in it.
"""

from __future__ import annotations

import os
import stat
from fnmatch import fnmatchcase

from reconciler.model import UnknownState
from reconciler.records import dataclass

_MOST = 2**20


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
    """What stands in the last MiB. Raises OSError, and UnknownState for what is not a file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnknownState("it is not a file")
        start = max(0, status.st_size - _MOST)
        data = os.pread(handle, _MOST, start)
    finally:
        os.close(handle)
    # The first line is a piece of one where the file was not read from its beginning.
    lines = data.decode(errors="replace").splitlines()[1 if start else 0 :]
    return Tail(lines, not start, status.st_size, status.st_mtime)


def matching(pattern: str) -> list[str]:
    """The files that a folder and a pattern of names mean now."""
    folder, _, match = pattern.rpartition("/")
    try:
        names = os.listdir(folder or "/")
    except OSError:
        return []
    found = [f"{folder}/{name}" for name in names if fnmatchcase(name, match)]
    return sorted(path for path in found if os.path.isfile(path))
