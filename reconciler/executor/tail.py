"""The end of a log, and what is written to it from then on, across its rotation.
Must not print it, nor change it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from reconciler.executor import files

_EVERY = 0.2  # seconds between two looks
_MOST = 1 << 20  # bytes in which the last lines are looked for


def tail(path: str, count: int, follow: bool) -> Iterator[bytes]:
    """The last lines, and with `follow` all that comes, for ever. Raises OSError.

    Where the log was rotated lately, its last lines are those of `path`.1. A log that is not
    there is waited for with `follow`.
    """
    before = b""
    with contextlib.suppress(OSError):
        before = _last_of(files.open_shown(f"{path}.1"), count)
    try:
        fd: int | None = files.open_shown(path)
    except FileNotFoundError:
        if not before and not follow:
            raise
        fd = None
    data = b"" if fd is None else _last_of(fd, count, close=False)
    yield b"".join((before + data).splitlines(keepends=True)[-count:])
    while follow:
        time.sleep(_EVERY)
        if fd is None:
            with contextlib.suppress(FileNotFoundError):
                fd = files.open_shown(path)
            if fd is None:
                continue
        # Looked at before reading: whoever writes to the new one is through with the old one.
        replaced = os.path.lexists(path) and not files.same_file(fd, path)
        if os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)  # it was cut
        while data := os.read(fd, 65536):
            yield data
        if replaced:
            os.close(fd)
            fd = None


def _last_of(fd: int, count: int, close: bool = True) -> bytes:
    """The last whole lines of what is open; it stands at its end afterwards."""
    try:
        end = os.fstat(fd).st_size
        begin = max(0, end - _MOST)
        os.lseek(fd, begin, os.SEEK_SET)
        data = os.read(fd, end - begin)
    finally:
        if close:
            os.close(fd)
    if begin:
        data = data.partition(b"\n")[2]
    return b"".join(data.splitlines(keepends=True)[-count:])
