"""What a retention has found to be due, and how that is told to people.

It must not look at the host, nor decide what is due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.base.records import dataclass, field
from reconciler.core.model import Change
from reconciler.host.found import TAKEN, Packed
from reconciler.host.walk import joined

_OLDEST = 3
_MOST_NAMES = 20
Log = tuple[str, str]
"""A log: its folder below the top, and its name."""


@dataclass(frozen=True, slots=True)
class Due:
    """The files that are due; none should be.

    ``unfinished`` are logs whose rotation a pass began and did not end, ``uncompressed`` those
    that are rotated and should be compressed. ``now`` is the time of the look, in nanoseconds
    since the epoch, and ``goal`` the name of the archive at that time. ``empty`` are folders.
    ``called`` has, by their paths, the names that some of the files are to have where they go.
    """

    files: Packed = field(default_factory=Packed)
    unfinished: tuple[Log, ...] = ()
    uncompressed: tuple[Log, ...] = ()
    now: int = 0
    goal: str | None = None
    empty: tuple[str, ...] = ()
    called: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.unfinished or self.uncompressed or self.empty)

    def goals(self) -> Iterator[str]:
        """The paths that the files are to have where they go."""
        called = dict(self.called)
        return (joined(one.below, called.get(one.path, one.name)) for one in self.files)

    def changes(self) -> tuple[Change, ...]:
        """What is due, as the plan tells it."""
        found = []
        files = self.files
        if files:
            first = sorted(files.oldest(_OLDEST))
            oldest = [f"{file.path} ({age(self.now - file.time)})" for file in first]
            found += [
                Change("files", len(files), 0),
                Change("bytes", sum(files.column(TAKEN)), 0),
                Change("oldest", oldest, []),
            ]
        if self.empty:
            found.append(Change("empty", list(self.empty[:_MOST_NAMES]), []))
        for word, logs in (("unfinished", self.unfinished), ("uncompressed", self.uncompressed)):
            if logs:
                names = ["/".join(part for part in log if part) for log in logs[:_MOST_NAMES]]
                found.append(Change(word, names, []))
        return tuple(found)


def in_words(changes: Sequence[Change]) -> str:
    """``200 files (1.2 MiB) are due, oldest a.log (3 d), b.log (2 d), c.log (2 d)``."""
    have = {change.field: change.have for change in changes}
    words = []
    if "files" in have:
        number = counted(have["files"], "file")
        verb = "is" if have["files"] == 1 else "are"
        words.append(f"{number} ({size(have['bytes'])}) {verb} due, oldest ")
        words[-1] += ", ".join(have["oldest"])
    if "empty" in have:
        verb = "is" if len(have["empty"]) == 1 else "are"
        words.append(f"{', '.join(have['empty'])} {verb} empty")
    if "unfinished" in have:
        words.append(f"the rotation of {', '.join(have['unfinished'])} was not finished")
    if "uncompressed" in have:
        words.append(f"{', '.join(have['uncompressed'])} should be compressed")
    return "; ".join(words)


def counted(number: int, word: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def size(number: int) -> str:
    """Bytes in words: ``512 B``, ``1.2 MiB``."""
    if number < 1024:
        return f"{number} B"
    value, units = number / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def age(nanoseconds: int) -> str:
    """A time span in its largest unit: ``3 d``, ``5 h``; the future is ``0 s``."""
    seconds = max(0, nanoseconds // 10**9)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
