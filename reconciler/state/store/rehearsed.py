"""The store of a spec as a copy in memory, for a rehearsal. It must not write a file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from reconciler.host.clock import Clock
from reconciler.state.store.base import _TABLES, Base, _columns
from reconciler.state.store.outbox import Outbox
from reconciler.state.store.tables import Store

if TYPE_CHECKING:
    import sqlite3

_LEFT_OUT = ("outbox", "journal", "counts")
"""What is on its way, and what was."""


def rehearsed(folder: str, clock: Clock) -> Store:
    """A copy, but for what nothing to come depends on. Raises HostError."""
    with closing(Base(folder, clock, False)) as file:
        copied = RehearsedBase(folder, clock, file)
    store = Store(folder, clock, False, copied)
    store.outbox = RehearsedOutbox(copied)
    return store


class RehearsedBase(Base):
    def __init__(self, folder: str, clock: Clock, file: Base) -> None:
        super().__init__(folder, clock, False)
        import _sqlite3 as sqlite3

        self._copy = sqlite3.connect(":memory:", isolation_level=None)
        self._fit(self._copy, True)
        for name, table in _TABLES.items():
            if name not in _LEFT_OUT:
                columns = _columns(table)
                rows = file.read(f"SELECT {', '.join(columns)} FROM {name}")
                marks = ", ".join("?" * len(columns))
                insert = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})"
                self._copy.executemany(insert, rows)

    def _stands(self) -> bool:
        return True

    def _opened(self, changes: bool) -> sqlite3.Connection:
        self._base = self._copy
        return self._copy


class RehearsedOutbox(Outbox):
    def _is_delivered_from(self) -> bool:
        return False
