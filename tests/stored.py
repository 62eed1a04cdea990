"""What a killed loop has left in its store, looked at without touching it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import Any

from support import Machine


def stored(machine: Machine, query: str) -> list[tuple[Any, ...]]:
    """Rows of the store of the spec "demo"; none where there is no such table yet."""
    copy = machine.base / "copy"
    copy.mkdir(exist_ok=True)
    # With what it had begun to write, which is undone in the copy: nobody writes just now.
    for name in ("store.db", "store.db-journal"):
        (copy / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(machine.state / "demo" / name, copy / name)
    with contextlib.closing(sqlite3.connect(copy / "store.db")) as base:
        try:
            return base.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            assert "no such table" in str(error)
            return []
