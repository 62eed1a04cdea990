"""What must outlive a pass, in one SQLite file: how often something was tried in vain.

It must hold nothing that a pass needs in order to be right: losing it loses backoff.
A pass with nothing to remember does not even load SQLite; see ``state.quiet``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.host.clock import Clock
from reconciler.host.processes import boot_id
from reconciler.model import HostError
from reconciler.state import STORE, make_folder

if TYPE_CHECKING:
    import sqlite3

_TIMEOUT = 5.0
_TABLES = {
    "attempts": "id TEXT PRIMARY KEY, version TEXT, count INTEGER, boot TEXT, at REAL",
}
"""The tables, with their columns."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Starts of a resource that were not forgiven yet.

    ``version`` says what was started. ``since`` is the age of the last one in seconds, None when
    it was made before this boot.
    """

    version: str
    count: int
    since: float | None


class Store:
    """The store of one spec. Only one who holds the lock may open it to write."""

    def __init__(self, folder: str, clock: Clock, writes: bool) -> None:
        self.damaged: str | None = None
        """Where a damaged file was set aside, and why; None when there was none."""
        self._path = os.path.join(folder, STORE)
        self._folder = folder
        self._monotonic = clock.monotonic
        self._writes = writes
        self._boot = boot_id()
        self._base: sqlite3.Connection | None = None
        self._changes = False
        """Is it open for changes? Only looking must not even ask for that."""

    def close(self) -> None:
        """Let go of the file."""
        if self._base is not None:
            self._base.close()
            self._base = None
            self._changes = False

    # -- attempts

    def attempts(self) -> dict[str, Attempts]:
        """Those that were not forgiven, by id."""
        now = self._monotonic()
        rows = self._read("SELECT id, version, count, boot, at FROM attempts")
        return {
            ident: Attempts(version, count, now - at if boot == self._boot else None)
            for ident, version, count, boot, at in rows
        }

    def attempt(self, ident: str, version: str) -> None:
        """A start is about to be made; it is on the disk when this returns.

        The first one counts only when it ``failed``: what has come up once is started again at
        once when it ends.
        """
        with self._change() as base:
            base.execute("DELETE FROM attempts WHERE id = ? AND version != ?", (ident, version))
            base.execute(
                "INSERT INTO attempts VALUES (?, ?, 0, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "count = count + 1, boot = excluded.boot, at = excluded.at",
                (ident, version, self._boot, self._monotonic()),
            )

    def failed(self, ident: str) -> None:
        """The start that was made did not even come up."""
        with self._change() as base:
            base.execute("UPDATE attempts SET count = max(count, 1) WHERE id = ?", (ident,))

    def seen_running(self, ident: str) -> None:
        """It runs, and its last attempt was made before this boot: its age counts from now."""
        with self._change() as base:
            base.execute(
                "UPDATE attempts SET boot = ?, at = ? WHERE id = ?",
                (self._boot, self._monotonic(), ident),
            )

    def forgive(self, ident: str) -> None:
        """It stayed healthy, or nobody wants it any more."""
        with self._change() as base:
            base.execute("DELETE FROM attempts WHERE id = ?", (ident,))

    # -- the file

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        if self._base is None and not os.path.exists(self._path):
            return []
        found: list[tuple[Any, ...]] = self._guarded(
            lambda base: base.execute(query).fetchall(), self._changes, True
        )
        return found

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        base = self._guarded(lambda base: base.execute("BEGIN IMMEDIATE").connection, True, True)
        try:
            yield base
            (number,) = base.execute("SELECT count(*) FROM attempts WHERE count > 0").fetchone()
            base.execute(f"PRAGMA user_version = {int(number)}")
            base.execute("COMMIT")
        except BaseException as error:
            with suppress(Exception):
                base.execute("ROLLBACK")
            raise self._in_words(error) from None

    def _guarded(
        self, work: Callable[[sqlite3.Connection], Any], changes: bool, again: bool
    ) -> Any:
        import sqlite3

        try:
            return work(self._opened(changes))
        except sqlite3.OperationalError as error:
            raise self._in_words(error) from None
        except sqlite3.DatabaseError as error:
            if not (again and self._writes):
                raise self._in_words(error) from None
            self._set_aside(str(error))
            return self._guarded(work, True, again=False)

    def _opened(self, changes: bool) -> sqlite3.Connection:
        if self._base is not None and (self._changes or not changes):
            return self._base
        self.close()
        import sqlite3
        from urllib.parse import quote

        if changes:
            make_folder(self._folder)
            with suppress(FileExistsError):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                os.close(os.open(self._path, flags, 0o600))
        address = f"file:{quote(self._path)}?mode={'rw' if changes else 'ro'}"
        base = sqlite3.connect(address, timeout=_TIMEOUT, isolation_level=None, uri=True)
        try:
            base.execute("PRAGMA synchronous = FULL")
            base.execute("PRAGMA trusted_schema = OFF")
            there = {name for (name,) in base.execute("SELECT name FROM sqlite_master")}
            for name in _TABLES.keys() - there if changes else ():
                base.execute(f"CREATE TABLE IF NOT EXISTS {name} ({_TABLES[name]})")
        except BaseException:
            base.close()
            raise
        self._base, self._changes = base, changes
        return base

    def _set_aside(self, why: str) -> None:
        """Begin anew beside a damaged file, which is kept for people to look at."""
        self.close()
        aside = f"{self._path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        os.rename(self._path, aside)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._path}-journal")
        self.damaged = f"the store was damaged ({why}); it was set aside as {aside} and begun anew"

    def _in_words(self, error: BaseException) -> BaseException:
        import sqlite3

        if isinstance(error, sqlite3.Error):
            return HostError(f"cannot use the store {self._path}: {error}")
        return error
