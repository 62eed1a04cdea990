"""The file of the store: opened, read, changed, and set aside when it cannot be used.

It must not know what the tables mean.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.host import trust
from reconciler.host.clock import Clock, boot_id
from reconciler.state.folder import STORE, Newer, Unreadable, interrupted, make_folder

if TYPE_CHECKING:
    import sqlite3

_TIMEOUT = 5.0
_HASTE = 30.0
"""Seconds for which a store that somebody has locked is not waited for again."""

# Moments are given twice where needed: ``boot`` and ``at``, seconds of the monotonic clock in
# that boot, for intervals; ``wall``, seconds since the epoch, for people.
_TABLES = {
    "attempts": "id TEXT PRIMARY KEY, version TEXT, count INTEGER, boot TEXT, at REAL, "
    "behind INTEGER",
    "conditions": "id TEXT, what TEXT, of TEXT, boot TEXT, at REAL, PRIMARY KEY (id, what, of)",
    "checks": "id TEXT PRIMARY KEY, version TEXT, boot TEXT, at REAL, wall REAL, result TEXT, "
    "failures INTEGER, acted INTEGER, reason TEXT, since REAL, seconds REAL",
    "troubles": "id TEXT PRIMARY KEY, event TEXT, reason TEXT, wall REAL, boot TEXT, at REAL",
    "outbox": "seq INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT, event TEXT, title TEXT, "
    "body TEXT, wall REAL, tries INTEGER, boot TEXT, due REAL",
    "sent": "event TEXT, id TEXT, count INTEGER, held INTEGER, wall REAL, boot TEXT, at REAL, "
    "PRIMARY KEY (event, id)",
    "pauses": "id TEXT PRIMARY KEY, reason TEXT, wall REAL, until REAL, by TEXT",
    "history": "seq INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL, by TEXT, id TEXT, verb TEXT, "
    "result TEXT, why TEXT, error TEXT, seconds REAL, freed INTEGER, pass INTEGER",
    "reports": "period REAL PRIMARY KEY, boot TEXT, at REAL, wall REAL, figures TEXT",
    "passes": "pass INTEGER PRIMARY KEY, wall REAL, by TEXT, of INTEGER, done INTEGER, size INT",
    "journal": "pass INTEGER, id TEXT, data BLOB, PRIMARY KEY (pass, id)",
    "definitions": "id TEXT PRIMARY KEY, data BLOB",
    "counts": "id TEXT, verb TEXT, result TEXT, number INTEGER, PRIMARY KEY (id, verb, result)",
}
"""The tables, with their columns. A later version only ever adds tables and columns, so that what
an older one writes stays right; each INSERT names its columns for that reason."""
_VERSION = 1
"""Of these tables, as the table ``schema`` has it; a store without one has this."""
_SCHEMA = "schema"
_MADE = "stored"
"""The file that says that the store had tables: it is not empty unless somebody emptied it."""
_NEWEST_FORMAT = 2
"""The highest read version in a header, https://www.sqlite.org/fileformat.html."""
_OPEN = {"attempts": "count > 0", "conditions": "1", "checks": "1", "troubles": "1",
         "outbox": "1", "pauses": "1", "sent": "count >= 6"}  # fmt: skip
"""What a pass has to look at: the tables, with the rows of each."""
_COUNT = "SELECT " + " + ".join(
    f"(SELECT count(*) FROM {name} WHERE {rows})" for name, rows in _OPEN.items()
)


