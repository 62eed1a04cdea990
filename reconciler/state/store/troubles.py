"""What people were told is wrong, until they were told that it is well again.

It must not decide what they are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.core.messages import Trouble
from reconciler.state.store.base import Base

if TYPE_CHECKING:
    import sqlite3


class Troubles:
    """The table of open troubles; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

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
