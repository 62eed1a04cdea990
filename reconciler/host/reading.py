"""Whole files, read through descriptors; never what a symlink leads to.

It must not wait for what is no file, nor read more than it was allowed to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.host.walk import sort_of
from reconciler.model import HostError
from reconciler.records import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, and how it is; ``handle`` is open for reading."""

    data: bytes
    status: os.stat_result
    handle: int


@contextmanager
def reading(folder: int, name: str, path: str, limit: int) -> Iterator[Content | None]:
    """The regular file ``name`` in ``folder``, kept open; None when there is nothing.

    ``path`` is what people are told. Raises HostError when it is something else, a symlink too,
    or longer than ``limit`` bytes, and OSError.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is {sort_of(status)}, not a file; move it away")
        handle = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        yield None
        return
    try:
        data = content(handle, limit + 1)
        if len(data) > limit:
            raise HostError(f"{path} is longer than {limit // 2**20} MiB; it is left alone")
        yield Content(data, os.fstat(handle), handle)
    finally:
        os.close(handle)


def read_in(folder: int, name: str, path: str, limit: int) -> tuple[bytes, os.stat_result] | None:
    """The same, closed again."""
    with reading(folder, name, path, limit) as found:
        return None if found is None else (found.data, found.status)


def content(handle: int, most: int) -> bytes:
    """At most so many bytes from the beginning of what is open there. Raises OSError."""
    chunks = []
    at = 0
    while at < most and (chunk := os.pread(handle, min(most - at, 1 << 20), at)):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)