class Base:
    """The file of one spec's store. Only one who holds the lock ``writes``."""

    def __init__(self, folder: str, clock: Clock, writes: bool) -> None:
        self.damaged: str | None = None
        """Where a file that could not be used was set aside, and why; None: there was none."""
        self.clock, self.boot = clock, boot_id()
        self.folder = folder
        self._path, self._made = os.path.join(folder, STORE), os.path.join(folder, _MADE)
        self._writes = writes
        self._base: sqlite3.Connection | None = None
        self._changes = False
        """Is it open for changes? Only looking must not even ask for that."""
        self._file: tuple[int, int] | None = None
        self._cookie: tuple[int, ...] = ()
        self._written = 0
        """When the file was written last, with which that holds; 0 where it is too new to tell."""
        self._hasty = 0.0

    def close(self) -> None:
        """Let go of the file."""
        base, self._base = self._base, None
        if base is not None:
            base.close()

    def age(self, boot: str, at: float) -> float | None:
        """Seconds since ``at``, or None when that was before this boot."""
        return self.clock.monotonic() - at if boot == self.boot else None

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows; none where there is no store.

        Raises Newer, Unreadable, or HostError where it is damaged.
        """
        if not self._stands():
            return []
        return list(self._guarded(lambda base: base.execute(query, values).fetchall(), False, True))

    def refuse_unreadable(self) -> None:
        """Raise Newer or Unreadable, but for what ``roll_back`` fixes. No more is judged here."""
        if self._stands() and not interrupted(self.folder):
            try:
                self._guarded(lambda base: None, False, again=False)
            except (Newer, Unreadable):
                raise
            except HostError:
                return  # Whoever uses it says so, or sets it aside.

    def _stands(self) -> bool:
        """Is there anything of that name?"""
        try:
            os.lstat(self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unreadable(str(self._in_words(error))) from None
        return True

    def set_aside_damaged(self) -> None:
        """Set the file aside if any of it is damaged, also where it was not read yet.

        Raises HostError.
        """
        rows = self.read("PRAGMA quick_check(1)")
        if rows and rows[0][0] != "ok" and self.damaged is None:
            self._set_aside(str(rows[0][0]))

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Change rows, all or none; it is on the disk behind it. Raises HostError.

        Changes within a change are a part of it: each that is written waits for the disk.
        """
        if self._base is not None and self._base.in_transaction:
            yield self._base
            return
        base = self._guarded(lambda base: base.execute("BEGIN IMMEDIATE").connection, True, True)
        try:
            yield base
            (number,) = base.execute(_COUNT).fetchone()
            base.execute(f"PRAGMA user_version = {int(number)}")
            base.execute("COMMIT")
        except BaseException as error:
            with suppress(Exception):
                base.execute("ROLLBACK")
            raise self._in_words(error) from None

    def _guarded(
        self, work: Callable[[sqlite3.Connection], Any], changes: bool, again: bool
    ) -> Any:
        import _sqlite3 as sqlite3  # The package of that name loads `datetime` as well.

        try:
            return work(self._opened(changes))
        except (sqlite3.Error, OSError) as error:
            # Nothing but what SQLite itself calls damaged is set aside.
            corrupt = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in corrupt:
                words = self._in_words(error)
                raise words if changes else Unreadable(str(words)) from None
            _refuse_newer_format(self._path)
            if not (again and self._writes):
                raise self._in_words(error) from None
            self._set_aside(str(error))
            return self._guarded(work, True, again=False)

    def _opened(self, changes: bool) -> sqlite3.Connection:
        timeout = _TIMEOUT if self.clock.monotonic() >= self._hasty else 0.0
        base = self._base
        if base is not None and (self._changes or not changes) and self._is_there(base, timeout):
            return base
        self.close()
        if changes:
            make_folder(self.folder)
            if not os.path.lexists(self._path):
                self._put(self._path, b"")
        _refuse_odd_files(self._path)
        if not os.stat(self._path).st_size and self._had_tables():
            raise Unreadable(
                f"the store {self._path} was emptied; put a copy of it back, or remove it to begin "
                "with nothing paused"
            )
        base = _connected(self._path, changes, timeout)
        try:
            base.execute("PRAGMA synchronous = FULL")
            base.execute("PRAGMA trusted_schema = OFF")
            # What is deleted is overwritten: it may have come from a log with a secret in it.
            base.execute("PRAGMA secure_delete = ON")
            # In KiB: by default it would keep up to 2 MB of the file for good, in a loop of years.
            base.execute("PRAGMA cache_size = -128")
            self._fit(base, changes)
            if changes and not self._had_tables():
                self._put(self._made, b"there are tables in the store\n")
            status = os.stat(self._path)
            self._cookie = _cookie(base)
            self._written = _settled(status)
        except BaseException:
            base.close()
            raise
        self._base, self._changes, self._file = base, changes, (status.st_dev, status.st_ino)
        return base

    def _had_tables(self) -> bool:
        with suppress(OSError):
            return os.stat(self._made).st_size > 0
        return False

    def _put(self, path: str, data: bytes) -> None:
        """Make a file. That there were tables is forgotten with the file that had them."""
        from reconciler.host.place import put_at

        with suppress(FileNotFoundError):
            os.unlink(self._made)
        with suppress(FileExistsError):
            put_at(path, data, replace=False, sync=False)

    def _is_there(self, base: sqlite3.Connection, timeout: float) -> bool:
        """Is what we have open still the file of that name, with the tables that it had?

        Somebody may have moved it away, or a newer version of this program added to them.
        """
        with suppress(OSError):
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) != self._file:
                return False
            base.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
            if status.st_mtime_ns == self._written:
                return True
            self._written = _settled(status)
            return _cookie(base) == self._cookie
        return False

    def _fit(self, base: sqlite3.Connection, changes: bool) -> None:
        """Add the tables and columns that an older file has not. Raises Newer.

        Who only looks sees them as empty.
        """
        there = self._tables(base)
        missing = _missing(there)
        if not changes:
            for name, columns in missing.items():
                if name not in there:
                    base.execute(f"CREATE TEMP TABLE {name} ({_TABLES[name]})")
                else:
                    empty = "".join(f", NULL AS {column}" for column in columns)
                    base.execute(f"CREATE TEMP VIEW {name} AS SELECT *{empty} FROM main.{name}")
            return
        if missing or _SCHEMA not in there:
            with base:  # All or nothing, sqlite3.Connection.
                base.execute("BEGIN IMMEDIATE")
                there = self._tables(base)  # Another one may have been faster.
                for name, columns in _missing(there).items():
                    if name not in there:
                        base.execute(f"CREATE TABLE {name} ({_TABLES[name]})")
                    for column, sort in columns.items() if name in there else ():
                        base.execute(f"ALTER TABLE {name} ADD COLUMN {column} {sort}")
                if _SCHEMA not in there:
                    base.execute(f"CREATE TABLE {_SCHEMA} (version INTEGER)")
                    base.execute(f"INSERT INTO {_SCHEMA} (version) VALUES ({_VERSION})")

    def _tables(self, base: sqlite3.Connection) -> dict[str, set[str]]:
        """The columns of each table of the file. Raises Newer."""
        found = base.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        there: dict[str, set[str]] = {}
        for name, sql in found:
            if name == _SCHEMA:
                version = base.execute(f"SELECT max(version) FROM {_SCHEMA}").fetchone()[0]
                if version is not None and version > _VERSION:
                    raise Newer(self._path, f"its tables have version {version}")
            elif name not in _TABLES and not name.startswith("sqlite_"):
                raise Newer(self._path, f"this one knows no table {name}")
            there[name] = set(_columns(_TABLES.get(name, "")))
            if name in _TABLES and sql != f"CREATE TABLE {name} ({_TABLES[name]})":
                rows = base.execute(f"PRAGMA main.table_info({name})")
                columns = {row[1] for row in rows}
                for column in sorted(columns - there[name]):
                    raise Newer(self._path, f"this one knows no {column} in the table {name}")
                there[name] = columns
        return there

    def _set_aside(self, why: str) -> None:
        """Begin anew beside a damaged file, which is kept for people to look at."""
        self.close()
        aside = f"{self._path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            os.rename(self._path, aside)
        except OSError as error:
            raise HostError(f"cannot set {self._path} aside: {error.strerror}") from None
        with suppress(FileNotFoundError):
            os.unlink(f"{self._path}-journal")
        self.damaged = f"the store was damaged ({why}); it was set aside as {aside} and begun anew"

    def _in_words(self, error: BaseException) -> BaseException:
        import _sqlite3 as sqlite3

        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            self._hasty = self.clock.monotonic() + _HASTE
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY and interrupted(self.folder):
            return HostError(
                f"somebody was killed while he wrote to the store {self._path}, which the next "
                "pass (--once) undoes"
            )
        if not isinstance(error, (sqlite3.Error, OSError)):
            return error
        why = getattr(error, "strerror", None) or error
        return HostError(f"cannot use the store {self._path}: {why}")


