"""How many messages went out about a thing within an hour, and how many were held back.

It must not decide how many may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.core.messages import Sent
from reconciler.state.store.base import Base

if TYPE_CHECKING:
    import sqlite3


class SentMessages:
    """The table of them; see Base for what its methods raise."""

    def __init__(self, base: Base) -> None:
        self._base = base

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
