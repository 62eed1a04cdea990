"""Which of a stream of files are due, in memory that does not grow with those that are not.

It must not look at the host. What is due is always the oldest of what is not protected, so that
two bounded lists are enough: the newest, which are kept, and the oldest of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from operator import itemgetter
from typing import Any

from reconciler.base.records import dataclass, field
from reconciler.host.found import File, Packed
from reconciler.host.periods import Backups

_PIECE = 1000
"""Files that are handed to another process at once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``before`` in nanoseconds since the epoch, ``total`` in bytes; None where not asked for.

    The ``keep`` newest stay, whatever the others say, and of ``backups`` so many of each sort: the
    newest ones of the last days, weeks and months that have any. At most ``most`` are chosen.
    """

    keep: int | None
    before: int | None
    total: int | None
    most: int
    backups: tuple[tuple[str, int], ...] = ()

    @property
    def only_age(self) -> bool:
        """Does a file that is not old have no bearing on anything?"""
        return self.keep is None and self.total is None and not self.backups


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files to act on, and how many more are due.

    ``more_bytes`` must go besides because of the total, where their number is not known.
    """

    files: Packed = field(default_factory=Packed)
    more: int = 0
    more_bytes: int = 0


class Chooser:
    """Takes every file that matches, and tells in the end which are due."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._newest: list[File] = []
        self._oldest = Packed()
        self._fresh: list[File] = []
        """Those that are to be packed next."""
        self._bytes = 0
        self._links: dict[tuple[int, int], tuple[int, int]] = {}
        """Of files with several names: how many of those were seen, and the bytes of all."""
        self._due = 0
        self._backups = Backups(rule.backups)

    def add(self, file: File, linked: bool = False) -> None:
        """One more file that matches; every one, unless the rule is only about age.

        ``linked``: it has more than one name, and so may come again.
        """
        if linked and self._rule.total is not None:
            self._link((file.device, file.inode), 1, file.taken)
        else:
            self._bytes += file.taken
        if self._rule.backups:
            for one in self._backups.offer(file):
                self._release(one)
        elif self._rule.keep:
            self._keep(file, self._rule.keep)
        else:
            self._release(file)

    def must(self, file: File) -> None:
        """A file that is due for another reason than the rule's."""
        self._due += 1
        self._hold(file)

    def _link(self, key: tuple[int, int], names: int, size: int) -> None:
        before, _ = self._links.get(key, (0, 0))
        self._links[key] = before + names, size

    def _keep(self, file: File, number: int) -> None:
        if len(self._newest) < number:
            heappush(self._newest, file)
        else:
            self._release(heappushpop(self._newest, file))

    def _release(self, file: File) -> None:
        rule = self._rule
        if (rule.total is None) if rule.before is None else (file.time < rule.before):
            self._due += 1
        elif rule.total is None:
            return
        self._hold(file)

    def hold(self, below: str, names: Sequence[str], numbers: Sequence[bytes]) -> None:
        """Files of one folder that are old, packed, under a rule that is only about age."""
        self._due += len(names)
        self._oldest.put(below, names, numbers)
        self._shorten()

    def _hold(self, file: File) -> None:
        self._fresh.append(file)
        if len(self._fresh) >= _PIECE:
            self._pack()

    def _pack(self) -> None:
        for file in Packed(sorted(self._fresh, key=itemgetter(1))).plain():
            self._oldest.add_plain(file)
        self._fresh.clear()
        self._shorten()

    def _shorten(self) -> None:
        if len(self._oldest) > self._rule.most * 9 // 8 + _PIECE:
            self._oldest = self._oldest.oldest(self._rule.most)

    def plain(self) -> Iterator[Any]:
        """All that it knows as plain values, in pieces, for another process."""
        self._pack()
        yield self._bytes, self._links, self._due
        newest = [*self._newest, *self._backups.files()]
        for at in range(0, len(newest), _PIECE):
            yield [tuple(file) for file in newest[at : at + _PIECE]]
        yield from self._oldest.plain()

    def merge(self, pieces: Iterable[Any]) -> None:
        """Take over what another one knows about other files, under the same rule."""
        pieces = iter(pieces)
        size, links, due = next(pieces)
        self._bytes += size
        for key, (names, taken) in links.items():
            self._link(key, names, taken)
        self._due += due
        for piece in pieces:
            if not isinstance(piece, list):
                self._oldest.add_plain(piece)
                self._shorten()
                continue
            for values in piece:
                if self._rule.backups:
                    for one in self._backups.offer(File(*values)):
                        self._release(one)
                else:
                    self._keep(File(*values), self._rule.keep or 0)

    def chosen(self) -> Chosen:
        """The answer."""
        self._pack()
        self._oldest = self._oldest.oldest(self._rule.most)
        if self._rule.total is None:
            return Chosen(self._oldest, self._due - len(self._oldest))
        files = sorted(self._oldest)
        # Those that are old come first, and then as many as it takes until the rest fits.
        excess = self._bytes + sum(size for _, size in self._links.values()) - self._rule.total
        left = {key: names for key, (names, _) in self._links.items()}
        number = 0
        for file in files:
            if number >= self._due and excess <= 0:
                break
            number += 1
            key = file.device, file.inode
            if key in left:
                left[key] -= 1
            if not left.get(key):  # Only its last name has room in it.
                excess -= file.taken
        more = max(0, self._due - number)
        braked = number == self._rule.most
        return Chosen(Packed(files[:number]), more, max(0, excess) if braked else 0)
