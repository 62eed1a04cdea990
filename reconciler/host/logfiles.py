"""Logs as files: the last of one, and which ones a pattern means.

It must not read a whole log, follow a symlink to one, nor understand what stands in it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from fnmatch import fnmatchcase

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.reading import PRIVATE, is_private, regular_file
from reconciler.host.walk import opened

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
    """What stands in the last MiB. Raises OSError, and HostError for what is not to be read."""
    with regular_file(path) as (handle, private):
        if private:
            raise HostError(PRIVATE)
        status = os.fstat(handle)
        start = max(0, status.st_size - _MOST)
        data = os.pread(handle, _MOST, start)
    # The first line is a piece of one where the file was not read from its beginning.
    lines = data.decode(errors="replace").splitlines()[1 if start else 0 :]
    return Tail(lines, not start, status.st_size, status.st_mtime)


def matching(pattern: str) -> list[str]:
    """The files that a folder and a pattern of names mean now; links of others lead to none.

    None in a folder whose names must not be shown either.
    """
    folder, _, match = pattern.rpartition("/")
    found: list[str] = []
    with suppress(OSError, HostError), opened(folder or "/") as top:
        if is_private(top):
            return []
        handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        try:
            for name in os.listdir(handle):
                if fnmatchcase(name, match) and _is_file(handle, name):
                    found.append(f"{folder}/{name}")
        finally:
            os.close(handle)
    return sorted(found)


def _is_file(folder: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