class StoreTable:
    """Rows of one kind."""

    def __init__(self, base: Base) -> None:
        self._base = base


def _refuse_odd_files(path: str) -> None:
    """Raise Unreadable where SQLite would open something that it waits for, such as a FIFO."""
    for name in (path, f"{path}-journal", f"{path}-wal"):
        # Not opened: to close it would take the locks that SQLite has on it, fcntl_locking(2).
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                raise Unreadable(f"cannot use the store {name}: not a regular file; move it away")


def _refuse_newer_format(path: str) -> None:
    """Raise Newer where a header says so that is right in all else, which SQLite calls no
    database, https://www.sqlite.org/fileformat.html."""
    with suppress(OSError), os.fdopen(trust.own_file(path), "rb") as file:
        header = file.read(100)
        whole = header[:16] == b"SQLite format 3\0" and header[21:24] == bytes((64, 32, 32))
        if whole and header[19] > _NEWEST_FORMAT:
            raise Newer(path, f"its file format has version {header[19]}")


@cache
def _columns(table: str) -> dict[str, str]:
    """The columns of one of our tables, each with its type."""
    words = (part.split() for part in re.sub(r"\(.*?\)", "", table).split(","))
    return {name: sort for name, sort, *_ in filter(None, words) if name != "PRIMARY"}


