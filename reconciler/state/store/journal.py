"""What passes did, enough to take it back, and which of them were taken back.

It must not grow beyond its bounds; of what has left it, it knows the ids.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.walk import closing
from reconciler.state.folder import make_folder
from reconciler.state.store.base import StoreTable

if TYPE_CHECKING:
    import sqlite3

DAYS = 30
LARGEST = 100 << 20
"""Bytes of all that is noted."""
_MOST = 10_000
"""Passes whose numbers are remembered."""
_MOST_IDS = 100_000
"""Ids of steps beyond which no more are remembered of what has left the journal."""


@contextmanager
def undo_lock(folder: str) -> Iterator[bool]:
    """Hold the lock of those who take a pass back; False while another one does.

    It is beside that of passes, which a loop holds all the time. Raises HostError or OSError.
    """
    from reconciler.host.place import own_file

    make_folder(folder)
    with closing(own_file(os.path.join(folder, "undo"))) as handle:
        held = False
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held


@dataclass(frozen=True, slots=True)
class PassRow:
    """A pass by its number. ``undoes`` is the one that it takes back; ``ended``: whole."""

    number: int
    wall: float
    by: str
    undoes: int | None
    ended: bool


class Journal(StoreTable):
    """The passes that have changed something, and what takes each step back."""

    def begin(self, by: str, undoes: int | None = None) -> int:
        """The number of a pass that begins to write."""
        with self._base.change() as base:
            made = base.execute(
                "INSERT INTO passes (wall, by, of) VALUES (?, ?, ?)",
                (self._base.clock.wall(), by, undoes),
            )
            number = int(made.lastrowid or 0)
            for table in ("passes", "journal"):
                base.execute(f"DELETE FROM {table} WHERE pass <= ?", (number - _MOST,))
            return number

    def add(
        self,
        number: int,
        rows: Sequence[tuple[str, bytes | None]],
        definitions: Mapping[str, bytes | None],
    ) -> None:
        """What that pass does, by id, again where it is known better; None: nothing any more. What
        has left its bounds goes."""
        with self._base.change() as base:
            base.executemany(
                "INSERT INTO journal (pass, id, data) VALUES (?, ?, ?) "
                "ON CONFLICT (pass, id) DO UPDATE SET data = excluded.data",
                [(number, ident, data) for ident, data in rows if data is not None],
            )
            gone = [(number, ident) for ident, data in rows if data is None]
            base.executemany("DELETE FROM journal WHERE pass = ? AND id = ?", gone)
            base.execute(
                "UPDATE passes SET size = (SELECT ifnull(sum(length(data)), 0) FROM journal "
                "WHERE pass = ?) WHERE pass = ?",
                (number, number),
            )
            for ident, definition in definitions.items():
                base.execute("DELETE FROM definitions WHERE id = ?", (ident,))
                if definition is not None:
                    base.execute(
                        "INSERT INTO definitions (id, data) VALUES (?, ?)", (ident, definition)
                    )
            self._expire(base, number)

    def _expire(self, base: sqlite3.Connection, number: int) -> None:
        """Let go of what has left its bounds. Of each pass it is known that it has."""
        now = self._base.clock.wall()
        oldest = now - DAYS * 86400
        sizes = "SELECT pass, wall, size FROM passes WHERE size > 0 AND pass != ? ORDER BY pass"
        known = base.execute(sizes, (number,)).fetchall()
        (total,) = base.execute("SELECT sum(size) FROM passes").fetchone()
        # One that was made by a clock which was ahead is as old as the one behind it.
        behind, old, gone = now, set(), False
        for one, wall, _ in reversed(known):
            behind = wall if wall <= now else behind
            if behind < oldest:
                old.add(one)
        for one, _, size in known:
            if one not in old and total <= LARGEST:
                continue
            total, gone = total - size, True
            base.execute("UPDATE journal SET data = NULL WHERE pass = ?", (one,))
            base.execute("UPDATE passes SET size = 0 WHERE pass = ?", (one,))
        if gone:
            last = "SELECT pass FROM journal ORDER BY pass DESC LIMIT 1 OFFSET ?"
            for (one,) in base.execute(last, (_MOST_IDS,)).fetchall():
                base.execute("DELETE FROM journal WHERE pass <= ? AND data IS NULL", (one,))

    def lost(self) -> None:
        """Nothing of the pass that is under way could be written: the one before it must not be
        taken for the last. A file without content is made where there is room for no other."""
        from reconciler.host.place import own_file

        with suppress(OSError, HostError):
            os.close(own_file(self._lost))

    def kept(self) -> None:
        """The pass that is under way is written down."""
        with suppress(OSError):
            os.unlink(self._lost)

    def lost_since(self) -> float | None:
        """When the first pass behind the last one was lost that was written down."""
        with suppress(OSError):
            return os.lstat(self._lost).st_mtime
        return None

    @property
    def _lost(self) -> str:
        return os.path.join(self._base.folder, "unjournaled")

    def ended(self, number: int) -> None:
        """That pass, which takes back another one, is whole."""
        with self._base.change() as base:
            base.execute("UPDATE passes SET done = 1 WHERE pass = ?", (number,))

    def passes(self) -> dict[int, PassRow]:
        """Those with something noted, or that take back another one, by number."""
        rows = self._base.read(
            "SELECT pass, wall, by, of, done FROM passes WHERE of IS NOT NULL "
            "OR pass IN (SELECT pass FROM journal) ORDER BY pass"
        )
        return {row[0]: PassRow(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows}

    def notes(self, number: int) -> list[tuple[str, bytes | None]]:
        """What was noted of that pass, in the order in which it was done; None: it has left."""
        rows = self._base.read(
            "SELECT id, data FROM journal WHERE pass = ? ORDER BY rowid", (number,)
        )
        return [(ident, data) for ident, data in rows]

    def definition(self, ident: str) -> bytes | None:
        """What it was last started from."""
        rows = self._base.read("SELECT data FROM definitions WHERE id = ?", (ident,))
        return rows[0][0] if rows else None
