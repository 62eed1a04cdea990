"""A file of a tree as it was when it was found there, for whoever decides about it later.

It must not look at the host.
"""

# Without annotations from __future__: NamedTuple would compile each of them at every start.
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple


class File(NamedTuple):
    """A regular file as it was when it was looked at.

    ``time`` is what its age is counted from, ``mtime`` and ``ctime`` the kernel's, all in
    nanoseconds since the epoch. ``below`` is its folder below the top, empty for the top itself.
    ``size`` is its length in bytes, and ``taken`` how many of them are allocated: of a file with
    holes it is less, of one in whole blocks not more. Sorted, the oldest comes first.
    """

    time: int
    below: str
    name: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    taken: int

    @property
    def path(self) -> str:
        """Its path below the top."""
        return f"{self.below}/{self.name}" if self.below else self.name

    def is_still(self, status: os.stat_result) -> bool:
        """Is this the same file, unchanged?"""
        return (
            stat.S_ISREG(status.st_mode)
            and (status.st_dev, status.st_ino, status.st_size) == self[3:6]
            and (status.st_mtime_ns, status.st_ctime_ns) == self[6:8]
        )


def by_folder(files: Iterable[File]) -> Iterator[tuple[str, list[File]]]:
    """The files of each folder, the oldest first."""
    ordered = sorted(files, key=lambda file: (file.below, file))
    for below, group in groupby(ordered, key=lambda file: file.below):
        yield below, list(group)
