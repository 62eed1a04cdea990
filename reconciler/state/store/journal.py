"""What passes did, enough to take it back, and which of them were taken back.

It must not grow beyond its bounds; of what has left it, it knows the ids.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, is_record, name_of, options
from reconciler.base.values import Secret
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
_SHORT = 1 << 18
"""Bytes that are not worth the time of packing: some thousand steps."""
_NEWER = "it was noted by a newer version of this program"
_STEPS = "steps"
"""How the rows of several steps are called, with a number."""
CLASS = "is"
"""The name under which the class of a record stands, and ``secret`` for a secret."""
_NOT_GIVEN = (None, False, ())
"""Defaults that say that something is not given, which no version changes."""
DAMAGED = "what was noted of it is damaged"
Noted = Mapping[str, Any]
"""A part of what is noted of a pass, as JSON: ``notes`` of its steps, by id, in the order in which
they are done; what each has ``left`` behind; which are ``void``, since nothing of them is to be
taken back; and whether all that stands there or before it has ``ended``."""


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

    def add(self, number: int, noted: Noted | None, definitions: Mapping[str, Any | None]) -> None:
        """What that pass does, behind what is known of it; None: nothing of it is to be taken back.
        What has left its bounds goes. Of what was started, by id, from what; None: it was stopped.
        """
        with self._base.change() as base:
            if noted is None:
                base.execute("DELETE FROM journal WHERE pass = ?", (number,))
            elif noted:
                # An older program, which knows only a row for each step, gives that reason.
                data = packed({"why": _NEWER, **noted})
                base.execute(
                    "INSERT INTO journal (pass, id, data) "
                    "SELECT ?, ? || ' ' || (1 + count(*)), ? FROM journal WHERE pass = ?",
                    (number, _STEPS, data, number),
                )
            base.execute(
                "UPDATE passes SET size = (SELECT ifnull(sum(length(data)), 0) FROM journal "
                "WHERE pass = ?) WHERE pass = ?",
                (number, number),
            )
            stopped = [(ident,) for ident, one in definitions.items() if one is None]
            base.executemany("DELETE FROM definitions WHERE id = ?", stopped)
            base.executemany(
                "INSERT OR REPLACE INTO definitions (id, data) VALUES (?, ?)",
                [(ident, packed(one)) for ident, one in definitions.items() if one is not None],
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
            ids = [(one, ident) for ident in self.notes(one)]
            base.execute("DELETE FROM journal WHERE pass = ?", (one,))
            base.executemany("INSERT INTO journal (pass, id) VALUES (?, ?)", ids)
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

    def notes(self, number: int) -> dict[str, Any]:
        """What was noted of each step of that pass, in the order in which they are done; None: it
        has left. Of one that has ``left`` something, or has ``ended``, the note has that."""
        rows = self._base.read(
            "SELECT id, data FROM journal WHERE pass = ? ORDER BY rowid", (number,)
        )
        found: dict[str, Any] = {}
        for ident, data in rows:
            # An older program has a row for each step, by its id.
            ident = _STEPS if ident.startswith(f"{_STEPS} ") else ident
            try:
                noted = None if data is None else unpacked(data)
                if noted is None:
                    found[ident] = None
                elif ident == _STEPS:
                    _merge(found, noted)
                else:
                    found[ident] = {"ended": "made" not in noted, **noted}
            except (ValueError, KeyError, TypeError, AttributeError):
                found[ident] = {"why": DAMAGED, "ended": True}
        return found

    def defined(self) -> set[str]:
        """The ids of all of which it is known what they were last started from."""
        return {ident for (ident,) in self._base.read("SELECT id FROM definitions")}

    def definition(self, ident: str) -> Any:
        """What it was last started from; None: it is not known. Raises ValueError."""
        rows = self._base.read("SELECT data FROM definitions WHERE id = ?", (ident,))
        return unpacked(rows[0][0]) if rows else None


def _merge(found: dict[str, Any], noted: Noted) -> None:
    """Add what was noted later. Raises ValueError and the like where it is damaged."""
    found.update(noted["notes"])
    for ident, left in noted.get("left", {}).items():
        found[ident]["left"] = left
    for ident in noted.get("void", ()):
        found.pop(ident, None)
    for note in found.values() if noted.get("ended") else ():
        note["ended"] = True


@cache
def _encoder() -> Callable[[Any], str]:
    try:
        # The package `json` takes as long to load as all else that a pass of one step notes.
        from _json import encode_basestring_ascii, make_encoder

        form = None, ":", ",", False, False, True
        encode = make_encoder(None, _plain, encode_basestring_ascii, *form)
        "".join(encode("", 0))
    except (ImportError, TypeError):  # It is CPython's own, and another one may have it otherwise.
        from json import JSONEncoder

        return JSONEncoder(default=_plain, separators=(",", ":")).encode
    return lambda value: "".join(encode(value, 0))


def _plain(value: Any) -> dict[str, Any]:
    cls = type(value)
    if cls is Secret:
        return {CLASS: "secret", "digest": value.digest}
    name, fields = _described(cls)  # type: ignore[arg-type]
    found = {CLASS: name}
    for field, default in fields:
        one = getattr(value, field)
        if one is not default:
            found[field] = one
    return found


@cache
def _described(cls: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Its name, and its fields, each with the value that need not be noted."""
    if not is_record(cls):
        return name_of(cls), ()
    fields = []
    for name, given in options(cls).items():
        default = given.get("default", CLASS)
        fields.append((name, default if any(default is one for one in _NOT_GIVEN) else CLASS))
    return name_of(cls), tuple(fields)


def packed(document: Any) -> bytes:
    """Records, tuples and what JSON has, as they are written: without what is not given, and of a
    secret its digest. Of what is no record of ours the class alone, of which nothing is made."""
    data = _encoder()(document).encode()
    if len(data) <= _SHORT:
        return data
    import zlib

    return zlib.compress(data, 1)


def unpacked(data: bytes) -> Any:
    """The JSON value again. Raises ValueError."""
    import json
    import zlib

    try:
        return json.loads(data if data[:1] in b"{[" else zlib.decompress(data))
    except (TypeError, zlib.error):
        raise ValueError("it is damaged") from None
