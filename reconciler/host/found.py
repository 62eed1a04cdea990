"""A file of a tree as it was when it was found there, for whoever decides about it later.

It must not look at the host.
"""

# Without annotations from __future__: NamedTuple would compile each of them at every start.
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple

_BELOW = itemgetter(1)
_NUMBERS = Struct("=qIQQqqqq")


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
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        ) == self[3:8] and stat.S_ISREG(status.st_mode)  # fmt: skip


class Packed(Sequence[File]):
    """Many files in a fifth of the memory that they take one by one."""

    def __init__(self, files: Sequence[File]) -> None:
        folders = {below: at for at, below in enumerate(dict.fromkeys(map(_BELOW, files)))}
        self._folders = tuple(folders)
        self._names = "/".join(file.name for file in files)
        self._numbers = b"".join(
            _NUMBERS.pack(file[0], folders[file[1]], *file[3:]) for file in files
        )

    def __len__(self) -> int:
        return len(self._numbers) // _NUMBERS.size

    def __iter__(self) -> Iterator[File]:
        names = self._names.split("/")
        numbers = _NUMBERS.iter_unpack(self._numbers)
        for name, (time, at, *others) in zip(names, numbers, strict=True):
            yield File(time, self._folders[at], name, *others)

    def by_folder(self) -> Iterator[tuple[str, list[File]]]:
        """The files of each folder, of which those of the others are not unpacked meanwhile."""
        names = self._names.split("/")
        places: dict[int, array[int]] = {at: array("I") for at in range(len(self._folders))}
        for number, values in enumerate(_NUMBERS.iter_unpack(self._numbers)):
            places[values[1]].append(number)
        for below, at in sorted((below, at) for at, below in enumerate(self._folders)):
            group = []
            for number in places.pop(at):
                time, _, *others = _NUMBERS.unpack_from(self._numbers, number * _NUMBERS.size)
                group.append(File(time, below, names[number], *others))
            yield below, group

    def __getitem__(self, at: Any) -> Any:
        return tuple(self)[at]


def by_folder(files: Sequence[File]) -> Iterator[tuple[str, list[File]]]:
    """The files of each folder, the oldest first."""
    if isinstance(files, Packed):
        yield from files.by_folder()
        return
    ordered = sorted(sorted(files), key=_BELOW)
    for below, group in groupby(ordered, key=_BELOW):
        yield below, list(group)
