"""What a permission has found to be wrong, however many paths that are, and what sets them right.

It must not look at the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass, replace
from reconciler.base.text import count_of
from reconciler.core.attributes import Attributes, SetAttributes
from reconciler.host.walk import shown

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.refusals import Refused


@dataclass(frozen=True, slots=True)
class WrongEntry:
    """A path that is not as it should be; ``named`` and so on are as in ``SetAttributes``."""

    path: str
    have: Attributes
    want: Attributes
    directory: bool
    named: bool = True
    top: str | None = None
    identity: tuple[int, int] = (0, 0)
    refused: Refused | None = None


_Values = tuple[str | None, str | None, str | None]
FormerEntry = tuple[str, tuple[int, int], _Values, _Values]
"""A path, its device and inode, what it had before a pass, and what it was given."""


class FormerEntries:
    """What is asked of paths by what they had before a pass, if they are still what they were."""

    def __init__(self, entries: Sequence[FormerEntry]) -> None:
        self._entries = {
            path: (identity, Attributes(*had), Attributes(*got))
            for path, identity, had, got in entries
        }
        self._left = dict.fromkeys(self._entries)
        """Those that were not found as the pass left them, or as they were before."""

    def of_entry(self, path: str, status: os.stat_result, host: Host) -> Attributes:
        """What is asked of it; nothing, where it is another one by now."""
        known = self._entries.get(path)
        if known is None or known[0] not in ((0, 0), (status.st_dev, status.st_ino)):
            return Attributes()
        self._left.pop(path, None)
        return known[1]

    def was_given(self, one: WrongEntry) -> bool:
        """Has it still what it was given?"""
        got = self._entries[one.path][2]
        # Where something is refused, it is said whose it is, whatever was asked.
        have = replace(one.have, owner=None) if one.refused and got.owner is None else one.have
        if have == got:
            return True
        self._left[one.path] = None
        return False

    def changed(self) -> str | None:
        """Those that somebody has changed or taken away since, in words."""
        if not self._left:
            return None
        first, more = next(iter(self._left)), len(self._left) - 1
        others = f" and {count_of(more, 'other')} were" if more else " was"
        return f"{shown(first)}{others} changed or taken away since, and left as it is"


_Common = tuple[Attributes, Attributes, bool, bool, str | None, "Refused | None"]
"""What many entries have alike: all fields but path and identity."""
_NUMBERS = Struct("=QQQI")
_ROOT = Struct("=QQ")


class PackedEntries(Sequence[WrongEntry]):
    """Very many of them, each in the room of its name and a few numbers.

    What stands by itself, in no tree, is equal whatever its device and inode, which ``roots`` has.
    """

    def __init__(self) -> None:
        self.roots = bytearray()
        self._paths = bytearray()
        self._numbers = bytearray()
        self._common: dict[_Common, int] = {}
        self._listed: list[_Common] = []

    def append(self, one: WrongEntry) -> None:
        """Add it at the end."""
        common = one.have, one.want, one.directory, one.named, one.top, one.refused
        number = self._common.setdefault(common, len(self._listed))
        if number == len(self._listed):
            self._listed.append(common)
        self._paths += os.fsencode(one.path.removeprefix(one.top or ""))
        identity = one.identity
        if one.top is None:
            self.roots += _ROOT.pack(*identity)
            identity = 0, 0
        self._numbers += _NUMBERS.pack(*identity, len(self._paths), number)

    def former(self) -> Iterator[FormerEntry]:
        """What each of them has, and is given, but for those that are refused."""
        roots = _ROOT.iter_unpack(self.roots)
        start = 0
        for device, inode, end, number in _NUMBERS.iter_unpack(self._numbers):
            have, want, _, _, top, refused = self._listed[number]
            identity = next(roots) if top is None else (device, inode)
            if refused is None:
                had, got = ((one.mode, one.owner, one.group) for one in (have, want))
                yield self._path(top, start, end), identity, had, got
            start = end

    def refused(self) -> Iterator[Refused]:
        """Of those that are refused."""
        return (refused for *_, refused in self._listed if refused is not None)

    def __len__(self) -> int:
        return len(self._numbers) // _NUMBERS.size

    def __iter__(self) -> Iterator[WrongEntry]:
        start = 0
        for device, inode, end, number in _NUMBERS.iter_unpack(self._numbers):
            yield self._entry((device, inode), start, end, number)
            start = end

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        device, inode, end, number = _NUMBERS.unpack_from(self._numbers, at * _NUMBERS.size)
        start = _NUMBERS.unpack_from(self._numbers, (at - 1) * _NUMBERS.size)[2] if at else 0
        return self._entry((device, inode), start, end, number)

    def _entry(self, identity: tuple[int, int], start: int, end: int, number: int) -> WrongEntry:
        have, want, directory, named, top, refused = self._listed[number]
        path = self._path(top, start, end)
        return WrongEntry(path, have, want, directory, named, top, identity, refused)

    def _path(self, top: str | None, start: int, end: int) -> str:
        return (top or "") + os.fsdecode(bytes(self._paths[start:end]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedEntries):
            return NotImplemented
        return (
            self._paths == other._paths
            and self._numbers == other._numbers
            and self._listed == other._listed
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class WrongEntries:
    """Everything below the path that is not as it should be; should be empty."""

    paths: Sequence[WrongEntry] = ()


@dataclass(frozen=True, slots=True)
class SetOnAll(Sequence[SetAttributes]):
    """The actions that set right so many entries, made one by one."""

    entries: Sequence[WrongEntry]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        one = self.entries[at]
        return SetAttributes(
            one.path, one.want, one.directory, one.named, one.top, one.identity, one.refused
        )