def _missing(there: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
    """The columns that are not there, of each table that lacks any, with their types."""
    tables = {name: (_columns(table), there.get(name, ())) for name, table in _TABLES.items()}
    return {
        name: {column: sort for column, sort in all_of_it.items() if column not in known}
        for name, (all_of_it, known) in tables.items()
        if not all_of_it.keys() <= set(known)
    }


def _settled(status: os.stat_result) -> int:
    """When the file was written last; 0 where it could be written again at the same time."""
    # The clock of a file system ticks some hundred times a second, that of some once in two.
    return status.st_mtime_ns if time.time_ns() - status.st_mtime_ns > 3 * 10**9 else 0


def _cookie(base: sqlite3.Connection) -> tuple[int, ...]:
    """What changes when a version of this program adds to the tables."""
    import _sqlite3 as sqlite3

    (number,) = base.execute("PRAGMA schema_version").fetchone()
    with suppress(sqlite3.OperationalError):  # A store of the first version may have none.
        return number, *base.execute(f"SELECT max(version) FROM {_SCHEMA}").fetchone()
    return (number,)


def _connected(path: str, changes: bool, timeout: float) -> sqlite3.Connection:
    """The file, which must be there, named as https://www.sqlite.org/uri.html has it."""
    import _sqlite3 as sqlite3

    for char in "%?#":  # urllib.parse could do it, and takes as long to load as SQLite itself.
        path = path.replace(char, f"%{ord(char):02x}")
    address = f"file:{path}?mode={'rw' if changes else 'ro'}"
    return sqlite3.connect(address, timeout=timeout, isolation_level=None, uri=True)


def roll_back(folder: str) -> None:
    """Undo what one who was killed had begun to write. Only for one who may act.

    Who only reads cannot do that, and would find no store that can be read. Whatever else is
    wrong with the file is told by who uses it.
    """
    import _sqlite3 as sqlite3

    path = os.path.join(folder, STORE)
    with suppress(sqlite3.Error, HostError):
        _refuse_odd_files(path)
        with closing(_connected(path, True, _TIMEOUT)) as base:
            # To read is enough, https://www.sqlite.org/lockingv3.html#hot_journals.
            base.execute("SELECT count(*) FROM sqlite_master").fetchone()
