"""What waits in folders: how many files, how old, and how many of the last hour.

It must not open a file, nor follow a symlink. Each function is called in a child of its own.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

_MOST = 200_000
_HOUR = 3600.0


def counted(folders: Sequence[tuple[str, str, str | None]]) -> list[dict[str, Any]]:
    """Of each folder (id, path, pattern or None): files, the oldest, the newest, the last hour.

    Times are in seconds since the epoch. Names that begin with a dot are passed over.
    """
    return [{"id": ident, "path": path, **_one(path, match)} for ident, path, match in folders]


def _one(path: str, match: str | None) -> dict[str, Any]:
    number = recent = size = 0
    oldest: tuple[float, str] | None = None
    newest: float | None = None
    since = time.time() - _HOUR
    whole = True
    try:
        with os.scandir(path) as entries:
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
                if number == _MOST:
                    whole = False
                    break
                number += 1
                size += status.st_size
                recent += status.st_mtime >= since
                if oldest is None or status.st_mtime < oldest[0]:
                    oldest = status.st_mtime, entry.name
                newest = max(newest or status.st_mtime, status.st_mtime)
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    return {
        "match": match,
        "files": number,
        "bytes": size,
        "complete": whole,
        "changed_last_hour": recent,
        "oldest": None if oldest is None else {"name": oldest[1], "time": round(oldest[0], 3)},
        "newest": None if newest is None else round(newest, 3),
        # Root may write everywhere but on a file system that is read only.
        "writable": os.access(path, os.W_OK | os.X_OK),
        "ours": os.stat(path).st_uid == os.geteuid(),
    }
