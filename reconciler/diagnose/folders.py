"""What waits in the folders that a spec speaks of.

It must not judge, nor read the host by itself. It is called in a child of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from reconciler.base.errors import HostError
from reconciler.host.folders import contents

_HOUR, _DAY = 3600.0, 86400.0


def counted(folders: Sequence[tuple[str, str, str | None]]) -> list[dict[str, Any]]:
    """Of each folder (id, path, pattern or None): files, the oldest, the newest, the new ones.

    Times are in seconds since the epoch. Names that begin with a dot are passed over.
    """
    return [{"id": ident, "path": path, **_one(path, match)} for ident, path, match in folders]


def _one(path: str, match: str | None) -> dict[str, Any]:
    try:
        now = time.time()
        found = contents(path, match, (now - _HOUR, now - _DAY))
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    except HostError as error:
        return {"reason": str(error)}
    oldest, newest = found.oldest, found.newest
    return {
        "match": match,
        "files": found.files,
        "bytes": found.size,
        "complete": found.complete,
        "changed_last_hour": found.recent[0],
        "changed_last_day": found.recent[1],
        "oldest": None if oldest is None else {"name": oldest[1], "time": round(oldest[0], 3)},
        "newest": None if newest is None else round(newest, 3),
        "writable": found.writable,
        "ours": found.owner == os.geteuid(),
    }
