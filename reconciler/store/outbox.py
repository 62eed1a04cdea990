"""Messages on their way: for each target in order, until it has taken them.

It must not hold the URL of a target, nor anything that a person may not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from reconciler.messages import Message, listing, moment
from reconciler.records import dataclass
from reconciler.store.base import Base

if TYPE_CHECKING:
    import sqlite3

MOST = 1000
"""Messages that are kept for one target."""
OLDEST = 7 * 86400.0
"""Seconds that a message is kept for a target that does not take it."""
_TRIED = 500
"""Attempts before age counts: the clock may have jumped."""
_FIRST, _LONGEST = 10.0, 300.0
"""Seconds between two attempts, at first and at most."""
DIGEST, DROPPED = "digest", "dropped"
"""Events of messages that are made here."""
_COLUMNS = "seq, target, event, title, body, wall, tries, boot, due"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message for a target. ``left`` are the seconds until it is tried (again)."""

    seq: int
    target: str
    event: str
    title: str
    body: str
    wall: float
    tries: int
    left: float


def pause(tries: int) -> float:
    """Seconds after an attempt that failed, the ``tries``-th."""
    return float(min(_LONGEST, _FIRST * 2.0 ** min(tries - 1, 10)))


class Outbox:
    """The table of messages; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def add(
        self, base: sqlite3.Connection, title: str, letters: Iterable[tuple[str, Message]]
    ) -> None:
        """Messages for targets, within a change that was begun."""
        now, wall = self._base.clock.monotonic(), self._base.clock.wall()
        rows = [
            (name, one.event, title, one.body, wall, 0, self._base.boot, now)
            for name, one in letters
        ]
        base.executemany(
            "INSERT INTO outbox (target, event, title, body, wall, tries, boot, due) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        for name in dict.fromkeys(row[0] for row in rows):
            self._drop(
                base, name, "seq NOT IN (SELECT seq FROM outbox WHERE target = ? "
                "ORDER BY seq DESC LIMIT ?)", (name, MOST)
            )  # fmt: skip

    def heads(self, only: str | None = None) -> list[Letter]:
        """The next message for each target; ``only``: of that event."""
        rows = self._base.read(
            f"SELECT {_COLUMNS} FROM outbox WHERE seq IN "
            "(SELECT min(seq) FROM outbox WHERE ? IS NULL OR event = ? GROUP BY target)",
            (only, only),
        )
        return [self._letter(row) for row in rows]

    def fresh(self, target: str) -> list[Letter]:
        """Its messages that were never tried, in order."""
        rows = self._base.read(
            f"SELECT {_COLUMNS} FROM outbox WHERE target = ? AND tries = 0 ORDER BY seq", (target,)
        )
        return [self._letter(row) for row in rows]

    def _letter(self, row: tuple[Any, ...]) -> Letter:
        seq, target, event, title, body, wall, tries, boot, due = row
        age = self._base.age(boot, due)
        return Letter(seq, target, event, title, body, wall, tries, max(0.0, -(age or 0.0)))

    def taken(self, letter: Letter) -> None:
        """It has arrived."""
        with self._base.change() as base:
            base.execute("DELETE FROM outbox WHERE seq = ?", (letter.seq,))

    def shorten(self, letter: Letter, body: str) -> None:
        """It goes out once more at once, with another text."""
        with self._base.change() as base:
            base.execute(
                "UPDATE outbox SET body = ?, tries = 0, boot = ?, due = ? WHERE seq = ?",
                (body, self._base.boot, self._base.clock.monotonic(), letter.seq),
            )

    def refused(self, letter: Letter) -> None:
        """It has not; it is tried again after a pause, unless it is too old by then."""
        due = self._base.clock.monotonic() + pause(letter.tries + 1)
        with self._base.change() as base:
            base.execute(
                "UPDATE outbox SET tries = ?, boot = ?, due = ? WHERE seq = ?",
                (letter.tries + 1, self._base.boot, due, letter.seq),
            )
            if letter.tries + 1 >= _TRIED:
                oldest = self._base.clock.wall() - OLDEST
                self._drop(base, letter.target, "wall < ?", (oldest,))

    def _drop(
        self, base: sqlite3.Connection, target: str, which: str, values: tuple[Any, ...]
    ) -> None:
        """Drop some of a target's messages, and say so in one."""
        where = f"target = ? AND event != '{DROPPED}' AND {which}"
        rows = base.execute(
            f"SELECT seq, title, wall, tries, boot, due FROM outbox WHERE {where} ORDER BY seq",
            (target, *values),
        ).fetchall()
        if not rows:
            return
        said = base.execute(
            "SELECT seq, body, wall FROM outbox WHERE target = ? AND event = ?", (target, DROPPED)
        ).fetchone()
        seq, title, wall, tries, boot, due = rows[0]
        number = len(rows)
        base.execute(f"DELETE FROM outbox WHERE {where}", (target, *values))
        if said is not None:
            seq, wall = said[0], said[2]
            number += int(said[1].split()[0])
        words = "1 message" if number == 1 else f"{number} messages"
        were = "was" if number == 1 else "were"
        body = f"{words} from {moment(wall)} on could not be delivered here and {were} dropped"
        base.execute(
            "INSERT OR REPLACE INTO outbox (seq, target, event, title, body, wall, tries, boot, "
            "due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, target, DROPPED, title, body, wall, tries, boot, due),
        )

    def fold(self, letters: list[Letter]) -> None:
        """Make one digest of these messages for one target."""
        first = letters[0]
        lines = (f"{moment(letter.wall)[-5:]} {letter.body}" for letter in letters)
        body = listing(f"{len(letters)} messages from the quiet hours:", lines)
        with self._base.change() as base:
            base.executemany(
                "DELETE FROM outbox WHERE seq = ?", [(letter.seq,) for letter in letters[1:]]
            )
            base.execute(
                "UPDATE outbox SET event = ?, body = ? WHERE seq = ?", (DIGEST, body, first.seq)
            )

    def only(self, targets: Collection[str]) -> None:
        """Forget the messages for all others: nobody wants them any more."""
        rows = self._base.read("SELECT DISTINCT target FROM outbox")
        gone = [(name,) for (name,) in rows if name not in targets]
        if gone:
            with self._base.change() as base:
                base.executemany("DELETE FROM outbox WHERE target = ?", gone)
