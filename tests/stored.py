"""What a killed loop has left in its store, looked at without touching it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from support import Machine, until

_NAMES = ("store.db", "store.db-journal")


def _written(folder: Path) -> list[tuple[int, int, int] | None]:
    """What tells the files of a store from themselves when somebody has written to them."""
    found: list[tuple[int, int, int] | None] = []
    for name in _NAMES:
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def stored(machine: Machine, query: str) -> list[tuple[Any, ...]]:
    """Rows of the store of the spec "demo"; none where there is no such table yet."""
    copy, store = machine.base / "copy", machine.state / "demo"
    copy.mkdir(exist_ok=True)

    def copied() -> bool:
        """With what was begun to be written, which is undone in the copy; as it was at one time?"""
        before = _written(store)
        for name in _NAMES:
            (copy / name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(store / name, copy / name)
        return _written(store) == before

    until(copied)
    with contextlib.closing(sqlite3.connect(copy / "store.db")) as base:
        try:
            return base.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            assert "no such table" in str(error)
            return []
