"""Is a spec whole, or is somebody still writing one of its files?

The beginning of a spec can be a valid one that deletes what the rest would have kept. It must not
wait for ever: who keeps a file open is named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from reconciler.base.errors import BeingWritten
from reconciler.config.errors import SpecError
from reconciler.host import spec_files, trust
from reconciler.host.openfiles import has_writer, visible_writer
from reconciler.host.walk import closing

Built = TypeVar("Built")

_STILL = 1.0
"""Seconds without a change after which a file is whole, where writers cannot be known."""
_PAUSE = 0.1


def settled(build: Callable[[], tuple[Built, Mapping[str, bytes]]], patience: float) -> Built:
    """What ``build`` makes of the files, once nobody writes to them.

    It gives the files as well, with digests of what was read of them. Raises BeingWritten when
    somebody still writes after ``patience`` seconds, and SpecError when it is whole, and invalid.
    """
    end = time.monotonic() + patience
    look = _WriteWatch()
    while True:
        wrong: SpecError | None = None
        try:
            built, files = build()
        except SpecError as error:
            wrong, files = error, error.files
        writing = look.written(files)
        if writing is None and wrong is not None:
            raise wrong
        if writing is None:
            return built
        if time.monotonic() >= end:
            raise BeingWritten(writing)
        time.sleep(_PAUSE)


class _WriteWatch:
    """Looks at files again and again, and knows since when each is as it is."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[tuple[int, ...], float]] = {}

    def written(self, files: Mapping[str, bytes]) -> str | None:
        """Why one of them is not whole, or not as it was read; None when all are."""
        return next(filter(None, (self._one(path, seen) for path, seen in files.items())), None)

    def _one(self, path: str, seen: bytes) -> str | None:
        again = f"{path} was changed while it was read"
        try:
            writing = None if path.endswith("/") else self._writing(path)
        except (OSError, trust.Untrusted):
            return again if seen else None
        if writing is not None:
            return writing
        try:
            same = spec_files.digest_now(path) == seen
        except spec_files.ReadError:
            same = not seen
        return None if same else again

    def _writing(self, path: str) -> str | None:
        """Who writes to it, or may do so. Raises OSError and Untrusted."""
        with closing(trust.opened(path)) as handle:
            known = has_writer(handle)
            writer = visible_writer(handle) if known is not False else None
            if known or writer is not None:
                who = f"process {writer}" if writer is not None else "somebody"
                return f"{who} has {path} open for writing"
            if known is None and not self._still(path, os.fstat(handle)):
                return f"{path} was changed less than {_STILL:g} s ago"
            return None

    def _still(self, path: str, status: os.stat_result) -> bool:
        """Has it been as it is for long enough? The clock of its server may be another one."""
        now = time.monotonic()
        looks = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._since.get(path)
        if known is None or known[0] != looks:
            self._since[path] = looks, now
            return time.time() - status.st_mtime >= _STILL
        return now - known[1] >= _STILL or time.time() - status.st_mtime >= _STILL
