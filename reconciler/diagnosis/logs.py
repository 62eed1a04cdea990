"""The logs that a spec speaks of, each read from its end.

It must not read more than the last MiB of each. It is called in a child of its own.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from reconciler.diagnosis.loglines import analysed

_MOST = 2**20
_FILES = 30
_LAST = 3


def read(
    named: Sequence[tuple[str, str]], globs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """What is in the logs: those ``named`` by (id, path), and those that match (id, pattern)."""
    wanted: dict[str, list[str]] = {}
    for ident, path in named:
        wanted.setdefault(path, []).append(ident)
    for ident, pattern in globs:
        for path in matching_files(pattern):
            wanted.setdefault(path, []).append(ident)
    return [{"path": path, "ids": ids, **_one(path)} for path, ids in list(wanted.items())[:_FILES]]


def matching_files(pattern: str) -> Iterable[str]:
    """The files that a folder and a pattern of names mean now."""
    folder, _, match = pattern.rpartition("/")
    try:
        names = os.listdir(folder or "/")
    except OSError:
        return []
    found = [f"{folder}/{name}" for name in names if fnmatchcase(name, match)]
    return sorted(path for path in found if os.path.isfile(path))


def _one(path: str) -> dict[str, Any]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return {"missing": True}
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return {"reason": "it is not a file"}
        start = max(0, status.st_size - _MOST)
        data = os.pread(handle, _MOST, start)
    finally:
        os.close(handle)
    lines = data.decode(errors="replace").splitlines()[1 if start else 0 :]
    now = time.time()
    found = analysed(lines, now)
    said = [line.strip() for line in lines if line.strip()]
    last = found["last_time"] if found["last_time"] is not None else status.st_mtime
    return {
        "size": status.st_size,
        "whole": not start,
        "changed": round(status.st_mtime, 3),
        "silent": round(max(0.0, now - max(last, status.st_mtime)), 1),
        "last": [line[:500] for line in said[-_LAST:]],
        **found,
    }
