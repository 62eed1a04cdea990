"""A directory and what is below it, reached through descriptors alone.

It must not follow a symlink below the top, nor leave the mount that the top is on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

from reconciler.host.walk import opened
from reconciler.model import HostError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class File(NamedTuple):
    """A regular file as it was when it was looked at.

    ``time`` is what its age is counted from, ``mtime`` and ``ctime`` the kernel's, all in
    nanoseconds since the epoch. ``below`` is its folder below the top, empty for the top itself.
    ``size`` is in bytes. Sorted, the oldest comes first.
    """

    time: int
    below: str
    name: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @property
    def path(self) -> str:
        """Its path below the top."""
        return f"{self.below}/{self.name}" if self.below else self.name

    def is_still(self, status: os.stat_result) -> bool:
        """Is this the same file, unchanged?"""
        return (
            stat.S_ISREG(status.st_mode)
            and (status.st_dev, status.st_ino, status.st_size) == self[3:6]
            and (status.st_mtime_ns, status.st_ctime_ns) == self[6:]
        )


class Elsewhere(OSError):
    """A folder or file below the top is a mount point, and therefore left alone."""


class Tree:
    """An open directory. Raises OSError or HostError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        with opened(path) as top:
            self.top = os.open(".", _FOLDER, dir_fd=top)
        self._device = os.fstat(self.top).st_dev
        self._mount = mount_of(self.top)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.top)

    def enter(self, below: str) -> int:
        """A new descriptor of a folder below the top, for reading.

        Raises Elsewhere for another mount, and OSError for a symlink on the way.
        """
        here = os.open(".", _FOLDER, dir_fd=self.top)
        try:
            for name in below.split("/") if below else ():
                there = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = there
                self._stay(here)
        except BaseException:
            os.close(here)
            raise
        return here

    def _stay(self, handle: int) -> None:
        # A bind mount of the same file system has the same device, but another mount.
        if os.fstat(handle).st_dev != self._device or mount_of(handle) != self._mount:
            raise Elsewhere(errno.EXDEV, "it is a mount point")

    @contextmanager
    def folder(self, below: str) -> Iterator[int]:
        """The same for a while."""
        handle = self.enter(below)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def opened_file(self, folder: int, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """A descriptor of the file ``name`` in ``folder``, never of a link or another mount."""
        handle = os.open(name, flags | _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Elsewhere(errno.EXDEV, "it is no regular file")
            # Not by its device: overlayfs may give a file another one than the folder it is in.
            if mount_of(handle) != self._mount:
                raise Elsewhere(errno.EXDEV, "it is a mount point")
            yield handle
        finally:
            os.close(handle)


def by_folder(files: Iterable[File]) -> Iterator[tuple[str, list[File]]]:
    """The files of each folder, the oldest first."""
    ordered = sorted(files, key=lambda file: (file.below, file))
    for below, group in groupby(ordered, key=lambda file: file.below):
        yield below, list(group)


def mount_of(handle: int) -> str:
    """The number of the mount that a descriptor is on, proc(5), ``fdinfo``. Raises HostError."""
    try:
        info = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError("/proc is not mounted, so mount points cannot be told") from None
    try:
        text = os.read(info, 512)
    finally:
        os.close(info)
    return text.partition(b"mnt_id:")[2].split(None, 1)[0].decode()
