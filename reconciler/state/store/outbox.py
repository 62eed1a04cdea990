"""Messages on their way: for each target in order, until it has taken them.

It must not hold the URL of a target, nor anything that a person may not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass
from reconciler.base.text import shortened
from reconciler.core.messages import Message, Sent, Trouble, dated, in_one_line, moment, undated
from reconciler.state.folder import delivery_lock
from reconciler.state.store.base import Base, StoreTable

if TYPE_CHECKING:
    import sqlite3

MOST = 20
"""Messages of one sort that wait for one target; more are put together into one."""
BATCH = 10
"""Messages of one delivery: the oldest, those that were given up first."""
_LINES, _WIDTH = 40, 500
"""Lines of such a digest, and characters of each."""
OLDEST = 7 * 86400.0
"""Seconds that a message is kept for a target that does not take it."""
_TRIED = 500
"""Attempts before age counts: the clock may have jumped."""
_FIRST, _LONGEST = 10.0, 300.0
"""Seconds between two attempts, at first and at most."""
DIGEST, DROPPED = "digest", "dropped"
"""Events of messages that are made here."""
URGENT = "gave_up"
"""The event of what goes first, and is put together with its like alone."""
_DIGEST = r"(\d+) messages since ([^;\n]*)(?:; the last \d+)?:\n"
_COLUMNS = "seq, target, event, title, body, wall, tries, boot, due"


@dataclass(frozen=True, slots=True)
class QueuedMessage:
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


def digest(letters: Sequence[QueuedMessage]) -> str:
    """Many messages as one: how many, since when, and the last of them, each in a line."""
    number, since, lines = 0, "", list[str]()
    for letter in letters:
        known = re.match(_DIGEST, letter.body)
        since = since or (known[2] if known else moment(letter.wall))
        number += int(known[1]) if known else 1
        words = shortened(in_one_line(undated(letter.body, letter.wall)), _WIDTH)
        one = f"- {moment(letter.wall)[-5:]} {words}"
        lines += letter.body.split("\n")[1:] if known else [one]
    lines = lines[-_LINES:]
    which = f"; the last {len(lines)}" if number > len(lines) else ""
    return "\n".join([f"{number} messages since {since}{which}:", *lines])


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
            for urgent in (False, True):
                self._fold(base, name, urgent, MOST, False)

    def waiting(self) -> dict[str, list[QueuedMessage]]:
        """What waits for each target, in order."""
        rows = self._base.read(f"SELECT {_COLUMNS} FROM outbox ORDER BY seq")
        found: dict[str, list[QueuedMessage]] = {}
        for row in rows:
            letter = self._letter(row)
            found.setdefault(letter.target, []).append(letter)
        return found

    def _letter(self, row: tuple[Any, ...]) -> QueuedMessage:
        seq, target, event, title, body, wall, tries, boot, due = row
        age = self._base.age(boot, due)
        return QueuedMessage(seq, target, event, title, body, wall, tries, max(0.0, -(age or 0.0)))

    def taken(self, letters: Sequence[QueuedMessage]) -> None:
        """They have arrived; what one that was given up has overtaken says when it was written."""
        with self._base.change() as base:
            gone = [(letter.seq,) for letter in letters]
            base.executemany("DELETE FROM outbox WHERE seq = ?", gone)
            for letter in letters:
                if letter.event == URGENT:
                    rows = base.execute(
                        "SELECT body, wall, seq FROM outbox WHERE target = ? AND seq < ? "
                        f"AND event NOT IN ('{URGENT}', '{DIGEST}', '{DROPPED}')",
                        (letter.target, letter.seq),
                    ).fetchall()
                    changed = [(dated(body, wall), seq) for body, wall, seq in rows]
                    base.executemany("UPDATE outbox SET body = ? WHERE seq = ?", changed)

    def shorten(self, letter: QueuedMessage, body: str) -> None:
        """It goes out once more at once, with another text."""
        with self._base.change() as base:
            base.execute(
                "UPDATE outbox SET body = ?, tries = 0, boot = ?, due = ? WHERE seq = ?",
                (body, self._base.boot, self._base.clock.monotonic(), letter.seq),
            )

    def refused(self, target: str) -> None:
        """It has not taken a message: it gets none for a while, and never what is too old then."""
        with self._base.change() as base:
            ((tries,),) = base.execute(
                "SELECT coalesce(max(tries), 0) + 1 FROM outbox WHERE target = ?", (target,)
            ).fetchall()
            base.execute(
                "UPDATE outbox SET tries = ?, boot = ?, due = ? WHERE target = ?",
                (tries, self._base.boot, self._base.clock.monotonic() + pause(tries), target),
            )
            if tries >= _TRIED:
                self._drop(base, target, "wall < ?", (self._base.clock.wall() - OLDEST,))

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

    def fold(self, target: str) -> None:
        """Put together into one what waits for that target, but for what was given up."""
        with self._base.change() as base:
            self._fold(base, target, False, 1, True)

    def _fold(
        self, base: sqlite3.Connection, target: str, urgent: bool, most: int, now: bool
    ) -> None:
        """Put more than ``most`` messages together; ``now``: it is to be delivered at once.

        What may be on its way just now stays as it is, or it would be told again in it.
        """
        sort = f"target = ? AND (event = '{URGENT}') = ? AND event != '{DROPPED}'"
        rows = base.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE {sort} ORDER BY seq", (target, urgent)
        ).fetchall()
        if len(rows) <= most:
            return
        if not now and self._is_delivered_from():
            rows = rows[BATCH:]
        letters = [self._letter(row) for row in rows]
        first, last = letters[0], letters[-1]
        event = first.event if urgent else DIGEST
        due = self._base.clock.monotonic() + (0.0 if now else max(one.left for one in letters))
        base.execute(
            "INSERT INTO outbox (target, event, title, body, wall, tries, boot, due) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (target, event, last.title, digest(letters), last.wall, first.tries, self._base.boot,
             due),
        )  # fmt: skip
        which = f"{sort} AND seq BETWEEN ? AND ?"
        base.execute(f"DELETE FROM outbox WHERE {which}", (target, urgent, first.seq, last.seq))

    def _is_delivered_from(self) -> bool:
        """Are messages on their way just now?"""
        lock = delivery_lock(self._base.folder)
        if lock is not None:
            os.close(lock)
        return lock is None

    def only(self, targets: Collection[str]) -> None:
        """Forget the messages for all others: nobody wants them any more."""
        rows = self._base.read("SELECT DISTINCT target FROM outbox")
        gone = [(name,) for (name,) in rows if name not in targets]
        if gone:
            with self._base.change() as base:
                base.executemany("DELETE FROM outbox WHERE target = ?", gone)


class SentMessages(StoreTable):
    """How many messages went out about a thing within an hour, and how many were held back."""

    def all(self) -> dict[tuple[str, str], Sent]:
        """By event and id."""
        rows = self._base.read("SELECT event, id, count, held, wall, boot, at FROM sent")
        return {
            (event, ident): Sent(count, held, wall, self._base.age(boot, at))
            for event, ident, count, held, wall, boot, at in rows
        }

    def replace(self, base: sqlite3.Connection, now: Mapping[tuple[str, str], Sent]) -> None:
        """Keep these and no others, within a change that was begun."""
        base.execute("DELETE FROM sent")
        clock = self._base.clock.monotonic()
        base.executemany(
            "INSERT INTO sent (event, id, count, held, wall, boot, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                # Of one of another boot the hour is over.
                (
                    *key,
                    one.count,
                    one.held,
                    one.wall,
                    self._base.boot if one.age is not None else "",
                    clock - (one.age or 0.0),
                )
                for key, one in now.items()
            ],
        )


class Troubles(StoreTable):
    """What people were told is wrong, until they are told that it has recovered."""

    def all(self) -> dict[str, Trouble]:
        """Those that are open, by id."""
        rows = self._base.read("SELECT id, event, reason, wall, boot, at FROM troubles")
        return {
            ident: Trouble(event, reason, wall, self._base.age(boot, at))
            for ident, event, reason, wall, boot, at in rows
        }

    def replace(
        self, base: sqlite3.Connection, before: Mapping[str, Trouble], now: Mapping[str, Trouble]
    ) -> None:
        """Keep those of ``now``, within a change that was begun."""
        for ident in before.keys() - now.keys():
            base.execute("DELETE FROM troubles WHERE id = ?", (ident,))
        for ident, one in now.items():
            # When they were told before another boot, the time until the next reminder begins now.
            if one != before.get(ident) or one.told is None:
                at = self._base.clock.monotonic() - (one.told or 0.0)
                base.execute(
                    "INSERT OR REPLACE INTO troubles (id, event, reason, wall, boot, at) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (ident, one.event, one.reason, one.wall, self._base.boot, at),
                )


@dataclass(frozen=True, slots=True)
class Reported:
    """``wall`` is in seconds since the epoch, ``age`` in seconds, None: before this boot.

    ``figures`` are those of that time.
    """

    wall: float
    age: float | None
    figures: dict[str, Any]


class ReportTable(StoreTable):
    """What was reported last, by the length of the period in seconds."""

    def all(self) -> dict[float, Reported]:
        """The last one of each period."""
        import json

        found = {}
        rows = self._base.read("SELECT period, boot, at, wall, figures FROM reports")
        for period, boot, at, wall, figures in rows:
            try:
                known = json.loads(figures)
            except ValueError:
                known = {}
            found[float(period)] = Reported(wall, self._base.age(boot, at), known)
        return found

    def made(self, periods: Collection[float], figures: dict[str, Any]) -> None:
        """One of each of these is made now, and the next period begins."""
        import json

        clock = self._base.clock
        row = self._base.boot, clock.monotonic(), clock.wall(), json.dumps(figures)
        with self._base.change() as base:
            for period in periods:
                base.execute(
                    "INSERT OR REPLACE INTO reports (period, boot, at, wall, figures) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (period, *row),
                )
