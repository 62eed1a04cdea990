"""How far long work has come, told to whoever watches.

It must not know who that is, nor cost anything that counts where nobody watches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from reconciler.base.records import dataclass, field
from reconciler.host.command import still_waiting

COUNT, BYTES = "", "bytes"
"""What work is counted in: things, or bytes."""


@dataclass(slots=True, eq=False)
class Work:
    """Something that may take long: what in words, and how much of it is done.

    ``unit`` is COUNT or BYTES; ``total`` None: nobody knows how much there is.
    """

    what: str
    unit: str
    total: int | None
    done: int = field(default=0)

    def advance(self, by: int = 1) -> None:
        """So much more is done. To be called now and then; that it hangs is said by its silence."""
        self.done += by
        still_waiting()
        for watcher in _watchers:
            watcher.moved(self)


class Watcher(Protocol):
    """Hears of work. It must not raise, nor take long."""

    def begins(self, work: Work) -> None:
        """It begins; work within work begins later and ends sooner."""

    def moved(self, work: Work) -> None:
        """More of it is done."""

    def ends(self, work: Work) -> None:
        """It has come to an end, whichever."""


_watchers: list[Watcher] = []


def watch(watcher: Watcher) -> None:
    """Have ``watcher`` told of all work of this process from now on."""
    _watchers.append(watcher)


def unwatched() -> None:
    """Nobody is told any more: for a child, whose parent has the watchers."""
    _watchers.clear()


@contextmanager
def working(what: str, total: int | None, unit: str = COUNT) -> Iterator[Work]:
    """Work that is done within this context; call ``advance`` of what it gives."""
    work = Work(what, unit, total)
    for watcher in _watchers:
        watcher.begins(work)
    try:
        yield work
    finally:
        for watcher in _watchers:
            watcher.ends(work)
