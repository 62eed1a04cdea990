"""A file of a tree as it was when it was found there, for whoever decides about it later.

It must not look at the host.
"""

# Without annotations from __future__: NamedTuple would compile each of them at every start.
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple

_BELOW = itemgetter(1)
_FORMAT = "=qQQqqqq"
_NUMBERS = Struct(_FORMAT)
DEVICE, INODE, SIZE, TAKEN = 1, 2, 3, 6
pack, unpacked = _NUMBERS.pack, _NUMBERS.iter_unpack
_made = tuple.__new__  # A named tuple's own takes twice as long.


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
    """Many files in a fifth of the memory that they take one by one, in no order of age."""

    def __init__(self, files: Sequence[File] = ()) -> None:
        self._groups: list[tuple[str, str, bytes]] = []
        """A folder, the names of its files with slashes between, and their numbers."""
        self._count = 0
        for below, group in groupby(files, key=_BELOW):
            part = list(group)
            numbers = [pack(file[0], *file[3:]) for file in part]
            self.put(below, [file.name for file in part], numbers)

    def put(self, below: str, names: Sequence[str], numbers: Sequence[bytes]) -> None:
        """Add files of one folder; their numbers as ``pack`` gives them."""
        if names:
            self._groups.append((below, "/".join(names), b"".join(numbers)))
            self._count += len(names)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[File]:
        for below, names, numbers in self._groups:
            for name, (time, *others) in zip(names.split("/"), unpacked(numbers), strict=True):
                yield _made(File, (time, below, name, *others))

    def __getitem__(self, at: Any) -> Any:
        return tuple(self)[at]

    def column(self, at: int) -> Iterator[int]:
        """One number of each: 0 time, DEVICE, INODE, SIZE, 4 mtime, 5 ctime, or bytes TAKEN."""
        return chain.from_iterable(_column(numbers, at) for _, _, numbers in self._groups)

    def plain(self) -> Iterator[tuple[str, str, bytes]]:
        """All of it as plain values, for ``add_plain`` in another process."""
        return iter(self._groups)

    def add_plain(self, group: tuple[str, str, bytes]) -> None:
        """Take over some of another one."""
        self._groups.append(group)
        self._count += len(group[2]) // _NUMBERS.size

    def by_folder(self) -> Iterator[tuple[str, "Packed"]]:
        """The files of each folder, the oldest first."""
        for below, names, numbers in self._by_folder():
            times = _column(numbers, 0)
            order = sorted(range(len(times)), key=times.__getitem__)
            part = Packed()
            part.put(below, [names[at] for at in order], [_nth(numbers, at) for at in order])
            yield below, part

    def oldest(self, most: int) -> "Packed":
        """The oldest of them, at most so many."""
        if self._count <= most:
            return self
        # By their times alone, since all of them one by one would take the memory.
        limit = sorted(self.column(0))[most - 1] if most else -1
        ties = most - sum(time < limit for time in self.column(0))
        found = Packed()
        for below, names, numbers in self._by_folder():
            times = _column(numbers, 0)
            chosen = [at for at, time in enumerate(times) if time < limit]
            last = sorted((names[at], at) for at, time in enumerate(times) if time == limit)[:ties]
            ties -= len(last)
            chosen += [at for _, at in last]
            found.put(below, [names[at] for at in chosen], [_nth(numbers, at) for at in chosen])
        return found

    def _by_folder(self) -> Iterator[tuple[str, list[str], bytes]]:
        for below, groups in groupby(sorted(self._groups, key=itemgetter(0)), key=itemgetter(0)):
            parts = list(groups)
            names = "/".join(names for _, names, _ in parts).split("/")
            yield below, names, b"".join(numbers for _, _, numbers in parts)


def _column(numbers: bytes, at: int) -> "memoryview[int]":
    return memoryview(numbers).cast(_FORMAT[at + 1])[at :: len(_FORMAT) - 1]  # type: ignore


def _nth(numbers: bytes, at: int) -> bytes:
    return numbers[at * _NUMBERS.size : (at + 1) * _NUMBERS.size]


def by_folder(files: Sequence[File]) -> Iterator[tuple[str, Packed]]:
    """The files of each folder, the oldest first."""
    packed = files if isinstance(files, Packed) else Packed(sorted(files, key=_BELOW))
    return packed.by_folder()
